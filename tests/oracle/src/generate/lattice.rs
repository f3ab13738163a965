//! Addresses of nodes and pods, and CIDRs that nest around them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::IPBlock;

use super::random::Random;
use crate::{addresses, parse_network};

/// Networks around the nodes, the pods of node 1 and 2, and the world; pods' own addresses join them.
const NETWORKS: [&str; 24] = [
    "0.0.0.0/0",
    "128.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.2.0/24",
    "10.1.1.0/29",
    "10.1.1.4/30",
    "10.1.2.0/29",
    "192.168.1.0/24",
    "192.168.1.1/32",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "::/0",
    "8000::/1",
    "fd00::/8",
    "fd00:10:1::/48",
    "fd00:10:1:1::/64",
    "fd00:10:1:2::/64",
    "fd00:10:1:1::/125",
    "fd00:10:1:2::4/126",
    "fd00:1::/64",
    "fd00:1::1/128",
    "2001:db8::/32",
];

pub(super) fn node_ipv4(number: usize) -> String {
    format!("192.168.1.{number}")
}

pub(super) fn node_ipv6(number: usize) -> String {
    format!("fd00:1::{number}")
}

/// Address of host `host` in the pod network of node `node`; host 1 is the node's own gateway.
pub(super) fn pod_ipv4(node: usize, host: usize) -> String {
    format!("10.1.{node}.{host}")
}

/// The same in the node's IPv6 pod network.
pub(super) fn pod_ipv6(node: usize, host: usize) -> String {
    format!("fd00:10:1:{node}::{host:x}")
}

/// An `ipBlock` with up to three holes strictly inside it, which may nest or repeat.
pub(super) fn block(random: &mut Random, pods: &[Pod]) -> IPBlock {
    let networks = networks(pods);
    let outer = *random.pick(&networks);
    let inside: Vec<IpNetwork> = networks
        .into_iter()
        .filter(|inner| strictly_inside(*inner, outer))
        .collect();
    let holes = if inside.is_empty() {
        0
    } else {
        random.below(4)
    };
    let except: Vec<String> = (0..holes)
        .map(|_| {
            let hole = *random.pick(&inside);
            written(random, hole)
        })
        .collect();
    let absent = except.is_empty() && random.one_in(2);
    IPBlock {
        cidr: written(random, outer),
        except: (!absent).then_some(except),
    }
}

/// A network, in one of its notations.
pub(super) fn network(random: &mut Random, pods: &[Pod]) -> String {
    let network = *random.pick(&networks(pods));
    written(random, network)
}

fn networks(pods: &[Pod]) -> Vec<IpNetwork> {
    let fixed = NETWORKS
        .iter()
        .map(|text| parse_network(text).expect("a constant CIDR"));
    fixed
        .chain(pods.iter().flat_map(addresses).map(IpNetwork::from))
        .collect()
}

fn strictly_inside(inner: IpNetwork, outer: IpNetwork) -> bool {
    inner.prefix() > outer.prefix() && outer.contains(inner.network())
}

/// The network as one of the texts that mean it: canonical, with host bits set, with leading zeros.
fn written(random: &mut Random, network: IpNetwork) -> String {
    match random.below(4) {
        0 => format!("{}/{}", with_host_bits(random, network), network.prefix()),
        1 => match network.network() {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                format!("{a:03}.{b:03}.{c:03}.{d:03}/{:02}", network.prefix())
            }
            IpAddr::V6(address) => {
                let groups: Vec<String> = address
                    .segments()
                    .iter()
                    .map(|group| format!("{group:04X}"))
                    .collect();
                format!("{}/{:03}", groups.join(":"), network.prefix())
            }
        },
        _ => network.to_string(),
    }
}

fn with_host_bits(random: &mut Random, network: IpNetwork) -> IpAddr {
    let noise = random.below(usize::MAX);
    match (network.network(), network.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let hosts = last.to_bits() - first.to_bits();
            Ipv4Addr::from_bits(first.to_bits() + (noise as u32 & hosts)).into()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let hosts = last.to_bits() - first.to_bits();
            Ipv6Addr::from_bits(first.to_bits() + (noise as u128 & hosts)).into()
        }
        (first, _) => first,
    }
}
