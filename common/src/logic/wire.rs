//! Header layouts, words and half-words as they are on the wire.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Length of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// Length of an IPv4 header without options.
pub(super) const IPV4: u32 = 20;
/// Length of an IPv6 header without extensions.
pub(super) const IPV6: u32 = 40;

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP flag bits.
pub(super) mod tcp {
    pub(in crate::logic) const FIN: u8 = 0x01;
    pub(in crate::logic) const SYN: u8 = 0x02;
    pub(in crate::logic) const RST: u8 = 0x04;
    pub(in crate::logic) const ACK: u8 = 0x10;
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, PartialEq, Eq)]
pub(super) struct MacAddress(pub(super) [u16; 3]);

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Ethernet {
    pub(super) destination: MacAddress,
    pub(super) source: MacAddress,
    pub(super) kind: u16,
}

/// Ethernet types, as loaded.
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
/// Tags of IEEE 802.1Q and 802.1ad, and the one that came before these.
pub(super) const ETHERTYPE_VLAN: [u16; 3] =
    [0x8100u16.to_be(), 0x88a8u16.to_be(), 0x9100u16.to_be()];
pub(super) const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Ipv4 {
    pub(super) version_length: u8,
    pub(super) service: u8,
    pub(super) total_length: u16,
    pub(super) id: u16,
    pub(super) fragment: u16,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) source: u32,
    pub(super) destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Ipv6 {
    pub(super) version_class_flow: u32,
    pub(super) payload_length: u16,
    pub(super) next: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [u32; 4],
    pub(super) destination: [u32; 4],
}

/// The first eight bytes of any extension header; of a fragment header that is all.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Extension {
    pub(super) next: u8,
    pub(super) length: u8,
    pub(super) fragment: u16,
    pub(super) id: u32,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Tcp {
    pub(super) ports: Ports,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) offset: u8,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) checksum: u16,
    pub(super) urgent: u16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Udp {
    pub(super) ports: Ports,
    pub(super) length: u16,
    pub(super) checksum: u16,
}

/// ICMP and ICMPv6 alike; `id` counts for echo messages only.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) checksum: u16,
    pub(super) id: u16,
    pub(super) sequence: u16,
}

impl Icmp {
    /// Length of the header, before the packet that an error quotes.
    pub(super) const LENGTH: u32 = 8;
}
