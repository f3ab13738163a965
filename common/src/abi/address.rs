//! Addresses of both families in one form.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address in its mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// Words hold the bytes as they are on the wire. One form for both families gives one conntrack table, one service table and
/// one copy of the packet logic.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Address {
    /// The sixteen bytes of the address, four to a word.
    pub words: [u32; 4],
}

/// Third word of a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// `::`, which is no endpoint's address.
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// The unspecified address of this one's family.
    #[inline(always)]
    #[must_use]
    pub const fn nobody(&self) -> Self {
        if self.is_v4() {
            Self::from_v4_word(0)
        } else {
            Self::UNSPECIFIED
        }
    }

    /// The mapped form of an IPv4 address whose four bytes are those of `word` in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, word],
        }
    }

    /// An address from its sixteen wire bytes.
    #[must_use]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
                u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
                u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
            ],
        }
    }

    /// The sixteen bytes, as on the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Whether this is an IPv6 link-local unicast address (`fe80::/10`).
    #[inline(always)]
    #[must_use]
    pub const fn is_link_local_v6(&self) -> bool {
        u32::from_be(self.words[0]) >> 22 == 0xfe80 >> 6
    }

    /// Whether this is a multicast address of either family, or the IPv4 limited broadcast address.
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        if self.is_v4() {
            let v4 = u32::from_be(self.words[3]);
            v4 >> 28 == 0xe || v4 == u32::MAX
        } else {
            u32::from_be(self.words[0]) >> 24 == 0xff
        }
    }

    /// Whether this is an address of `127.0.0.0/8`, or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.words[3]) >> 24 == 127
        } else {
            self.words[0] == 0
                && self.words[1] == 0
                && self.words[2] == 0
                && u32::from_be(self.words[3]) == 1
        }
    }

    /// Whether this is `::` or `0.0.0.0`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0
            && self.words[1] == 0
            && (self.words[2] == 0 || self.words[2] == MAPPED)
            && self.words[3] == 0
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_bytes(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.bytes()).to_canonical()
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

/// Key of a longest-prefix-match map.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PrefixKey {
    /// Significant bits of `address`: 0 to 128; an IPv4 prefix of n bits has 96 + n.
    pub bits: u32,
    /// The prefix's address; bits beyond `bits` are zero.
    pub address: Address,
}

impl PrefixKey {
    /// The key that looks up one whole address.
    #[inline(always)]
    #[must_use]
    pub const fn host(address: Address) -> Self {
        Self { bits: 128, address }
    }
}
