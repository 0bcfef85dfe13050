//! Causal self-attention inside the documents of a packed sample.
//!
//! A kind of attention is one file here and one line of the registry below.

pub mod cache;
pub mod delta;
pub mod grouped_query;
pub mod latent;
pub mod pattern;
pub mod sliding_window;
pub mod sparse;

use std::fmt::Debug;

use burn::tensor::Tensor;

pub use delta::{Delta, DeltaSettings};
pub use grouped_query::{GroupedQuery, GroupedQuerySettings};
pub use latent::{Latent, LatentSettings};
pub use pattern::{AttentionPattern, PatternSettings};
pub use sliding_window::SlidingWindowSettings;
pub use sparse::{Sparse, SparseSettings};

use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::model::rope::Stretch;
use crate::settings::{Key, Values};

/// What an attention must know about its block to be built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Added to the mean square in normalizations.
    pub norm_eps: f64,
    /// Factor of the initial standard deviation of the projection back into the residual stream.
    pub out_scale: f64,
    /// Sample length in tokens from which attention on the CPU keeps no scores.
    pub tile_from: usize,
    /// How rotary positions are stretched.
    pub stretch: Option<Stretch>,
}

impl Place {
    /// A place in a model with the default of everything else.
    pub const fn new(d_model: usize, norm_eps: f64, out_scale: f64) -> Self {
        Self { d_model, norm_eps, out_scale, tile_from: pattern::TILE_FROM, stretch: None }
    }
}

/// Settings of a kind of attention, and what follows from them.
pub trait Attend: Debug + Clone + PartialEq {
    /// The attention of one block.
    type Layer: Forward;

    /// The keys of the settings.
    fn keys() -> Vec<Key>;

    /// The settings from the values of their keys.
    ///
    /// # Errors
    /// If a value is not valid.
    fn read(values: &dyn Values) -> Result<Self, String>;

    /// The attention of one block; its parameters are called `NAME.` and the name of their field.
    fn build(&self, place: Place, name: &str, init: &Init) -> Self::Layer;

    /// Problems with such an attention, each with the reason; empty if there are none.
    fn problems(&self, d_model: usize) -> Vec<String>;

    /// What it costs.
    fn cost(&self, d_model: usize, seq_len: usize) -> Cost;

    /// Width of its heads in kernels for GPUs, in channels; 0 if there are none.
    fn head_dim(&self, d_model: usize) -> usize;

    /// Rotated channels of a head and theta of the rotary tables that it needs.
    fn rotary(&self, d_model: usize) -> Option<(usize, f64)>;
}

/// What the attention of one block does.
pub trait Forward {
    /// What it keeps of the tokens so far for [`Forward::extend`].
    type Cache: Debug + Default;

    /// Each token sees tokens of its own document up to itself.
    ///
    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2>;

    /// [`Forward::forward`] for the next tokens of one document, whose tokens so far are in the cache; adds
    /// the new ones to it.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result; the context is of one sample of one document
    fn extend(&self, x: Tensor<2>, ctx: &Context, cache: &mut Self::Cache) -> Tensor<2>;
    /// Columns of the matrices that a parameter in this field has side by side; none if it is one matrix.
    fn side_by_side(&self, _field: &str) -> Vec<usize> {
        Vec::new()
    }
}

