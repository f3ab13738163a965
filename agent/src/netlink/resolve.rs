//! From links, routes, neighbours and bridge tables to pod devices: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::model::{DeviceFacts, PodDevice};

/// Ethernet address.
pub type Mac = [u8; 6];

/// Kind of a device, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// Anything else.
    Other,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Index of the bridge (or bond, VRF) that the device belongs to.
    pub controller: Option<u32>,
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
    /// Addresses and prefix lengths of devices.
    pub addresses: BTreeSet<(u32, IpNetwork)>,
    /// Ethernet address of a neighbour, by device and IP address.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// Port behind which a bridge has seen an Ethernet address, by bridge and address.
    pub forwarding: BTreeMap<(u32, Mac), u32>,
}

/// Addresses that the API gives to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Addresses of this node's pods, without those in the node's network namespace.
    pub pods: BTreeSet<IpAddr>,
    /// Addresses of the node.
    pub node: BTreeSet<IpAddr>,
}

/// What [`resolve`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Devices of pods.
    pub facts: DeviceFacts,
    /// Pod addresses that a bridge's subnet covers but that its tables do not locate (any more), with the bridge: asking the
    /// neighbour would fill the tables.
    pub ask: BTreeMap<IpAddr, u32>,
}

/// Finds the device of every pod address that has one.
///
/// A pod's device is a veth that is no uplink and to which a host route leads, or a bridge port behind which the pod's Ethernet
/// address was seen. Bridges forget idle addresses, so a device that was found before (`previous`) stands while it still is a
/// port and nothing else is known.
#[must_use]
pub fn resolve(table: &LinkTable, local: &Local, previous: &DeviceFacts) -> Resolution {
    let uplinks = uplinks(table, local);
    let mut resolution = Resolution::default();
    for address in local.pods.difference(&local.node) {
        let routed = || routed(table, &uplinks, *address);
        let bridge = bridge_of(table, *address);
        let seen = bridge.and_then(|bridge| seen_port(table, &uplinks, bridge, *address));
        let found = routed().or(seen);
        if let (None, Some(bridge)) = (found, bridge) {
            resolution.ask.insert(*address, bridge);
        }
        let remembered = || {
            let before = previous.devices.get(address)?;
            let link = table.links.get(&before.ifindex)?;
            let same = link.name == before.name && link.kind == LinkKind::Veth;
            let port = bridge.is_some() && link.controller == bridge;
            (same && port && !uplinks.contains(&before.ifindex)).then_some(before.ifindex)
        };
        if let Some(ifindex) = found.or_else(remembered)
            && let Some(link) = table.links.get(&ifindex)
        {
            let device = PodDevice {
                ifindex,
                name: link.name.clone(),
            };
            resolution.facts.devices.insert(*address, device);
        }
    }
    resolution
}

/// Devices with a default route or an address of the node: on a node that is a container itself, these can be veths too.
fn uplinks(table: &LinkTable, local: &Local) -> BTreeSet<u32> {
    let with_node_address = table
        .addresses
        .iter()
        .filter(|(_, network)| local.node.contains(&network.ip()))
        .map(|(ifindex, _)| *ifindex);
    let mut uplinks: BTreeSet<u32> = table.default_routes.iter().copied().collect();
    uplinks.extend(with_node_address);
    uplinks
}

/// The veth that a host route leads to; the youngest where an old one lingers.
fn routed(table: &LinkTable, uplinks: &BTreeSet<u32>, address: IpAddr) -> Option<u32> {
    let devices = table.host_routes.get(&address)?;
    devices
        .iter()
        .rev()
        .copied()
        .find(|ifindex| is_pod_device(table, uplinks, *ifindex))
}

/// The bridge whose subnet has the address; the longest prefix counts.
fn bridge_of(table: &LinkTable, address: IpAddr) -> Option<u32> {
    table
        .addresses
        .iter()
        .filter(|(ifindex, network)| {
            let link = table.links.get(ifindex);
            link.is_some_and(|link| link.kind == LinkKind::Bridge) && network.contains(address)
        })
        .max_by_key(|(_, network)| network.prefix())
        .map(|(ifindex, _)| *ifindex)
}

/// The port of a bridge behind which the address's Ethernet address was seen.
fn seen_port(
    table: &LinkTable,
    uplinks: &BTreeSet<u32>,
    bridge: u32,
    address: IpAddr,
) -> Option<u32> {
    let mac = table.neighbours.get(&(bridge, address))?;
    let port = *table.forwarding.get(&(bridge, *mac))?;
    is_pod_device(table, uplinks, port).then_some(port)
}

