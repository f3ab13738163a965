//! Functions that the verifier looks at once, not again wherever they are called: those with external linkage, which take numbers only. What
//! these are it does not know, even when all callers hand over the same.

use weir_common::logic;

/// See [`logic::crc32c_effect`]; so many steps that a program with some calls would be too long for the verifier.
// SAFETY: no other function of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn crc32c_effect(change: u32, length: u32, polynomial: u32) -> u32 {
    logic::crc32c_effect(change, length, polynomial)
}