/// Makes the registry of attentions: their settings as `AttentionConfig`, chosen by `attention.kind` and
/// `attention.pattern`, and the attentions as `Attention`. A line has the name of a kind, its settings, and
/// what they build.
#[macro_export]
macro_rules! attentions {
    ($($(#[doc = $doc:literal])+ $kind:literal => $variant:ident($settings:ty => $layer:ty);)+) => {
        /// Settings of an attention.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AttentionConfig {
            $($(#[doc = $doc])+ $variant($settings),)+
        }

        /// An attention.
        #[derive(burn::module::Module, Debug)]
        #[expect(
            clippy::large_enum_variant,
            reason = "a model has a few dozen blocks, and `Module` is not made for `Box`"
        )]
        pub enum Attention {
            $($(#[doc = $doc])+ $variant($layer),)+
        }

        /// What an attention keeps of the tokens so far.
        #[derive(Debug)]
        pub enum AttentionCache {
            $($(#[doc = $doc])+ $variant(<$layer as $crate::model::attention::Forward>::Cache),)+
        }

        impl AttentionConfig {
            /// The kinds of attention.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The words for a block's attention: its kind, or `full` for the chosen kind.
            pub const WORDS: &'static [&'static str] = &[$crate::model::attention::pattern::FULL, $($kind),+];

            /// The keys of all kinds, each with the kind.
            pub fn keys() -> Vec<(&'static str, Vec<$crate::settings::Key>)> {
                use $crate::model::attention::Attend;
                vec![$(($kind, <$settings as Attend>::keys())),+]
            }

            /// The settings of a kind.
            ///
            /// # Errors
            /// If a value is not valid.
            pub fn read(kind: &str, values: &dyn $crate::settings::Values) -> Result<Self, String> {
                use $crate::model::attention::Attend;
                match kind {
                    $($kind => Ok(Self::$variant(<$settings as Attend>::read(values)?)),)+
                    other => Err($crate::settings::unknown_kind("attention.kind", Self::KINDS, other)),
                }
            }

            /// The word for its kind.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                }
            }

            /// Problems with such an attention, each with the reason.
            pub fn problems(&self, d_model: usize) -> Vec<String> {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => settings.problems(d_model),)+
                }
            }

            /// What the attention of one block costs.
            pub fn cost(&self, d_model: usize, seq_len: usize) -> $crate::model::cost::Cost {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => settings.cost(d_model, seq_len),)+
                }
            }

            /// Width of the heads in kernels for GPUs, in channels; 0 if there are none.
            pub fn head_dim(&self, d_model: usize) -> usize {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => settings.head_dim(d_model),)+
                }
            }

            /// Rotated channels of a head and theta of the rotary tables that it needs.
            pub fn rotary(&self, d_model: usize) -> Option<(usize, f64)> {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => settings.rotary(d_model),)+
                }
            }

            /// The attention of one block.
            pub fn build(
                &self,
                place: $crate::model::attention::Place,
                name: &str,
                init: &$crate::model::init::Init,
            ) -> Attention {
                use $crate::model::attention::Attend;
                match self {
                    $(Self::$variant(settings) => Attention::$variant(settings.build(place, name, init)),)+
                }
            }
        }

        impl Attention {
            /// As `Forward::forward`.
            pub fn forward(
                &self,
                x: burn::tensor::Tensor<2>,
                ctx: &$crate::model::context::Context,
            ) -> burn::tensor::Tensor<2> {
                use $crate::model::attention::Forward;
                match self {
                    $(Self::$variant(attention) => attention.forward(x, ctx),)+
                }
            }

            /// A cache of no tokens.
            pub fn cache(&self) -> AttentionCache {
                match self {
                    $(Self::$variant(_) => AttentionCache::$variant(Default::default()),)+
                }
            }

            /// As `Forward::extend`.
            ///
            /// # Panics
            /// When the cache is one of another kind.
            pub fn extend(
                &self,
                x: burn::tensor::Tensor<2>,
                ctx: &$crate::model::context::Context,
                cache: &mut AttentionCache,
            ) -> burn::tensor::Tensor<2> {
                use $crate::model::attention::Forward;
                match (self, cache) {
                    $((Self::$variant(attention), AttentionCache::$variant(cache)) => {
                        attention.extend(x, ctx, cache)
                    })+
                    (_, cache) => panic!("{cache:?} is the cache of another attention kind"),
                }
            }

            /// As `Forward::side_by_side`.
            pub fn side_by_side(&self, field: &str) -> Vec<usize> {
                use $crate::model::attention::Forward;
                match self {
                    $(Self::$variant(attention) => attention.side_by_side(field),)+
                }
            }
        }
    };
}

attentions! {
    /// Groups of query heads share one head of keys and values.
    "gqa" => GroupedQuery(GroupedQuerySettings => GroupedQuery);
    /// The same, over the last tokens only.
    "swa" => SlidingWindow(SlidingWindowSettings => GroupedQuery);
    /// Keys and values of all heads come from one narrow vector.
    "mla" => Latent(LatentSettings => Latent);
    /// Each head keeps a matrix that tokens correct.
    "kda" => Delta(DeltaSettings => Delta);
    /// Means of blocks, the blocks whose means score highest, and the last tokens.
    "nsa" => Sparse(SparseSettings => Sparse);
}
