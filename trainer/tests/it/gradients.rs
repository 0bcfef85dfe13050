use burn::tensor::{Device, Tensor};
use moe_train::model::Model;
use moe_train::model::config::ModelConfig;
use moe_train::model::parameters::{Parameter, is_trained, parameters, replace_all, take_gradients};
use moe_train::objective::{Targets, cross_entropy, token_losses};
use moe_train::ops::plainly;
use moe_train::ops::routing::Score;

use crate::support::*;

/// The whole objective, as the trainer computes it, as a plain number.
fn objective(model: &Model) -> f64 {
    let batch = batch(0, 2);
    let input = batch.input(0..2, &model.device());
    let output = model.forward(&input, &model.eval_context(&input));
    let targets = Targets { ids: &batch.targets, mask: &batch.loss_mask };
    let losses = token_losses(output.hidden, model.head(), targets).expect("on the host");
    let ce: f64 = losses.iter().copied().map(f64::from).sum::<f64>() / batch.n_targets() as f64;
    let auxiliary: f64 = output
        .records
        .into_iter()
        .filter_map(|(_, record)| record.auxiliary)
        .map(|a| f64::from(host(a)[0]))
        .sum();
    ce + auxiliary
}

fn gradients(model: &Model) -> Vec<Option<Tensor<1>>> {
    let batch = batch(0, 2);
    let input = batch.input(0..2, &model.device());
    let output = model.forward(&input, &model.eval_context(&input));
    let scale = 1.0 / batch.n_targets() as f64;
    let targets = Targets { ids: &batch.targets, mask: &batch.loss_mask };
    let ce = cross_entropy(output.hidden, model.head(), targets, scale);
    let total = output
        .records
        .into_iter()
        .filter_map(|(_, record)| record.auxiliary)
        .fold(ce.surrogate, |sum, auxiliary| sum + auxiliary);
    take_gradients(model, &mut total.backward())
}

/// Moves along the gradient of each parameter: the slope found by finite differences must be the
/// gradient's length. A direction with a large slope keeps the rounding of f32 small in comparison.
fn check(config: &ModelConfig, only: Option<&str>) {
    let device = Device::flex();
    let tracked = Model::new(config, 1, &autodiff());
    let all = parameters(&tracked);
    let plain = Model::new(config, 1, &device);
    let trained: Vec<usize> = (0..all.len()).filter(|&i| is_trained(&all[i].name)).collect();
    let gradients = gradients(&tracked);
    assert_eq!(gradients.len(), trained.len());
    for (&index, gradient) in trained.iter().zip(gradients) {
        let name = &all[index].name;
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let gradient = host(gradient.unwrap_or_else(|| panic!("{name} has no gradient")));
        let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(length > 1e-5, "{name}: a gradient of zero proves nothing");
        let moved = |distance: f64| {
            let values = all.iter().enumerate().map(|(i, p): (usize, &Parameter)| {
                let mut values = p.to_host();
                if i == index {
                    for (value, g) in values.iter_mut().zip(&gradient) {
                        *value += (distance / length * f64::from(*g)) as f32;
                    }
                }
                let n = values.len();
                tensor(&values, [n], &device)
            });
            objective(&replace_all(plain.clone(), values.collect()))
        };
        // Small enough that no token changes its experts, which would be a jump of the objective.
        let h = 4e-4;
        let slope = (moved(h) - moved(-h)) / (2.0 * h);
        assert!((slope / length - 1.0).abs() < 0.02, "{name}: slope {slope}, gradient {length}");
    }
}

#[test]
fn every_parameter_has_the_gradient_of_the_loss() {
    let every = || {
        let mut config = tiny_model();
        check(&config, None);
        config.tie_embeddings = true;
        config.moe.router = router(Score::Softmax);
        check(&config, None);
        config.moe.latent = 6;
        check(&config, Some("feed_forward"));
    };
    every();
    plainly(every);
}

#[test]
fn the_balancing_losses_reach_the_router() {
    for score in [Score::Sigmoid, Score::Softmax] {
        for (switch, sequence, z) in [(3.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 0.3)] {
            let mut config = tiny_model();
            config.moe.router = router(score);
            config.moe.balance = balance(0.0, switch, sequence, z);
            check(&config, Some("router"));
            plainly(|| check(&config, Some("router")));
        }
        let mut config = tiny_model();
        config.moe.router = router(score);
        config.moe.balance.orthogonality.orthogonality = 3.0;
        check(&config, Some("router"));
    }
}
