use burn::tensor::activation::{sigmoid, silu, softmax};
use burn::tensor::{Int, Tensor, TensorData};
use moe_train::model::context::{BatchCounts, Context, Pass};
use moe_train::model::init::Init;
use moe_train::model::moe::{ExpertWeights, MoeLayer};
use moe_train::model::parameters::{Parameter, parameters, replace_all};
use moe_train::model::rope::Ropes;
use moe_train::model::{Input, Model, PADDING};
use moe_train::ops::plainly;
use moe_train::ops::routing::Score;

use crate::support::*;

/// Hidden states of one sample without padding.
fn hidden(model: &Model, tokens: &[u32], segments: &[u32], positions: &[u32]) -> Vec<f32> {
    let input = Input::new(tokens, positions, segments, [1, tokens.len()], &model.device());
    host(model.forward(&input, &model.eval_context(&input)).hidden)
}

#[test]
fn a_document_in_a_pack_is_as_if_alone() {
    let config = tiny_model();
    let model = Model::new(&config, 1, &burn::tensor::Device::flex());
    let (a, b) = ([3u32, 9, 4, 1, 7], [8u32, 2, 2, 5]);
    let pack: Vec<u32> = a.iter().chain(&b).copied().collect();
    let packed = hidden(&model, &pack, &[0, 0, 0, 0, 0, 1, 1, 1, 1], &[0, 1, 2, 3, 4, 0, 1, 2, 3]);
    let alone = hidden(&model, &b, &[0; 4], &[0, 1, 2, 3]);
    assert!(distance(&packed[5 * config.d_model..], &alone) < 1e-5);
    // Without the boundary the second document would see the first one.
    let leaky = hidden(&model, &pack, &[0; 9], &[0, 1, 2, 3, 4, 0, 1, 2, 3]);
    assert!(distance(&leaky[5 * config.d_model..], &alone) > 1e-2);
}

#[test]
fn later_tokens_do_not_change_earlier_outputs() {
    for score in [Score::Sigmoid, Score::Softmax] {
        let mut config = tiny_model();
        config.moe.router = router(score);
        let model = Model::new(&config, 1, &burn::tensor::Device::flex());
        let positions: Vec<u32> = (0..8).collect();
        let before = hidden(&model, &[3, 9, 4, 1, 7, 8, 2, 2], &[0; 8], &positions);
        let after = hidden(&model, &[3, 9, 4, 1, 7, 20, 2, 2], &[0; 8], &positions);
        let at = 5 * config.d_model;
        assert!(distance(&before[..at], &after[..at]) < 1e-6);
        assert!(distance(&before[at..], &after[at..]) > 1e-2, "the probe must have an effect");
    }
}

/// Every expert on every token, times the router's weight, which is zero for all but the chosen.
struct Oracle {
    router: Tensor<2>,
    bias: Vec<f32>,
    gate: Tensor<3>,
    up: Tensor<3>,
    down: Tensor<3>,
}

impl Oracle {
    fn forward(&self, x: Tensor<2>, valid: &[bool], score: Score, scale: f64) -> Tensor<2> {
        let (device, [tokens, width]) = (x.device(), x.dims());
        let n = self.bias.len();
        let logits = x.clone().matmul(self.router.clone());
        let scores = match score {
            Score::Softmax => softmax(logits, 1),
            Score::Sigmoid => sigmoid(logits),
        };
        let flat = host(scores.clone());
        let mut chosen = vec![0.0f32; tokens * n];
        for (token, row) in flat.chunks(n).enumerate().filter(|(token, _)| valid[*token]) {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| (row[b] + self.bias[b]).total_cmp(&(row[a] + self.bias[a])));
            order[..2].iter().for_each(|&expert| chosen[token * n + expert] = 1.0);
        }
        let chosen = scores * tensor(&chosen, [tokens, n], &device);
        let gates = chosen.clone() / (chosen.sum_dim(1) + 1e-20) * scale;
        (0..n).fold(Tensor::zeros([tokens, width], &device), |sum, expert| {
            let weights = |w: &Tensor<3>| {
                let [_, rows, columns] = w.dims();
                w.clone().slice([expert..expert + 1, 0..rows, 0..columns]).reshape([rows, columns])
            };
            let hidden = silu(x.clone().matmul(weights(&self.gate))) * x.clone().matmul(weights(&self.up));
            let index = Tensor::<1, Int>::from_data(TensorData::from([expert as i64]), &device);
            sum + hidden.matmul(weights(&self.down)) * gates.clone().select(1, index)
        })
    }
}

