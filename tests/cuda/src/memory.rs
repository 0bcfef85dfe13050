//! Memory of the device and its address spaces.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// The generic address of shared memory. Its own addresses are the lower 32 bits.
pub(crate) const SHARED: u64 = 1 << 56;
/// Likewise the local memory of a thread,
pub(crate) const LOCAL: u64 = 2 << 56;
/// and the parameters of a kernel.
pub(crate) const PARAM: u64 = 3 << 56;
/// Selects the space.
pub(crate) const SPACES: u64 = 0xff << 56;

const ALIGNMENT: usize = 512;

/// The memory of the device.
pub struct Memory {
    /// By first address: the end, and the pointer from the host's allocator.
    allocations: RwLock<BTreeMap<u64, (u64, usize, Layout)>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// None of it is allocated.
    pub const fn new() -> Self {
        Self { allocations: RwLock::new(BTreeMap::new()) }
    }

    /// The address of this many zeros, or nothing if the host has no memory.
    pub fn allocate(&self, bytes: usize) -> Option<u64> {
        // The host allocates zero pages lazily only for small alignments.
        let layout = Layout::from_size_align(bytes.max(1) + ALIGNMENT, 16).ok()?;
        // SAFETY: the size is not zero.
        let given = unsafe { alloc_zeroed(layout) } as usize;
        if given == 0 {
            return None;
        }
        let first = given.next_multiple_of(ALIGNMENT) as u64;
        let mut allocations = self.allocations.write().unwrap_or_else(PoisonError::into_inner);
        allocations.insert(first, (first + bytes as u64, given, layout));
        Some(first)
    }

    /// Whether there was such an allocation.
    pub fn free(&self, first: u64) -> bool {
        let mut allocations = self.allocations.write().unwrap_or_else(PoisonError::into_inner);
        let Some((_, given, layout)) = allocations.remove(&first) else {
            return false;
        };
        // SAFETY: the allocator returned this for the same layout, and nothing refers to it any more.
        unsafe { dealloc(given as *mut u8, layout) };
        true
    }

    /// The allocation around an address: its first address and its end.
    pub(crate) fn around(&self, address: u64) -> Option<(u64, u64)> {
        let allocations = self.allocations.read().unwrap_or_else(PoisonError::into_inner);
        let (first, (end, _, _)) = allocations.range(..=address).next_back()?;
        (address < *end).then_some((*first, *end))
    }

    /// Whether all these bytes are in one allocation.
    pub(crate) fn holds(&self, address: u64, bytes: usize) -> bool {
        bytes == 0 || self.around(address).is_some_and(|(_, end)| address + bytes as u64 <= end)
    }

    /// Writes the lower 1, 2, 4 or 8 bytes of a value.
    ///
    /// # Errors
    /// The address, if it is not allocated.
    pub fn store(&self, address: u64, width: usize, value: u64) -> Result<(), u64> {
        if !self.holds(address, width) {
            return Err(address);
        }
        // SAFETY: the bytes are allocated.
        unsafe { write(address as *mut u8, width, value) };
        Ok(())
    }

    /// The 1, 2, 4 or 8 bytes at an address.
    ///
    /// # Errors
    /// The address, if it is not allocated.
    pub fn load(&self, address: u64, width: usize) -> Result<u64, u64> {
        if !self.holds(address, width) {
            return Err(address);
        }
        // SAFETY: the bytes are allocated.
        Ok(unsafe { read(address as *const u8, width) })
    }
}

/// # Safety
/// This many bytes can be read there.
pub(crate) unsafe fn read(from: *const u8, width: usize) -> u64 {
    // SAFETY: by the function's contract.
    unsafe {
        match width {
            1 => u64::from(from.read()),
            2 => u64::from(from.cast::<u16>().read_unaligned()),
            4 => u64::from(from.cast::<u32>().read_unaligned()),
            _ => from.cast::<u64>().read_unaligned(),
        }
    }
}

/// # Safety
/// This many bytes can be written there.
pub(crate) unsafe fn write(to: *mut u8, width: usize, value: u64) {
    // SAFETY: by the function's contract.
    unsafe {
        match width {
            1 => to.write(value as u8),
            2 => to.cast::<u16>().write_unaligned(value as u16),
            4 => to.cast::<u32>().write_unaligned(value as u32),
            _ => to.cast::<u64>().write_unaligned(value),
        }
    }
}
