//! Causal self-attention inside the documents of a packed sample.
//!
//! A kind of attention is one file here and one line of the registry below.

pub mod grouped_query;

use burn::tensor::Tensor;

pub use grouped_query::GroupedQuery;

use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::settings::Section;

/// What attention does.
pub trait Attend: Sized {
    /// What can be set about it.
    type Settings: Section;

    /// The attention of one block; `out_scale` multiplies the initial standard deviation of the projection
    /// back into the residual stream, and parameters are called `NAME.` and the name of their field.
    fn new(settings: &Self::Settings, d_model: usize, out_scale: f64, name: &str, init: &Init) -> Self;

    /// What is wrong with such an attention, each with the reason; nothing if it will do.
    fn problems(settings: &Self::Settings, d_model: usize) -> Vec<String>;

    /// What it costs.
    fn cost(settings: &Self::Settings, d_model: usize, seq_len: usize) -> Cost;

    /// Width of its widest head, in channels.
    fn head_dim(settings: &Self::Settings, d_model: usize) -> usize;

    /// Head width and theta of the rotary tables that it needs.
    fn rotary(settings: &Self::Settings, d_model: usize) -> Option<(usize, f64)>;

    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2>;
}

/// Makes the registry of attentions: their settings as `AttentionConfig`, chosen by `attention.kind`, and
/// the attentions as `Attention`.
#[macro_export]
macro_rules! attentions {
    ($($(#[doc = $doc:literal])+ $kind:literal => $variant:ident($attention:ty);)+) => {
        /// Settings of an attention.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AttentionConfig {
            $($(#[doc = $doc])+ $variant(<$attention as $crate::model::attention::Attend>::Settings),)+
        }

        /// An attention.
        #[derive(burn::module::Module, Debug)]
        pub enum Attention {
            $($(#[doc = $doc])+ $variant($attention),)+
        }

        impl AttentionConfig {
            /// The kinds of attention.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The keys of all kinds, each with the kind.
            pub fn keys() -> Vec<(&'static str, Vec<$crate::settings::Key>)> {
                use $crate::settings::Section;
                vec![$((
                    $kind,
                    <<$attention as $crate::model::attention::Attend>::Settings>::keys(),
                )),+]
            }

            /// The settings of a kind.
            ///
            /// # Errors
            /// Why there are none.
            pub fn read(kind: &str, values: &dyn $crate::settings::Values) -> Result<Self, String> {
                match kind {
                    $($kind => Ok(Self::$variant($crate::settings::read(values)?)),)+
                    other => Err($crate::settings::unknown_kind("attention.kind", Self::KINDS, other)),
                }
            }

            /// What is wrong with such an attention, each with the reason.
            pub fn problems(&self, d_model: usize) -> Vec<String> {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => <$attention>::problems(settings, d_model),)+
                }
            }

            /// What the attention of one block costs.
            pub fn cost(&self, d_model: usize, seq_len: usize) -> $crate::model::cost::Cost {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => <$attention>::cost(settings, d_model, seq_len),)+
                }
            }

            /// Width of the widest head, in channels.
            pub fn head_dim(&self, d_model: usize) -> usize {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => <$attention>::head_dim(settings, d_model),)+
                }
            }

            /// Head width and theta of the rotary tables that it needs.
            pub fn rotary(&self, d_model: usize) -> Option<(usize, f64)> {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => <$attention>::rotary(settings, d_model),)+
                }
            }

            /// The attention of one block.
            pub fn build(
                &self,
                d_model: usize,
                out_scale: f64,
                name: &str,
                init: &$crate::model::init::Init,
            ) -> Attention {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => {
                        Attention::$variant(<$attention>::new(settings, d_model, out_scale, name, init))
                    })+
                }
            }
        }

        impl Attention {
            /// As `Attend::forward`.
            pub fn forward(
                &self,
                x: burn::tensor::Tensor<2>,
                ctx: &$crate::model::context::Context,
            ) -> burn::tensor::Tensor<2> {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(attention) => attention.forward(x, ctx),)+
                }
            }
        }
    };
}

attentions! {
    /// Groups of query heads share one head of keys and values.
    "gqa" => GroupedQuery(GroupedQuery);
}