/// The dropless layer and the oracle, forward and backward, on 11 tokens of which 2 are padding,
/// with one expert that nothing chooses.
fn check_oracle(score: Score) {
    let mut config = tiny_model();
    config.moe.n_shared = 0;
    config.moe.router = router(score);
    let device = autodiff();
    let layer = MoeLayer::new(&config, 0, 1.0, "layer", &Init::new(5, 0.5, &device));
    let bias = [0.1f32, 0.0, -9.0, 0.2, 0.0];
    let layer = layer.with_bias(tensor(&bias, [5], &burn::tensor::Device::flex()));
    let valid: Vec<bool> = (0..11).map(|t| t != 4 && t != 10).collect();
    let segments: Vec<u32> = valid.iter().map(|&v| if v { 0 } else { PADDING }).collect();
    let input = Input::new(&[0; 11], &[0; 11], &segments, [1, 11], &device);
    let ctx = Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &Ropes::default());
    let values = noise(2, 11 * config.d_model);
    let direction = tensor(&noise(3, values.len()), [11, config.d_model], &device);

    let x = tensor(&values, [11, config.d_model], &device).require_grad();
    let (y, record) = layer.forward(x.clone(), &ctx);
    let load = host(record.load);
    assert_eq!(load[2], 0.0, "no token goes to the expert of low bias");
    assert_eq!(load.iter().sum::<f32>(), 2.0 * 9.0);

    let ExpertWeights { gate, up, down } = layer.experts().weights();
    let gate = gate.expect("SwiGLU");
    let router = layer.router().matrix().expect("the matrix of the oracle");
    let leaf = |w: Tensor<3>| Tensor::from_inner(w.without_autodiff()).require_grad();
    let oracle = Oracle {
        router: Tensor::from_inner(router.clone().without_autodiff()).require_grad(),
        bias: bias.to_vec(),
        gate: leaf(gate.clone()),
        up: leaf(up.clone()),
        down: leaf(down.clone()),
    };
    let x2 = tensor(&values, [11, config.d_model], &device).require_grad();
    let expected = oracle.forward(x2.clone(), &valid, score, 1.5);
    assert!(distance(&host(y.clone()), &host(expected.clone())) < 1e-5);

    let grads = (y * direction.clone()).sum().backward();
    let expected_grads = (expected * direction).sum().backward();
    let check = |name: &str, got: Vec<f32>, wanted: Vec<f32>| {
        assert!(wanted.iter().any(|g| g.abs() > 1e-3), "{name}: a gradient of zero proves nothing");
        assert!(distance(&got, &wanted) < 1e-5, "{name}: {}", distance(&got, &wanted));
    };
    check("x", host(x.grad(&grads).expect("x")), host(x2.grad(&expected_grads).expect("x")));
    let wanted = oracle.router.grad(&expected_grads).expect("router");
    check("router", host(router.grad(&grads).expect("router")), host(wanted));
    for (name, got, wanted) in
        [("gate", gate, oracle.gate), ("up", up, oracle.up), ("down", down, oracle.down)]
    {
        check(name, host(got.grad(&grads).expect(name)), host(wanted.grad(&expected_grads).expect(name)));
    }
}

#[test]
fn dropless_equals_every_expert_times_its_gate() {
    for score in [Score::Sigmoid, Score::Softmax] {
        check_oracle(score);
        plainly(|| check_oracle(score));
    }
}

#[test]
fn the_order_of_experts_does_not_matter() {
    let config = tiny_model();
    let device = burn::tensor::Device::flex();
    let bias = tensor(&[0.1, -0.2, 0.3, 0.0, 0.05], [5], &device);
    let model = Model::new(&config, 1, &device).with_bias(1, bias);
    let order = [3usize, 0, 4, 1, 2];
    let permuted: Vec<Tensor<1>> = parameters(&model)
        .into_iter()
        .map(|p| {
            let values = permute_experts(&p, &order);
            tensor(&values, [values.len()], &device)
        })
        .collect();
    let other = replace_all(model.clone(), permuted);
    let positions: Vec<u32> = (0..SEQ as u32).collect();
    let tokens = batch(0, 1).tokens;
    let a = hidden(&model, &tokens, &[0; SEQ], &positions);
    let b = hidden(&other, &tokens, &[0; SEQ], &positions);
    assert!(distance(&a, &b) < 1e-5);
}

/// The values of a parameter with its experts in another order.
fn permute_experts(p: &Parameter, order: &[usize]) -> Vec<f32> {
    let values = p.to_host();
    if p.name.contains(".experts.") || p.name.ends_with("balance_bias") {
        let size = values.len() / order.len();
        order.iter().flat_map(|&e| values[e * size..(e + 1) * size].to_vec()).collect()
    } else if p.name.ends_with("router.weight") {
        values.chunks(order.len()).flat_map(|row| order.iter().map(|&e| row[e]).collect::<Vec<_>>()).collect()
    } else {
        values
    }
}

#[test]
fn names_are_paths_and_unique() {
    let model = Model::new(&tiny_model(), 1, &burn::tensor::Device::flex());
    let names: Vec<String> = parameters(&model).into_iter().map(|p| p.name).collect();
    let unique: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for name in [
        "embedding",
        "head",
        "norm.weight",
        "blocks.0.feed_forward.w_up",
        "blocks.1.feed_forward.router.balance_bias",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    let size = moe_train::model::size::size(&tiny_model());
    let counted: usize =
        parameters(&model).iter().filter(|p| !p.name.ends_with("balance_bias")).map(Parameter::len).sum();
    assert_eq!(size.total, counted as u64);
}

#[test]
fn a_batch_that_is_all_padding_changes_nothing() {
    let model = Model::new(&tiny_model(), 1, &burn::tensor::Device::flex());
    let input = Input::new(&[0; 4], &[0; 4], &[PADDING; 4], [1, 4], &model.device());
    let check = || {
        let output = model.forward(&input, &model.eval_context(&input));
        assert!(host(output.hidden).iter().all(|value| value.is_finite()));
        let (_, record) = output.records.into_iter().next().expect("one router");
        assert!(host(record.load).iter().all(|&n| n == 0.0));
        for named in record.values.iter().filter(|v| ["aux_switch", "aux_sequence", "z"].contains(&v.name)) {
            assert_eq!(host(named.value.clone()), [0.0], "{}", named.name);
        }
    };
    check();
    plainly(check);
}
