//! Memory maps: the only `unsafe` of the data side.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a file read-only. An empty file gives an empty slice.
///
/// # Errors
/// The file cannot be opened or mapped.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    // SAFETY: the map is private to this process and read-only. Files of a finished build are
    // never written in place by our programs (they appear by rename), so the bytes under the map
    // do not change; a foreign program that truncates them is outside the contract of the format.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))
}
