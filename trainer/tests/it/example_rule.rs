//! The rule of the optimizer that CONTRIBUTING.md shows, word for word, at work.

// In the crate: `use super::{Rule, Update};` and `crate` for `moe_train`.
use burn::tensor::Tensor;
use moe_train::model::parameters::Parameter;
use moe_train::optim::{Rule, Update};
use moe_train::settings;
use moe_train::settings::float;

settings! {
    /// Settings of gradient descent with momentum (Polyak 1964).
    pub struct Momentum in "optim.momentum" {
        /// memory of the sum of gradients
        beta: f64 = 0.9, float(0.0, 0.999_999);
        /// decay of matrices per step and unit of learning rate
        weight_decay: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Rule for Momentum {
    // Checkpoints hold it as `momentum.NAME`.
    fn state(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let value = parameter.value.clone();
        let old = state.into_iter().next().unwrap_or_else(|| value.zeros_like());
        let momentum = old.clone() * self.beta + update.clipped(gradient);
        let decay = update.decay(parameter, self.weight_decay);
        let moved = value.clone() * decay - momentum.clone() * update.rate;
        // If the clipping factor is not finite, nothing changes.
        (update.unless_off(moved, value), vec![update.unless_off(momentum, old)])
    }
}

// The registry line:
// Entry::of::<Momentum>("momentum"),

#[test]
fn contributing_shows_this_rule_and_it_works() {
    use moe_train::optim::{Optimizer, rule::Entry};
    use moe_train::train::train_step;

    use super::support::{assert_shown, batch, state, step_config, tiny_model};

    assert_shown(include_str!("example_rule.rs"));
    let entry = Entry::of::<Momentum>("momentum");
    assert_eq!((entry.keys)()[0].name, "optim.momentum.beta");
    struct Defaults(Vec<moe_train::settings::Key>);
    impl moe_train::settings::Values for Defaults {
        fn value(&self, name: &str) -> Option<moe_train::settings::value::Value> {
            self.0.iter().find(|key| key.name == name)?.default.clone()
        }
    }
    let rule = (entry.read)(&Defaults((entry.keys)())).expect("its settings");
    let mut state = state(&tiny_model());
    state.optimizer = Optimizer::new(rule, &state.model);
    let names: Vec<String> = state.optimizer.state(&state.model).into_iter().map(|t| t.name).collect();
    assert!(names.iter().any(|name| name == "momentum.embedding"), "{names:?}");
    let step = step_config(4, 0.1);
    let first = train_step(&mut state, &batch(0, 4), &step).expect("finite").cross_entropy;
    let last = (0..30).map(|_| train_step(&mut state, &batch(0, 4), &step).expect("finite").cross_entropy);
    let last = last.last().expect("steps");
    assert!(last < first - 0.5, "{first} {last}");
}
