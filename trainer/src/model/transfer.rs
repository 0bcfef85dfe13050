//! Multipliers with which settings tuned on a small dense model work for a wider, deeper or sparser one:
//! maximal update parametrization (Yang et al. 2022, arXiv 2203.03466) as in Megatron-LM, and CompleteP (Dey
//! et al. 2025, arXiv 2505.01618, alpha = 1) with mixtures of experts treated as dense feed-forwards of their
//! active width.
//!
//! `docs/optimizers.md` has the table.

use serde::{Deserialize, Serialize};

use super::parameter::Parameter;
use crate::settings;
use crate::settings::{Key, Section, Values, WIDE, int};

settings! {
    /// The width at which settings were tuned.
    pub struct WidthBase in "model.base" {
        /// model.d_model of the model on which the settings were tuned
        d_model: usize = 128, int(2, WIDE);
        /// width of an attention head of that model; scores are multiplied by its root divided by the head
        /// width. Absent: by 1 divided by the head width
        head_dim: Option<usize> = None, int(1, 4096);
    }
}

settings! {
    /// Depth and hidden width at which settings were tuned.
    pub struct DepthBase in "model.base" {
        /// model.layers of the model on which the settings were tuned
        layers: usize = 4, int(1, 10_000);
        /// hidden width of a feed-forward of that model: the total of all experts that a token visits, or
        /// that of a dense one
        ffn: usize = 384, int(1, WIDE);
    }
}

/// Parametrizations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParametrizationKind {
    /// The shape only affects the scale of projections back into the residual stream.
    #[default]
    Standard,
    /// By width.
    Mup,
    /// By width, depth, and the active width of feed-forwards.
    Complete,
}

/// A parametrization, and what it is relative to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parametrization {
    /// Which.
    pub kind: ParametrizationKind,
    /// The width at which settings were tuned.
    pub width: WidthBase,
    /// The rest of that model.
    pub depth: DepthBase,
}

impl Parametrization {
    /// The words for parametrizations, in the order of declaration.
    pub const KINDS: &'static [&'static str] = &["standard", "mup", "complete"];

    /// The keys of all kinds, each with the kind.
    pub fn keys() -> Vec<(&'static str, Vec<Key>)> {
        let complete = [WidthBase::keys(), DepthBase::keys()].concat();
        vec![("standard", Vec::new()), ("mup", WidthBase::keys()), ("complete", complete)]
    }

    /// The parametrization of this name, from the values of its keys.
    ///
    /// # Errors
    /// If there is none, or a value is not valid.
    pub fn read(word: &str, values: &dyn Values) -> Result<Self, String> {
        let kind = match word {
            "standard" => ParametrizationKind::Standard,
            "mup" => ParametrizationKind::Mup,
            "complete" => ParametrizationKind::Complete,
            other => return Err(settings::unknown_kind("model.parametrization", Self::KINDS, other)),
        };
        Ok(Self { kind, width: settings::read(values)?, depth: settings::read(values)? })
    }
}

/// What determines the size of a rule's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// The learning rate, regardless of the size of the gradient: Adam, Lion.
    Adaptive,
    /// The gradient.
    Gradient,
    /// The learning rate and the ratio of outputs to inputs of a matrix whose singular values are near 1.
    Orthogonal,
    /// The same, scaled to the length of a step of [`StepKind::Adaptive`].
    Matched,
}

/// Factors for updating one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// For the learning rate.
    pub rate: f64,
    /// For the weight decay, which is per unit of learning rate.
    pub decay: f64,
    /// For what AdamW adds to the root of the second moment.
    pub eps: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { rate: 1.0, decay: 1.0, eps: 1.0 }
    }
}

/// All multipliers for one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transfer {
    kind: ParametrizationKind,
    /// Width divided by that of the base.
    width: f64,
    /// Layers divided by those of the base.
    depth: f64,
    /// Hidden width of dense feed-forwards divided by that of the base.
    dense: f64,
    /// Total hidden width of the experts that a token visits, divided by that of the base.
    experts: f64,
    /// Routed experts that a token visits.
    top_k: f64,
    /// Width of a head of the base.
    head_dim: f64,
}

/// What multipliers depend on in a model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Hidden width of dense feed-forwards.
    pub dense_ffn: usize,
    /// Total hidden width of the experts that a token visits, shared ones included.
    pub active_ffn: usize,
    /// Routed experts that a token visits.
    pub top_k: usize,
}

/// The role of a parameter in a parametrization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Embedding,
    Head,
    /// Norms, biases and everything else with one dimension.
    Vector,
    /// From the residual stream, or back into it from attention: the number of inputs scales with the width.
    Hidden,
    /// From the hidden channels of a dense feed-forward.
    DenseDown,
    /// From the hidden channels of experts.
    ExpertDown,
}

