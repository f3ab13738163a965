//! Which devices lead out of the node, and as whom the node speaks there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::resolve::Local;
use super::table::{Family, Link, LinkKind, LinkTable};
use crate::model::NetDevice;

/// Uplinks and tunnel devices. Those with a default route or an address of the node (`uplinks`), tunnels, and others that have an
/// address or a route by a gateway; but not what may be a pod's or a container's veth or bridge, nor a device without Ethernet
/// headers.
pub(super) fn nets(
    table: &LinkTable,
    local: &Local,
    uplinks: &BTreeSet<u32>,
    pods: &BTreeSet<u32>,
) -> BTreeMap<u32, NetDevice> {
    let has_address = |ifindex: &u32| {
        let mut families = [Family::V4, Family::V6].into_iter();
        families.any(|family| table.sources.contains_key(&(*ifindex, family)))
    };
    let leads_out = |ifindex: &u32, link: &Link| {
        uplinks.contains(ifindex)
            || match link.kind {
                LinkKind::Tunnel => true,
                LinkKind::Other => table.gateways.contains(ifindex) || has_address(ifindex),
                LinkKind::Veth | LinkKind::Bridge | LinkKind::Dummy => false,
            }
    };
    let links = table.links.iter();
    links
        .filter(|(ifindex, link)| {
            link.ethernet && !pods.contains(ifindex) && leads_out(ifindex, link)
        })
        .map(|(ifindex, link)| {
            let address = |family| source(table, local, *ifindex, family);
            let device = NetDevice {
                name: link.name.clone(),
                v4: address(Family::V4).and_then(|address| match address {
                    IpAddr::V4(v4) => Some(v4),
                    IpAddr::V6(_) => None,
                }),
                v6: address(Family::V6).and_then(|address| match address {
                    IpAddr::V6(v6) => Some(v6),
                    IpAddr::V4(_) => None,
                }),
            };
            (*ifindex, device)
        })
        .collect()
}

/// The node's address of a family on a device: the one that the API knows, else the device's own, else the node's on any device,
/// as the kernel chooses it.
fn source(table: &LinkTable, local: &Local, ifindex: u32, family: Family) -> Option<IpAddr> {
    let of_node = local.node.iter().copied();
    let mut of_node = of_node.filter(|address| Family::of(*address) == family);
    let is_there = |address: &IpAddr| {
        let mut addresses = table.addresses.iter();
        addresses.any(|(device, network)| *device == ifindex && network.ip() == *address)
    };
    let known = of_node.clone().find(is_there);
    known
        .or_else(|| table.sources.get(&(ifindex, family)).copied())
        .or_else(|| of_node.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH: u32 = 2;
    const VXLAN: u32 = 3;
    const BRIDGE: u32 = 4;
    const POD: u32 = 5;
    const WIREGUARD: u32 = 6;
    const SECOND: u32 = 7;
    const DUMMY: u32 = 8;
    const STORAGE: u32 = 9;
    const SLAVE: u32 = 10;

    fn table() -> LinkTable {
        let link = |name: &str, kind| Link {
            name: name.to_owned(),
            kind,
            ethernet: name != "wg0",
            controller: None,
        };
        let network = |text: &str| text.parse().expect("network");
        let ip = |text: &str| text.parse().expect("address");
        LinkTable {
            links: [
                (ETH, link("eth0", LinkKind::Veth)),
                (VXLAN, link("flannel.1", LinkKind::Tunnel)),
                (BRIDGE, link("cni0", LinkKind::Bridge)),
                (POD, link("veth5", LinkKind::Veth)),
                (WIREGUARD, link("wg0", LinkKind::Other)),
                (SECOND, link("eth1", LinkKind::Other)),
                (DUMMY, link("dummy0", LinkKind::Dummy)),
                (STORAGE, link("eth2", LinkKind::Other)),
                (SLAVE, link("eth3", LinkKind::Other)),
            ]
            .into(),
            default_routes: [ETH].into(),
            // A router in a pod has routes, too.
            gateways: [ETH, VXLAN, POD, WIREGUARD, SECOND].into(),
            sources: [
                ((ETH, Family::V4), ip("192.168.0.9")),
                ((VXLAN, Family::V4), ip("10.244.1.0")),
                ((BRIDGE, Family::V4), ip("10.244.1.1")),
                ((STORAGE, Family::V4), ip("10.99.0.2")),
                ((DUMMY, Family::V4), ip("169.254.20.10")),
            ]
            .into(),
            addresses: [
                (ETH, network("192.168.0.9/24")),
                (ETH, network("192.168.0.2/24")),
                (ETH, network("fd00::2/64")),
            ]
            .into(),
            ..LinkTable::default()
        }
    }

    #[test]
    fn devices_that_lead_out_are_found_with_the_address_that_the_node_has_there() {
        let table = table();
        let local = Local {
            node: ["192.168.0.2", "fd00::2"]
                .map(|text| text.parse().expect("address"))
                .into(),
            ..Local::default()
        };
        let found = nets(&table, &local, &[ETH].into(), &[POD].into());
        let v6 = Some("fd00::2".parse().expect("address"));
        let expected = [
            (ETH, "eth0", [192, 168, 0, 2]),
            (VXLAN, "flannel.1", [10, 244, 1, 0]),
            (SECOND, "eth1", [192, 168, 0, 2]),
            (STORAGE, "eth2", [10, 99, 0, 2]),
        ];
        let expected = expected.map(|(ifindex, name, v4)| {
            let device = NetDevice {
                name: name.to_owned(),
                v4: Some(v4.into()),
                v6,
            };
            (ifindex, device)
        });
        assert_eq!(found, expected.into());
    }

    #[test]
    fn a_pods_device_leads_to_the_pod_whatever_routes_it_has() {
        let found = nets(
            &table(),
            &Local::default(),
            &[ETH, POD].into(),
            &[POD].into(),
        );
        assert!(!found.contains_key(&POD));
    }
}
