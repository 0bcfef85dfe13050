//! The balancer that CONTRIBUTING.md shows, word for word, at work.

// In the crate: `use super::Balance;`, `use super::super::routing::Routed;` and `crate` for `moe_train`.
use burn::tensor::Tensor;
use moe_train::model::facts::Facts;
use moe_train::model::moe::Routed;
use moe_train::model::moe::balance::Balance;
use moe_train::settings;
use moe_train::settings::float;

settings! {
    /// The importance loss (Shazeer et al. 2017, arXiv 1701.06538, eq. 7): the squared coefficient of
    /// variation of the scores that experts collect over the batch.
    pub struct Importance in "moe.balance.importance" {
        /// coefficient of the importance loss (arXiv 1701.06538); 0 is off
        coefficient: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Importance {
    // A row of the table in docs/models.md.
    fn facts(&self) -> Facts {
        Facts::plain("loss: squared variation of the scores that experts collect", "arXiv 1701.06538")
    }

    fn name(&self) -> &'static str {
        "importance"
    }

    fn coefficient(&self) -> f64 {
        self.coefficient
    }

    // With micro-batches this is the mean of the parts, weighted by tokens, since squares do not add up.
    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        let valid = &routed.ctx.valid;
        let importance = (routed.routing.shares() * valid.column()).sum_dim(0);
        // Shares add up to one for each token, so the mean over experts is tokens / E.
        let n_tokens = valid.n_valid().max(1) as f64;
        let ratio = importance * (routed.n_experts() as f64 / n_tokens);
        let share = n_tokens / routed.ctx.counts.n_tokens.max(1) as f64;
        let deviation = ratio - 1.0;
        Some((deviation.clone() * deviation).mean() * (share * factor))
    }
}

// The registry line:
// /// Keeps the scores that experts collect about equal.
// importance: Importance;

/// The registry with that line, as it would be.
mod registry {
    use moe_train::model::moe::balance::{Bias, Sequence, Switch, Z};

    use super::Importance;

    moe_train::balancers! {
        /// Moves the selection bias against the load.
        bias: Bias;
        /// The Switch loss, over the whole batch.
        switch: Switch;
        /// The same over each sequence.
        sequence: Sequence;
        /// Keeps logits small.
        z: Z;
        /// Keeps the scores that experts collect about equal.
        importance: Importance;
    }
}

#[test]
fn contributing_shows_this_balancer_and_it_works() {
    use burn::tensor::{Device, TensorData};
    use moe_train::model::Input;
    use moe_train::model::context::{BatchCounts, Context, Pass};
    use moe_train::model::moe::Routing;
    use moe_train::model::rope::Ropes;
    use moe_train::ops::routing::{from_integers, scores};

    super::support::assert_shown(include_str!("example_balancer.rs"));
    let names: Vec<&str> = registry::BalanceConfig::default().all().iter().map(|b| b.name()).collect();
    assert_eq!(names, ["bias", "aux_switch", "aux_sequence", "z", "importance"]);
    let keys = registry::BalanceConfig::keys();
    assert_eq!(keys.last().map(|key| key.name), Some("moe.balance.importance.coefficient"));

    let device = Device::flex();
    let input = Input::new(&[0; 2], &[0; 2], &[0; 2], [1, 2], &device);
    let ctx = Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &Ropes::default());
    // Shares (3/4, 1/4) and (1/2, 1/2): the experts collect 5/4 and 3/4, a quarter off their mean.
    let logits = TensorData::new(vec![3f32.ln(), 0.0, 0.0, 0.0], [2, 2]);
    let logits = Tensor::<2>::from_data(logits, &device);
    let choices = from_integers(vec![0, 0], [2, 1], &device);
    let routing = Routing {
        unbiased: choices.clone(),
        choices,
        weights: Tensor::ones([2, 1], &device),
        scores: scores(logits.clone(), moe_train::ops::routing::Score::Softmax),
        logits,
        is_distribution: true,
        n_counted: 1,
        likelihood: None,
    };
    let loss = Importance { coefficient: 1.0 }.loss(&Routed::new(routing, 0, &ctx), 2.0).expect("a loss");
    assert!((loss.into_scalar::<f32>() - 2.0 / 16.0).abs() < 1e-6);
}