impl Role {
    fn of(name: &str, dimensions: usize) -> Self {
        match name {
            "embedding" => Self::Embedding,
            "head" => Self::Head,
            _ if dimensions < 2 => Self::Vector,
            name if name.ends_with(".feed_forward.w_down") => Self::DenseDown,
            name if [".experts.w_down", ".shared.w_down"].iter().any(|end| name.ends_with(end)) => {
                Self::ExpertDown
            }
            _ => Self::Hidden,
        }
    }
}

impl Default for Transfer {
    /// Nothing is multiplied.
    fn default() -> Self {
        let kind = ParametrizationKind::Standard;
        Self { kind, width: 1.0, depth: 1.0, dense: 1.0, experts: 1.0, top_k: 1.0, head_dim: 1.0 }
    }
}

impl Transfer {
    /// The multipliers of a model of this shape.
    pub fn new(parametrization: &Parametrization, shape: Shape) -> Self {
        let Parametrization { kind, width, depth } = parametrization;
        let ratio = |of: usize, base: usize| of as f64 / base.max(1) as f64;
        Self {
            kind: *kind,
            width: ratio(shape.d_model, width.d_model),
            depth: ratio(shape.n_layers, depth.layers),
            dense: ratio(shape.dense_ffn, depth.ffn),
            experts: ratio(shape.active_ffn, depth.ffn),
            top_k: shape.top_k as f64,
            head_dim: width.head_dim.unwrap_or(1) as f64,
        }
    }

    /// Inputs of a matrix divided by those in the base.
    fn inputs(&self, role: Role) -> f64 {
        match (self.kind, role) {
            (_, Role::Embedding | Role::Vector) => 1.0,
            (ParametrizationKind::Complete, Role::DenseDown) => self.dense,
            (ParametrizationKind::Complete, Role::ExpertDown) => self.experts,
            (_, Role::Head | Role::Hidden | Role::DenseDown | Role::ExpertDown) => self.width,
        }
    }

    /// Outputs of a matrix divided by those in the base.
    fn outputs(&self, name: &str) -> f64 {
        let is_up =
            |place: &str| [".w_up", ".w_gate"].iter().any(|end| name.ends_with(&format!("{place}{end}")));
        match self.kind {
            _ if name.ends_with(".router.weight") => 1.0,
            ParametrizationKind::Complete if is_up(".feed_forward") => self.dense,
            ParametrizationKind::Complete if is_up(".experts") || is_up(".shared") => self.experts,
            _ => self.width,
        }
    }

    /// Turns a step of length `0.2 sqrt(max(inputs, outputs))`, which is right at the base, into one that
    /// grows as `sqrt(outputs / inputs)` and so changes outputs by the same amount at any size (Yang et al.
    /// 2023, arXiv 2310.17813).
    fn of_matched_steps(&self, parameter: &Parameter, role: Role) -> f64 {
        let rows = parameter.shape.len().checked_sub(2).map_or(1, |at| parameter.shape[at]) as f64;
        let columns = parameter.side_by_side().first().map_or(1, |columns| columns.len()) as f64;
        let (inputs, outputs) = (self.inputs(role), self.outputs(&parameter.name));
        let longest = rows.max(columns) / (rows / inputs).max(columns / outputs);
        (outputs / inputs / longest).sqrt()
    }

    /// Factors for updating a parameter.
    pub fn multipliers(&self, parameter: &Parameter, steps: StepKind) -> Multipliers {
        let role = Role::of(&parameter.name, parameter.shape.len());
        let inputs = self.inputs(role);
        let none = Multipliers::default();
        match (self.kind, steps) {
            (ParametrizationKind::Standard, _) | (_, StepKind::Orthogonal) => none,
            (ParametrizationKind::Mup | ParametrizationKind::Complete, StepKind::Matched) => {
                Multipliers { rate: self.of_matched_steps(parameter, role), ..none }
            }
            (ParametrizationKind::Mup, StepKind::Adaptive) => {
                Multipliers { rate: 1.0 / inputs, eps: 1.0 / inputs, ..none }
            }
            (ParametrizationKind::Mup | ParametrizationKind::Complete, StepKind::Gradient) => {
                Multipliers { rate: if role == Role::Vector { self.width } else { 1.0 }, ..none }
            }
            (ParametrizationKind::Complete, StepKind::Adaptive) => {
                let eps = 1.0 / (self.depth * self.width);
                match role {
                    Role::Embedding | Role::Head | Role::Vector => Multipliers { eps, ..none },
                    Role::Hidden | Role::DenseDown | Role::ExpertDown => {
                        Multipliers { rate: 1.0 / inputs, decay: inputs, eps }
                    }
                }
            }
        }
    }

