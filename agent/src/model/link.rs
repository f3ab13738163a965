//! What the kernel says about devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The device that leads to a pod address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodDevice {
    /// Interface index of the host end of the veth.
    pub ifindex: u32,
    /// Interface name, for people.
    pub name: String,
}

/// Which device leads to which address on this node: routes to single hosts over veths, and bridge ports by neighbour and
/// forwarding tables. Uplinks are never here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Device by address behind it.
    pub devices: BTreeMap<IpAddr, PodDevice>,
    /// The node's own addresses on all of its devices, without those of IPv6 that are link-local.
    pub addresses: BTreeSet<IpAddr>,
}
