//! Named files that tasks read.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The files that a task reads: a path, an optional one, a list, or a struct of such that `inputs!` declares.
pub trait Inputs: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Visits each file, in the order of the task's fingerprint.
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a Path));
}

impl Inputs for () {
    fn each<'a>(&'a self, _: &mut dyn FnMut(&'a Path)) {}
}

impl Inputs for PathBuf {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a Path)) {
        see(self.as_path());
    }
}

impl<I: Inputs> Inputs for Option<I> {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a Path)) {
        self.iter().for_each(|inputs| inputs.each(see));
    }
}

impl<I: Inputs> Inputs for Vec<I> {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a Path)) {
        self.iter().for_each(|inputs| inputs.each(see));
    }
}

/// Declares the inputs of a stage. Their order is part of the fingerprint, so changing it reruns the stage.
macro_rules! inputs {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl $crate::stage::Inputs for $name {
            fn each<'a>(&'a self, see: &mut dyn FnMut(&'a std::path::Path)) {
                $($crate::stage::Inputs::each(&self.$field, see);)*
            }
        }
    };
}
pub(crate) use inputs;

inputs! {
    /// Documents of a part, and which of them are still kept.
    pub struct Survivors {
        /// `documents.parquet`.
        documents: PathBuf,
        /// `kept.rows` of the filters.
        kept: PathBuf,
        /// The removal list so far.
        removed: PathBuf,
    }
}

inputs! {
    /// The same with what was cut from them.
    pub struct CutDocuments {
        /// `documents.parquet`.
        documents: PathBuf,
        /// `kept.rows` of the filters.
        kept: PathBuf,
        /// The removal list so far.
        removed: PathBuf,
        /// The list of cuts so far.
        cuts: PathBuf,
    }
}

inputs! {
    /// The same with the families that deduplication put them into.
    pub struct PlacedDocuments {
        /// `documents.parquet`.
        documents: PathBuf,
        /// `kept.rows` of the filters.
        kept: PathBuf,
        /// The removal list so far.
        removed: PathBuf,
        /// The list of cuts so far.
        cuts: PathBuf,
        /// The list of families.
        families: PathBuf,
    }
}
