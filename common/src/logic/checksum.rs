//! The Internet checksum (RFC 1071), incrementally (RFC 1624), in the arithmetic of the kernel's `__wsum`.

use super::parse::Headers;
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

/// Sum of the pseudo header between two ends, whichever is the source, of `length` bytes from the transport header on.
#[inline(always)]
#[must_use]
pub(super) fn pseudo_header(h: &Headers, protocol_number: u8, length: u32) -> u32 {
    let mut sum = add(h.source.words[3], h.destination.words[3]);
    if h.v6 == 1 {
        let (a, b) = (&h.source.words, &h.destination.words);
        sum = add(
            add(sum, add(a[0], b[0])),
            add(add(a[1], b[1]), add(a[2], b[2])),
        );
    }
    add(add(sum, length.to_be()), u32::from(protocol_number).to_be())
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
