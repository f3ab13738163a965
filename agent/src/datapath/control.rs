//! The pinned `control` array, mapped into memory: a store is one atomic write that programs see at once.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_common::abi::control::{self, ENTRIES};

use super::bpf::Map;

const BYTES: usize = ENTRIES as usize * size_of::<u64>();

/// Words by which programs go and which the agent alone writes. Its sign of life and what programs count is not among them.
const OWN: [(u32, &str); 7] = [
    (control::SELECTED, "selected"),
    (control::VERSION, "version"),
    (control::EPOCH, "epoch"),
    (control::SAMPLE, "sample"),
    (control::RESET_GONE, "reset_gone"),
    (control::TAKING_OVER, "taking_over"),
    (control::FOREIGN_SOURCES, "foreign_sources"),
];

/// A word that holds what this agent has not stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrayedWord {
    index: u32,
    name: &'static str,
    found: u64,
    stored: u64,
}

impl fmt::Display for StrayedWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, found, stored) = (self.name, self.found, self.stored);
        write!(f, "map control: {name} is {found}, should be {stored}")
    }
}

/// The mapped array.
#[derive(Debug)]
pub(crate) struct Control {
    words: NonNull<[AtomicU64; ENTRIES as usize]>,
    /// What was found at first, and what was stored since.
    stored: Mutex<[u64; ENTRIES as usize]>,
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
        let stored = Mutex::default();
        let control = Self { words, stored };
        for (index, stored) in (0..).zip(control.stored().iter_mut()) {
            *stored = control.load(index);
        }
        Ok(control)
    }

    fn stored(&self) -> MutexGuard<'_, [u64; ENTRIES as usize]> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut stored = self.stored();
        let (Some(word), Some(stored)) = (self.word(index), stored.get_mut(index as usize)) else {
            return false;
        };
        word.store(value, Ordering::Release);
        *stored = value;
        true
    }

    /// Adds 1 to a word that the agent alone writes.
    pub(crate) fn increment(&self, index: u32) {
        self.store(index, self.load(index).wrapping_add(1));
    }

    /// Words that somebody else has changed.
    pub(crate) fn strayed(&self) -> Vec<StrayedWord> {
        self.compare(&self.stored())
    }

    /// Stores anew what somebody else has changed, and tells what that was.
    pub(crate) fn restore(&self) -> Vec<StrayedWord> {
        // Nobody stores between the look and the repair.
        let stored = self.stored();
        let strayed = self.compare(&stored);
        for strayed in &strayed {
            if let Some(word) = self.word(strayed.index) {
                word.store(strayed.stored, Ordering::Release);
            }
        }
        strayed
    }

    fn compare(&self, stored: &[u64; ENTRIES as usize]) -> Vec<StrayedWord> {
        let word = |(index, name): (u32, _)| StrayedWord {
            index,
            name,
            found: self.load(index),
            stored: stored[index as usize],
        };
        let words = OWN.into_iter().map(word);
        words.filter(|word| word.found != word.stored).collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: `map` made this mapping, and nothing can refer to it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), BYTES) };
    }
}
