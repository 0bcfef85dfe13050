//! Memory maps: the only `unsafe` of the data side.

use std::fs::{self, File};
#[cfg(unix)]
use std::io::Write;
#[cfg(unix)]
use std::mem::ManuallyDrop;
#[cfg(unix)]
use std::os::fd::FromRawFd;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result};

/// Maps a file read-only. An empty file gives an empty slice.
///
/// # Errors
/// The file cannot be opened or mapped.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    map_open_file(path).map(|(_, map)| map)
}

/// Maps a file read-only and keeps it open, so that its length can be checked later.
///
/// # Errors
/// As [`map_file`].
pub(crate) fn map_open_file(path: &Path) -> Result<(File, Mmap)> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    // SAFETY: the map is private to this process and read-only. Files of a finished build are never written
    // in place by our programs (they appear by rename), so the bytes under the map do not change; another
    // program that truncates them violates the contract of the format.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
    Ok((file, map))
}

/// The message when a mapped file has become shorter than its map.
#[cfg(unix)]
const LOST: &[u8] = b"error: a file of the shards or the plan became shorter while it was read (truncated, or its disk failed)\n  \
    hint: `moe-data verify DIR` says which; restore it from a copy or build again\n";

/// From now on, reading a mapped file that has become shorter ends the process with a message and exit code
/// 3, that of damaged data, instead of a bare signal (SIGBUS). Programs call it once, when they start; it has
/// no effect outside Unix.
///
/// # Errors
/// The system refuses the handler.
pub fn exit_when_maps_are_lost() -> Result<()> {
    #[cfg(unix)]
    {
        let say_and_exit = || {
            if let Some(descriptor) = crate::terminal::take_screen() {
                // SAFETY: it is 1 or 2, which are open for the whole life of the process, and `ManuallyDrop`
                // keeps it open.
                let mut screen = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
                // If that fails, there is no terminal to restore.
                screen.write_all(crate::terminal::LEAVE).unwrap_or_default();
            }
            // SAFETY: descriptor 2 is standard error for the whole life of the process, and `ManuallyDrop`
            // keeps it open.
            let mut stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
            // `File` writes without a buffer or a lock: one system call, which a handler may make. If it
            // fails, nobody is listening, and the exit code still tells.
            match stderr.write_all(LOST) {
                Ok(()) | Err(_) => signal_hook::low_level::exit(3),
            }
        };
        // SAFETY: the handler makes three system calls that are safe in one, and does not return.
        unsafe { signal_hook::low_level::register(signal_hook::consts::SIGBUS, say_and_exit) }
            .map_err(Error::io(Path::new("SIGBUS"), "listen to"))?;
    }
    Ok(())
}

/// Numbers private to this process, in a file that the system may write out when memory is short: for tables
/// that are read and written in random order and may be larger than memory. The file is unlinked as soon as
/// it is mapped, so it disappears with the process, however that ends.
#[derive(Debug)]
pub struct ScratchNumbers {
    map: MmapMut,
}

impl ScratchNumbers {
    /// `len` zeros, in a file that exists at `path` for a moment.
    ///
    /// # Errors
    /// The file cannot be created, mapped or removed.
    pub fn create(path: &Path, len: u64) -> Result<ScratchNumbers> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(Error::io(parent, "create folder"))?;
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(Error::io(path, "create"))?;
        file.set_len(len.saturating_mul(8)).map_err(Error::io(path, "grow"))?;
        // SAFETY: the file was made by this call, and its name is removed below, so nobody else changes or
        // truncates it while it is mapped.
        let map = unsafe { MmapMut::map_mut(&file) }.map_err(Error::io(path, "map"))?;
        fs::remove_file(path).map_err(Error::io(path, "remove"))?;
        Ok(ScratchNumbers { map })
    }

    /// Number `i`.
    ///
    /// # Panics
    /// There are not that many.
    pub fn get(&self, i: u64) -> u64 {
        let at = i as usize * 8;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.map[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Changes number `i`.
    ///
    /// # Panics
    /// There are not that many.
    pub fn set(&mut self, i: u64, value: u64) {
        let at = i as usize * 8;
        self.map[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_zero_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch/numbers");
        let mut numbers = ScratchNumbers::create(&path, 3).unwrap();
        assert!(!path.exists());
        numbers.set(1, u64::MAX);
        numbers.set(2, 5);
        assert_eq!([0, 1, 2].map(|i| numbers.get(i)), [0, u64::MAX, 5]);
        ScratchNumbers::create(&path, 0).unwrap();
    }
}
