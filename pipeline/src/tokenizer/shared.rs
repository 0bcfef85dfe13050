//! One encoder for all tasks of a build. Loading a large vocabulary takes a second and as much memory
//! as a hundred documents, so the last one is kept for the next task with the same file and options.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use moe_shards::Hash;

use super::{Encoder, EncoderOptions};
use crate::error::{Error, Result};

type Kept = Option<(Hash, EncoderOptions, Arc<Encoder>)>;

static LAST: Mutex<Kept> = Mutex::new(None);

impl Encoder {
    /// As [`Encoder::load`], but the same encoder as for the last call with the same file content and
    /// options.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn shared(path: &Path, options: &EncoderOptions) -> Result<Arc<Encoder>> {
        let hash = Hash::of(&std::fs::read(path).map_err(Error::io(path, "read"))?);
        // Held while loading: the other threads want the same one.
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, kept_options, encoder)) = &*last
            && (*kept, kept_options) == (hash, options)
        {
            return Ok(encoder.clone());
        }
        let encoder = Arc::new(Encoder::load(path, options)?);
        *last = Some((hash, options.clone(), encoder.clone()));
        Ok(encoder)
    }
}