fn is_pod_device(table: &LinkTable, uplinks: &BTreeSet<u32>, ifindex: u32) -> bool {
    let link = table.links.get(&ifindex);
    link.is_some_and(|link| link.kind == LinkKind::Veth) && !uplinks.contains(&ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINK: u32 = 2;
    const PTP: u32 = 5;
    const BRIDGE: u32 = 7;
    const PORT: u32 = 8;
    const FOREIGN: u32 = 9;
    const MAC: Mac = [2, 0, 0, 0, 0, 8];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    /// A node whose uplink is a veth, with one routed pod, one pod on a bridge, and a container of another runtime.
    fn table() -> LinkTable {
        let link = |name: &str, kind, controller| Link {
            name: name.to_owned(),
            kind,
            controller,
        };
        let network = |text: &str| text.parse::<IpNetwork>().expect("network");
        LinkTable {
            links: [
                (1, link("lo", LinkKind::Other, None)),
                (UPLINK, link("eth0", LinkKind::Veth, None)),
                (PTP, link("vethptp", LinkKind::Veth, None)),
                (BRIDGE, link("cni0", LinkKind::Bridge, None)),
                (PORT, link("vethport", LinkKind::Veth, Some(BRIDGE))),
                (FOREIGN, link("vethdocker", LinkKind::Veth, None)),
            ]
            .into(),
            host_routes: [
                (ip("10.1.0.5"), [PTP].into()),
                (ip("fd00::5"), [PTP].into()),
                (ip("172.17.0.2"), [FOREIGN].into()),
                (ip("10.1.0.66"), [UPLINK].into()),
            ]
            .into(),
            default_routes: [UPLINK].into(),
            addresses: [
                (UPLINK, network("192.168.0.2/24")),
                (PTP, network("10.1.0.1/32")),
                (BRIDGE, network("10.2.0.1/24")),
            ]
            .into(),
            neighbours: [((BRIDGE, ip("10.2.0.8")), MAC)].into(),
            forwarding: [((BRIDGE, MAC), PORT)].into(),
        }
    }

    fn local(pods: &[&str]) -> Local {
        Local {
            pods: pods.iter().map(|pod| ip(pod)).collect(),
            node: [ip("192.168.0.2")].into(),
        }
    }

    fn find(table: &LinkTable, pod: &str) -> Option<u32> {
        let resolution = resolve(table, &local(&[pod]), &DeviceFacts::default());
        let device = resolution.facts.devices.get(&ip(pod));
        device.map(|device| device.ifindex)
    }

    #[test]
    fn pods_are_found_by_route_and_by_bridge() {
        for (pod, expected) in [
            ("10.1.0.5", Some(PTP)),
            ("fd00::5", Some(PTP)),
            ("10.2.0.8", Some(PORT)),
            ("10.2.0.9", None),
            ("10.1.0.6", None),
            // A route over the uplink leads to another node.
            ("10.1.0.66", None),
            // A pod in the node's network namespace.
            ("192.168.0.2", None),
        ] {
            assert_eq!(find(&table(), pod), expected, "{pod}");
        }
    }

    #[test]
    fn devices_of_other_runtimes_are_left_alone() {
        let all = ["10.1.0.5", "fd00::5", "10.2.0.8"];
        let resolution = resolve(&table(), &local(&all), &DeviceFacts::default());
        let found: BTreeSet<u32> = resolution
            .facts
            .devices
            .values()
            .map(|device| device.ifindex)
            .collect();
        assert_eq!(found, [PTP, PORT].into());
    }

    #[test]
    fn an_uplink_is_never_a_pod_device() {
        let mut by_route = table();
        by_route.default_routes.insert(PTP);
        assert_eq!(find(&by_route, "10.1.0.5"), None);
        let mut by_address = table();
        by_address
            .addresses
            .insert((PORT, "192.168.0.2/24".parse().expect("network")));
        assert_eq!(find(&by_address, "10.2.0.8"), None);
    }

    #[test]
    fn only_veths_are_pod_devices() {
        let mut table = table();
        for ifindex in [PTP, PORT] {
            table.links.get_mut(&ifindex).expect("link").kind = LinkKind::Other;
        }
        assert_eq!(find(&table, "10.1.0.5"), None);
        assert_eq!(find(&table, "10.2.0.8"), None);
    }

    #[test]
    fn a_lingering_route_gives_way_to_the_younger_device() {
        let mut table = table();
        table
            .host_routes
            .entry(ip("10.1.0.5"))
            .or_default()
            .insert(FOREIGN);
        assert_eq!(find(&table, "10.1.0.5"), Some(FOREIGN));
    }

    #[test]
    fn a_silent_pod_is_asked_for() {
        let mut table = table();
        let pods = local(&["10.1.0.5", "10.2.0.8", "10.2.0.9", "10.3.0.1"]);
        let resolution = resolve(&table, &pods, &DeviceFacts::default());
        assert_eq!(resolution.ask, [(ip("10.2.0.9"), BRIDGE)].into());
        // The bridge has forgotten the pod: its device stands, and the pod is asked again.
        table.forwarding.clear();
        let again = resolve(&table, &pods, &resolution.facts);
        assert_eq!(again.facts, resolution.facts);
        assert!(again.ask.contains_key(&ip("10.2.0.8")));
    }

    #[test]
    fn what_was_found_before_ends_with_the_device() {
        let pods = local(&["10.1.0.5", "10.2.0.8"]);
        let before = resolve(&table(), &pods, &DeviceFacts::default()).facts;
        let forget = |change: &dyn Fn(&mut LinkTable)| {
            let mut table = table();
            table.forwarding.clear();
            table.host_routes.clear();
            change(&mut table);
            resolve(&table, &pods, &before).facts.devices.len()
        };
        // The bridge port stands, a route that is gone does not.
        assert_eq!(forget(&|_| {}), 1);
        assert_eq!(forget(&|table| drop(table.links.remove(&PORT))), 0);
        // The index came back with another device, or the device left the bridge.
        let rename = |table: &mut LinkTable| {
            table.links.get_mut(&PORT).expect("link").name = "other".to_owned();
        };
        assert_eq!(forget(&rename), 0);
        let leave = |table: &mut LinkTable| {
            table.links.get_mut(&PORT).expect("link").controller = None;
        };
        assert_eq!(forget(&leave), 0);
        let none = resolve(&table(), &local(&[]), &before);
        assert_eq!(none, Resolution::default());
    }
}
