//! Links, routes, neighbours and bridge tables as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Ethernet address.
pub type Mac = [u8; 6];

/// Kind of a device, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A device that leads nowhere, to keep addresses at.
    Dummy,
    /// A tunnel with an Ethernet header inside.
    Tunnel,
    /// Anything else.
    Other,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Whether its frames have an Ethernet header, and leave it (a loopback device's do not).
    pub ethernet: bool,
    /// Index of the bridge (or bond, VRF) that the device belongs to.
    pub controller: Option<u32>,
}

/// An entry of a neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Ethernet address that the kernel sends to, if it has one.
    pub mac: Option<Mac>,
    /// Whether the kernel itself learned the entry: all others (permanent ones, those without ARP, those of routing daemons) are
    /// somebody's configuration.
    pub learned: bool,
}

/// What the kernel says, as of one moment. Devices are given by interface index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable {
    /// All devices.
    pub links: BTreeMap<u32, Link>,
    /// Devices by the single address that a route without gateway leads to through them.
    pub host_routes: BTreeMap<IpAddr, BTreeSet<u32>>,
    /// Devices with a default route.
    pub default_routes: BTreeSet<u32>,
    /// Devices with a route by a gateway.
    pub gateways: BTreeSet<u32>,
    /// First address of each device and family that the node uses when it speaks to others: of global scope, for good.
    pub sources: BTreeMap<(u32, Family), IpAddr>,
    /// Addresses and prefix lengths of devices.
    pub addresses: BTreeSet<(u32, IpNetwork)>,
    /// Neighbours by device and IP address.
    pub neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// Port behind which a bridge has seen an Ethernet address, by bridge and address.
    pub forwarding: BTreeMap<(u32, Mac), u32>,
}
