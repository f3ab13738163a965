//! SCTP's checksum (RFC 9260 appendix A), incrementally: a CRC is linear, so what a changed word does to it depends on nothing but the word and how
//! much follows.
//!
//! Polynomials over GF(2), reflected: the highest bit is the coefficient of x^0.

use core::hint::black_box;

/// The polynomial of CRC32c, without its highest term.
pub(super) const CRC32C: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
/// Bits of a packet's length.
const LENGTH_BITS: u32 = 16;

/// What becomes of the checksum of `length` bytes (at most 65,535) when `change` is added to the first four, which are read as one
/// little-endian word: to be added to it. Addition is exclusive-or.
///
/// No tables, which would be maps, and nothing that makes the verifier follow two paths, of which there would be 2^16: neither
/// branches, nor known constants under a mask of all bits or none (Linux 6.18 looks at both cases). Hence `polynomial`, which is `CRC32C`,
/// is an argument.
#[inline(always)]
#[must_use]
pub fn crc32c_effect(change: u32, length: u32, polynomial: u32) -> u32 {
    // Each byte from the change to the end multiplies by x^8.
    let mut power = ONE;
    let mut bit = LENGTH_BITS;
    while bit > 0 {
        bit -= 1;
        power = multiply(power, power, polynomial);
        // Opaque, or the compiler makes a branch of it.
        let chosen = black_box(mask(length >> bit));
        power ^= (power ^ shift(power, 8, polynomial)) & chosen;
    }
    multiply(power, change, polynomial)
}

#[inline(always)]
const fn multiply(a: u32, b: u32, polynomial: u32) -> u32 {
    let (mut product, mut multiple) = (0, b);
    let mut bit = u32::BITS;
    while bit > 0 {
        bit -= 1;
        product ^= multiple & mask(a >> bit);
        multiple = shift(multiple, 1, polynomial);
    }
    product
}

/// Multiplies by a power of x.
#[inline(always)]
const fn shift(mut a: u32, by: u32, polynomial: u32) -> u32 {
    let mut times = 0;
    while times < by {
        times += 1;
        a = a >> 1 ^ polynomial & mask(a);
    }
    a
}

/// All bits if the lowest is set, else none.
#[inline(always)]
const fn mask(a: u32) -> u32 {
    (a & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// The definition, bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        let step = |register: u32, byte: &u8| {
            (0..8).fold(register ^ u32::from(*byte), |register, _| {
                let odd = register & 1 == 1;
                register >> 1 ^ if odd { CRC32C } else { 0 }
            })
        };
        !bytes.iter().fold(u32::MAX, step)
    }

    #[test]
    fn it_is_castagnolis() {
        // RFC 3720 section B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_changed_word_has_the_effect_that_computing_anew_has() {
        for length in [4_usize, 5, 12, 32, 257, 1480, 9000, 65_515, 65_535] {
            let bytes: Vec<u8> = (0..length).map(|it| (it * 7 + 3) as u8).collect();
            let before = crc32c(&bytes);
            for change in [0, 1, 0x0000_901f, 0x5000_0000, u32::MAX] {
                let mut changed = bytes.clone();
                for (byte, change) in changed.iter_mut().zip(u32::to_le_bytes(change)) {
                    *byte ^= change;
                }
                let after = before ^ crc32c_effect(change, length as u32, CRC32C);
                assert_eq!(after, crc32c(&changed), "{length} bytes, {change:x}");
            }
        }
    }
}
