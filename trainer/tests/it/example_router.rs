//! The router that CONTRIBUTING.md shows, word for word, at work.

// In the crate: `use super::{Route, RouterShape};` and `crate` for `moe_train`.
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use moe_train::model::context::Context;
use moe_train::model::cost::Cost;
use moe_train::model::facts::Facts;
use moe_train::model::init::Init;
use moe_train::model::moe::{Route, RouterShape, Routing};
use moe_train::ops::routing::choose;
use moe_train::settings;
use moe_train::settings::float;

settings! {
    /// Settings of the random router: the keys of its section, with ranges and defaults.
    pub struct RandomSettings in "moe.router.random" {
        /// factor of the weights, which are all alike
        scale: f64 = 1.0, float(1e-3, 1e3);
    }
}

/// Sends each token to k experts redrawn in every step (after Zuo et al. 2021, arXiv 2110.04260).
#[derive(Module, Debug)]
pub struct Random {
    n_experts: usize,
    top_k: usize,
    scale: f64,
    #[module(skip)]
    name: String,
}

impl Route for Random {
    type Settings = RandomSettings;

    // A row of the table in docs/models.md: causal, exact, in plain form, and in no other program.
    const FACTS: Facts = Facts::plain("k experts redrawn in every step, of equal weight", "arXiv 2110.04260");

    fn new(settings: &RandomSettings, shape: RouterShape, name: &str, _: &Init) -> Self {
        let RouterShape { n_experts, top_k, .. } = shape;
        Self { n_experts, top_k, scale: settings.scale, name: name.to_string() }
    }

    // No parameters, and logits that carry no information.
    fn cost(_: &RandomSettings, shape: RouterShape) -> Cost {
        Cost { f32_values: shape.n_experts as u64, ..Cost::default() }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let ([tokens, _], device) = (x.dims(), x.device());
        // Draws depend on seed, name, step and the token's place in the plan, not on the micro-batch.
        let stream = ctx.random(&self.name);
        let draw = |i: usize| {
            let (token, expert) = (ctx.index(i / self.n_experts), i % self.n_experts);
            stream.uniform(token * self.n_experts as u64 + expert as u64) as f32
        };
        let draws: Vec<f32> = (0..tokens * self.n_experts).map(draw).collect();
        let draws = Tensor::from_data(TensorData::new(draws, [tokens, self.n_experts]), &device);
        let no_bias = Tensor::zeros([self.n_experts], &device);
        let choices = choose(draws, no_bias, ctx.valid.flags(), self.top_k);
        let weights = ctx.valid.column().expand([tokens, self.top_k]) * (self.scale / self.top_k as f64);
        let logits = Tensor::<2>::zeros([tokens, self.n_experts], &device);
        let scores = logits.clone() + 1.0 / self.n_experts as f64;
        Routing {
            unbiased: choices.clone(),
            choices,
            weights,
            logits,
            scores,
            is_distribution: true,
            n_counted: self.top_k,
            likelihood: None,
        }
    }
}

// The registry line:
// /// Every token goes to k experts redrawn in every step.
// "random" => Random(Random);

/// The registry with that line, as it would be.
mod registry {
    use moe_train::model::moe::router::TopK;

    use super::Random;

    moe_train::routers! {
        /// Every token goes to the k experts of highest score.
        "top_k" => TopK(TopK);
        /// Every token goes to k experts redrawn in every step.
        "random" => Random(Random);
    }
}

#[test]
fn contributing_shows_this_router_and_it_works() {
    use burn::tensor::Device;
    use moe_train::model::Input;
    use moe_train::model::context::{BatchCounts, Pass};
    use moe_train::model::rope::Ropes;
    use moe_train::settings::value::Value;
    use registry::RouterConfig;

    super::support::assert_shown(include_str!("example_router.rs"));
    struct Given;
    impl moe_train::settings::Values for Given {
        fn value(&self, name: &str) -> Option<Value> {
            (name == "moe.router.random.scale").then_some(Value::Float(2.0))
        }
    }
    let shape = RouterShape {
        d_model: 4,
        n_experts: 5,
        top_k: 2,
        bias_rate: 0.0,
        by_logits: false,
        needs_likelihood: false,
        needs_matrix: false,
    };
    let config = RouterConfig::read("random", &Given).expect("its settings");
    assert!(RouterConfig::read("rnadom", &Given).is_err_and(|problem| problem.contains("top_k, random")));
    let biased = RouterShape { bias_rate: 0.1, needs_likelihood: true, needs_matrix: true, ..shape };
    assert_eq!(config.problems(biased).len(), 3);
    let device = Device::flex();
    let router = config.build(shape, "router", &Init::new(1, 0.1, &device));
    let route = |first_sample: u64, n: usize, step: u64| {
        let input = Input::new(&vec![0; 3 * n], &vec![0; 3 * n], &vec![0; 3 * n], [n, 3], &device);
        let (input, pass) = (input.at(first_sample), Pass { step, ..Pass::EVAL });
        let ctx = Context::new(&input, pass, BatchCounts::of(&input.valid), &Ropes::default());
        let routing = router.route(Tensor::zeros([3 * n, 4], &device), &ctx);
        let weights: Vec<f32> = routing.weights.into_data().iter().collect();
        assert!(weights.iter().all(|&weight| weight == 1.0));
        routing.choices.into_data().iter().collect::<Vec<i64>>()
    };
    let whole = route(7, 2, 3);
    assert_eq!(whole, [route(7, 1, 3), route(8, 1, 3)].concat());
    assert_ne!(whole, route(7, 2, 4));
    assert!(whole.chunks(2).all(|pair| pair[0] != pair[1]));
}
