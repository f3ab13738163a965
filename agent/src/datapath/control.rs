//! The pinned `control` array, mapped into memory: a store is one atomic write that programs see at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_common::abi::control::ENTRIES;

use super::bpf::Map;

const BYTES: usize = ENTRIES as usize * size_of::<u64>();

/// The mapped array.
#[derive(Debug)]
pub(crate) struct Control {
    words: NonNull<[AtomicU64; ENTRIES as usize]>,
}

// SAFETY: the mapping is memory of the process, reached only through atomics.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// Maps the array, whose shape `Pins::open_map` has checked.
    pub(crate) fn map(map: &Map) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { words })
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: the mapping lives as long as `self`, is page-aligned and holds ENTRIES words.
        unsafe { self.words.as_ref() }.get(index as usize)
    }

    /// The word; 0 for one that does not exist.
    pub(crate) fn load(&self, index: u32) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word after everything written before; `false` when it does not exist.
    pub(crate) fn store(&self, index: u32, value: u64) -> bool {
        self.word(index)
            .map(|word| word.store(value, Ordering::Release))
            .is_some()
    }

    /// Adds 1 to a word.
    pub(crate) fn increment(&self, index: u32) {
        if let Some(word) = self.word(index) {
            word.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: `map` made this mapping, and nothing can refer to it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), BYTES) };
    }
}
