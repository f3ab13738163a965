//! Devices by which traffic leaves the node.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Most uplinks and tunnel devices of a node: capacity of map `device`.
pub const DEVICES: u32 = 1024;

/// As whom the node speaks on an uplink or tunnel device: value of map `device`, by interface index.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Device {
    /// The node's IPv4 address there; unspecified if it has none.
    pub v4: Address,
    /// The node's IPv6 address there; unspecified if it has none.
    pub v6: Address,
    /// First and last port that stand for clients whose own port cannot be kept.
    pub ports: [u16; 2],
    /// First and last port that the kernel gives to the node's own sockets (`ip_local_port_range`): never a client's.
    pub local_ports: [u16; 2],
}

impl Device {
    /// Address of a family.
    #[inline(always)]
    #[must_use]
    pub const fn address(&self, v6: bool) -> Address {
        if v6 { self.v6 } else { self.v4 }
    }
}
