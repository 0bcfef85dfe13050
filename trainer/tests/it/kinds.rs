use burn::tensor::Device;
use moe_train::model::Model;
use moe_train::model::context::Mode;
use moe_train::model::parameters::{parameters, replace_all};
use moe_train::train::train_step;

use crate::routers::{KINDS, context, model_of};
use crate::support::*;

#[test]
fn loads_of_samples_add_up_and_do_not_depend_on_the_micro_batch() {
    let config = model_of(KINDS[0].0, &[]);
    let stats = |micro_batch: usize| {
        let report = train_step(&mut state(&config), &batch(0, 6), &step_config(micro_batch, 1e-3));
        report.expect("finite").routers.remove(0).1
    };
    let whole = stats(6);
    assert_eq!(whole.by_sample().len(), 6);
    for (expert, n) in whole.load.iter().enumerate() {
        assert_eq!(whole.by_sample().map(|load| load[expert]).sum::<u64>(), *n);
    }
    let batch = batch(0, 6);
    for (sample, load) in whole.by_sample().enumerate() {
        let segments = &batch.segments[batch.token_range(sample..sample + 1)];
        let n_tokens = segments.iter().filter(|&&s| s != moe_train::model::PADDING).count() as u64;
        assert_eq!(load.iter().sum::<u64>(), 2 * n_tokens, "sample {sample}");
    }
    for micro_batch in [1, 4] {
        assert_eq!(stats(micro_batch).loads, whole.loads, "{micro_batch}");
    }
}

#[test]
fn latent_experts_work_between_two_projections() {
    let config = model_of(KINDS[0].0, &["moe.latent=5", "moe.shared=0"]);
    let (d, f, l) = (config.d_model, config.moe.expert_ffn, 5);
    // Larger values than those of an untrained model, so that a sum left out would show.
    let small = Model::new(&config, 1, &Device::flex());
    let size = moe_train::model::size::size(&config).total as usize;
    let values = parameters(&small).into_iter().map(|p| p.value * 3.0).collect();
    let model = replace_all(small, values);
    let all = parameters(&model);
    assert_eq!(
        size,
        all.iter().filter(|p| !p.name.ends_with("balance_bias")).map(|p| p.len()).sum::<usize>()
    );
    let (layer, moe) = model.mixtures().next().expect("a mixture");
    let of = |name: &str| {
        let name = format!("blocks.{layer}.feed_forward.{name}");
        all.iter().find(|p| p.name == name).expect("a parameter").to_host()
    };
    let (into, back) = (of("latent.w_down"), of("latent.w_up"));
    let (gate, up, down) = (of("experts.w_gate"), of("experts.w_up"), of("experts.w_down"));
    assert_eq!((into.len(), up.len()), (d * l, config.moe.n_experts * l * f));

    let (x, ctx) = (noise(2, 7 * d), context(7, 0, Mode::Eval));
    let on = tensor(&x, [7, d], &Device::flex());
    let routing = moe.router().route(on.clone(), &ctx);
    let choices: Vec<usize> = routing.choices.into_data().iter::<i64>().map(|e| e as usize).collect();
    let weights = host(routing.weights);
    let y = host(moe.forward(on, &ctx).0);
    for t in 0..7 {
        let product = |x: &[f32], w: &[f32], n: usize| -> Vec<f32> {
            (0..n).map(|j| x.iter().enumerate().map(|(i, x)| x * w[i * n + j]).sum()).collect()
        };
        let inner = product(&x[t * d..(t + 1) * d], &into, l);
        let mut sum = vec![0.0f32; l];
        for j in 0..2 {
            let at = choices[2 * t + j] * l * f;
            let [gate, up] = [&gate, &up].map(|w| product(&inner, &w[at..at + l * f], f));
            let hidden: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = product(&hidden, &down[at..at + l * f], l);
            sum.iter_mut().zip(out).for_each(|(sum, y)| *sum += y * weights[2 * t + j]);
        }
        let expected = product(&sum, &back, d);
        assert!(expected.iter().any(|y| y.abs() > 1e-3), "{expected:?}");
        assert!(distance(&y[t * d..(t + 1) * d], &expected) < 1e-4, "token {t}");
    }
}
