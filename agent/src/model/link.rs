//! What the kernel says about devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The device that leads to a pod address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodDevice {
    /// Interface index of the host end of the veth.
    pub ifindex: u32,
    /// Interface name, for people.
    pub name: String,
}

/// A device by which traffic enters and leaves the node: an uplink or a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetDevice {
    /// Interface name, for people.
    pub name: String,
    /// As whom the node speaks IPv4 there, if it does.
    pub v4: Option<Ipv4Addr>,
    /// As whom the node speaks IPv6 there, if it does.
    pub v6: Option<Ipv6Addr>,
}

/// Which device leads to which address on this node: routes to single hosts over veths, and bridge ports by neighbour and
/// forwarding tables; and which devices lead out of it. No device is both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Device by the pod address behind it.
    pub devices: BTreeMap<IpAddr, PodDevice>,
    /// Uplinks and tunnel devices by interface index.
    #[serde(default)]
    pub nets: BTreeMap<u32, NetDevice>,
    /// The node's own addresses on all of its devices, without those of IPv6 that are link-local.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// When veths appeared, by interface index: those that came while somebody looked.
    #[serde(skip)]
    pub appeared: BTreeMap<u32, SystemTime>,
}
