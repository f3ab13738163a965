//! The Internet checksum (RFC 1071), incrementally (RFC 1624), in the arithmetic of the kernel's `__wsum`.

use crate::abi::Address;

/// Sum with end-around carry.
#[inline(always)]
#[must_use]
pub(super) const fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// What must be added to a sum over `old` to make it one over `new`. Of mapped IPv4 addresses only the four bytes that are in
/// packets count.
#[inline(always)]
#[must_use]
pub fn difference(old: &Address, new: &Address) -> u32 {
    let last = add(!old.words[3], new.words[3]);
    if old.is_v4() {
        return last;
    }
    let mut sum = last;
    sum = add(sum, add(!old.words[0], new.words[0]));
    sum = add(sum, add(!old.words[1], new.words[1]));
    add(sum, add(!old.words[2], new.words[2]))
}

/// The same for a 16-bit field; both values as they are on the wire.
#[inline(always)]
#[must_use]
pub(super) const fn difference16(old: u16, new: u16) -> u32 {
    add(!(old as u32), new as u32)
}

/// A 32-bit sum as the 16 bits that go into a packet.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// A checksum field after the bytes under it changed by `difference`.
#[inline(always)]
#[must_use]
pub const fn replace(checksum: u16, difference: u32) -> u16 {
    fold(add(difference, !(checksum as u32)))
}