    /// Factor for the initial standard deviation of a parameter.
    pub(super) fn init(&self, name: &str, dimensions: usize) -> f64 {
        let role = Role::of(name, dimensions);
        match (self.kind, role) {
            (ParametrizationKind::Standard, _) | (_, Role::Head) => 1.0,
            (ParametrizationKind::Mup | ParametrizationKind::Complete, _) => self.inputs(role).powf(-0.5),
        }
    }

    /// Factor of the initial standard deviation of projections back into the residual stream, to which a
    /// model of `layers` blocks adds two outputs in each (Radford et al. 2019, section 2.3). Complete scales
    /// the outputs instead.
    pub(super) fn residual_init(&self, layers: usize) -> f64 {
        match self.kind {
            ParametrizationKind::Standard | ParametrizationKind::Mup => (2.0 * layers as f64).powf(-0.5),
            ParametrizationKind::Complete => 1.0,
        }
    }

    /// Factor for what attention and feed-forward add to the residual stream.
    pub(super) fn branches(&self) -> f64 {
        match self.kind {
            ParametrizationKind::Standard | ParametrizationKind::Mup => 1.0,
            ParametrizationKind::Complete => 1.0 / self.depth,
        }
    }

    /// Factor for logits.
    pub(super) fn logits(&self) -> f64 {
        match self.kind {
            ParametrizationKind::Standard => 1.0,
            ParametrizationKind::Mup | ParametrizationKind::Complete => 1.0 / self.width,
        }
    }

    /// Factor for queries of `head_dim` channels, whose products with keys are divided by its root.
    pub(super) fn queries(&self, head_dim: usize) -> f64 {
        match self.kind {
            ParametrizationKind::Standard => 1.0,
            ParametrizationKind::Mup | ParametrizationKind::Complete => {
                (self.head_dim / head_dim.max(1) as f64).sqrt()
            }
        }
    }

    /// Factor for the sum of routed experts, whose weights sum to 1: the number of experts in the sum.
    pub(super) fn routed(&self) -> f64 {
        match self.kind {
            ParametrizationKind::Standard | ParametrizationKind::Mup => 1.0,
            ParametrizationKind::Complete => self.top_k,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RunConfig, Values};
    use burn::tensor::{Device, Tensor};

    /// Width 4 times, depth 8 times, dense feed-forward 3 times and experts 2 times those of the base.
    fn transfer(kind: &str) -> Transfer {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        let shape = [
            "model.d_model=512",
            "model.layers=32",
            "model.dense_ffn=720",
            "moe.top_k=4",
            "moe.expert_ffn=96",
        ];
        let base = ["model.base.d_model=128", "model.base.layers=4", "model.base.ffn=240"];
        let base = &base[..if kind == "complete" { 3 } else { usize::from(kind == "mup") }];
        let kind = format!("model.parametrization={kind}");
        for assignment in std::iter::once(kind.as_str()).chain(shape).chain(base.iter().copied()) {
            values.read_assignment(assignment, &mut problems);
        }
        RunConfig::new(values, problems).expect("valid").model(100, 8).transfer()
    }

    const NAMES: [(&str, usize); 7] = [
        ("embedding", 2),
        ("head", 2),
        ("norm.weight", 1),
        ("blocks.1.attention.w_qkv", 2),
        ("blocks.0.feed_forward.w_down", 2),
        ("blocks.1.feed_forward.experts.w_down", 3),
        ("blocks.1.feed_forward.router.weight", 2),
    ];

    fn all(transfer: &Transfer, steps: StepKind, part: fn(Multipliers) -> f64) -> [f64; 7] {
        NAMES.map(|(name, dimensions)| {
            let value = Tensor::zeros([1], &Device::flex());
            let parameter =
                Parameter { name: name.into(), shape: vec![1; dimensions], value, widths: Vec::new() };
            part(transfer.multipliers(&parameter, steps))
        })
    }

    fn init(transfer: &Transfer) -> [f64; 7] {
        NAMES.map(|(name, dimensions)| transfer.init(name, dimensions))
    }

    #[test]
    fn standard_multiplies_nothing() {
        let standard = transfer("standard");
        for steps in [StepKind::Adaptive, StepKind::Gradient, StepKind::Orthogonal, StepKind::Matched] {
            assert_eq!(all(&standard, steps, |m| m.rate * m.decay * m.eps), [1.0; 7]);
        }
        assert_eq!((init(&standard), standard.residual_init(32)), ([1.0; 7], 0.125));
        let [branches, logits, routed] = [standard.branches(), standard.logits(), standard.routed()];
        assert_eq!([branches, logits, routed, standard.queries(64)], [1.0; 4]);
    }

    #[test]
    fn mup_by_hand() {
        let mup = transfer("mup");
        let quarter = [1.0, 0.25, 1.0, 0.25, 0.25, 0.25, 0.25];
        assert_eq!(all(&mup, StepKind::Adaptive, |m| m.rate), quarter);
        assert_eq!(all(&mup, StepKind::Adaptive, |m| m.eps), quarter);
        assert_eq!(all(&mup, StepKind::Adaptive, |m| m.decay), [1.0; 7]);
        assert_eq!(all(&mup, StepKind::Gradient, |m| m.rate), [1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(all(&mup, StepKind::Orthogonal, |m| m.rate), [1.0; 7]);
        assert_eq!(init(&mup), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]);
        assert_eq!(
            (mup.residual_init(32), mup.branches(), mup.logits(), mup.routed()),
            (0.125, 1.0, 0.25, 1.0)
        );
        // 1 / 64 instead of the root of it.
        assert_eq!(mup.queries(64), 0.125);
        assert_eq!(Transfer { head_dim: 16.0, ..mup }.queries(64), 0.5);
    }

    #[test]
    fn complete_by_hand() {
        let complete = transfer("complete");
        let close = |found: [f64; 7], expected: [f64; 7]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
        };
        close(all(&complete, StepKind::Adaptive, |m| m.rate), [1.0, 1.0, 1.0, 0.25, 1.0 / 3.0, 0.5, 0.25]);
        close(all(&complete, StepKind::Adaptive, |m| m.decay), [1.0, 1.0, 1.0, 4.0, 3.0, 2.0, 4.0]);
        close(all(&complete, StepKind::Adaptive, |m| m.eps), [1.0 / 32.0; 7]);
        close(init(&complete), [1.0, 1.0, 1.0, 0.5, 3f64.powf(-0.5), 2f64.powf(-0.5), 0.5]);
        assert_eq!((complete.residual_init(32), complete.branches(), complete.logits()), (1.0, 0.125, 0.25));
        assert_eq!((complete.routed(), complete.queries(64)), (4.0, 0.125));
    }

    #[test]
    fn steps_as_long_as_those_of_adam_grow_with_the_root_of_outputs_over_inputs() {
        let rate = |kind: &str, name: &str, shape: &[usize]| {
            let value = Tensor::zeros([1], &Device::flex());
            let parameter = Parameter { name: name.into(), shape: shape.to_vec(), value, widths: Vec::new() };
            transfer(kind).multipliers(&parameter, StepKind::Matched).rate
        };
        let close = |found: f64, square: f64| assert!((found * found - square).abs() < 1e-12, "{found}");
        // Width 4 times that of the base: all matrices have 4 times the rows and columns.
        close(rate("mup", "blocks.1.attention.w_qkv", &[512, 512]), 0.25);
        close(rate("mup", "blocks.1.feed_forward.experts.w_up", &[8, 512, 96]), 0.25);
        // 512 x 720, of 128 x 240: 3 times the outputs for 4 times the inputs, and steps 720 / 240 times as
        // long.
        close(rate("complete", "blocks.0.feed_forward.w_up", &[512, 720]), 0.75 / 3.0);
        // An attention gate has the width of the attention.
        close(rate("complete", "blocks.0.attention.w_gate", &[512, 512]), 0.25);
        // 512 x 96, of 128 x 48: 2 times the outputs for 4 times the inputs, and steps 512 / 128 times as
        // long.
        close(rate("complete", "blocks.1.feed_forward.experts.w_up", &[8, 512, 96]), 0.5 / 4.0);
        // 96 x 512, of 48 x 128.
        close(rate("complete", "blocks.1.feed_forward.experts.w_down", &[8, 96, 512]), 2.0 / 4.0);
        // A router has as many outputs as there are experts: 512 x 8, of 128 x 8.
        close(rate("mup", "blocks.1.feed_forward.router.weight", &[512, 8]), 0.25 / 4.0);
    }

    #[test]
    fn a_rule_that_follows_gradients_has_no_complete_parametrization() {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        for assignment in ["optim.kind=sgd", "model.parametrization=complete"] {
            values.read_assignment(assignment, &mut problems);
        }
        let error = RunConfig::new(values, problems).expect_err("refused").to_string();
        assert!(error.contains("is for rules whose steps do not grow with the gradient"), "{error}");
    }
}
