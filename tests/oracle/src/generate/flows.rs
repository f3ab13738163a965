//! The flows in which a wrong reading of a cluster's policies would show.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::random::Random;
use crate::{
    Cluster, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterProtocol, Flow, addresses,
    on_pod_network, parse_address, parse_network, pods, protocol,
};

/// Services asked about for each pair of addresses and direction: more pairs tell more than more
/// services of one pair, since every service comes up with some pair.
const SERVICES_PER_PAIR: usize = 3;

/// Where a flow may go to: protocol and port.
type Service = (u8, u16);

/// Flows to and from every pod of the cluster, each as the pod's own node sees it, in an order that
/// is a function of the cluster alone.
///
/// The other end is every address that an object shows, every address on either side of the border
/// of a CIDR, and a stranger. Ports are those on either side of every border of a port range, and
/// protocols include those that have no ports. What a node itself sends is among them, and the same
/// packet merely forwarded by the node. Some addresses (`0.0.0.0`, loopback) cannot be sent from by
/// a real host.
pub fn flows(cluster: &Cluster) -> Vec<Flow> {
    let mut random = Random::new(0);
    let others = other_ends(cluster);
    let services = services(cluster);
    let mut flows = Vec::new();
    for pod in cluster.pods.iter().filter(|pod| on_pod_network(pod)) {
        let Some(observer) = pods::node(pod) else {
            continue;
        };
        let own_node = node_addresses(cluster, observer);
        for (own, &other) in addresses(pod)
            .into_iter()
            .flat_map(|own| others.iter().map(move |other| (own, other)))
        {
            if own.is_ipv4() != other.is_ipv4() {
                continue;
            }
            for _ in 0..SERVICES_PER_PAIR {
                let (there, back) = (*random.pick(&services), *random.pick(&services));
                flows.push(flow(own, other, there, observer, false));
                flows.push(flow(other, own, back, observer, false));
                if own_node.contains(&other) {
                    flows.push(flow(other, own, back, observer, true));
                }
            }
        }
    }
    flows.extend(passing_by(cluster));
    flows
}

fn flow(
    source: IpAddr,
    destination: IpAddr,
    service: Service,
    observer: &str,
    born_on_node: bool,
) -> Flow {
    let (protocol, destination_port) = match service {
        (protocol::ICMP, _) if source.is_ipv6() => (protocol::ICMPV6, 0),
        service => service,
    };
    Flow {
        source,
        destination,
        protocol,
        destination_port,
        observer_node: observer.to_owned(),
        born_on_node,
    }
}

/// A flow that no end of is on the observer: it must judge nothing.
fn passing_by(cluster: &Cluster) -> Option<Flow> {
    let observer = cluster
        .nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
        .next()?;
    let elsewhere = cluster
        .pods
        .iter()
        .filter(|pod| pods::node(pod).is_some_and(|node| node != observer));
    let own = elsewhere.flat_map(addresses).find(IpAddr::is_ipv4)?;
    Some(flow(
        own,
        Ipv4Addr::new(198, 51, 100, 7).into(),
        (protocol::TCP, 80),
        observer,
        false,
    ))
}

fn other_ends(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let mut ends: BTreeSet<IpAddr> = cluster.pods.iter().flat_map(addresses).collect();
    for node in cluster
        .nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
    {
        ends.extend(node_addresses(cluster, node));
    }
    let of_clusters = cluster.cluster_policies.iter().flat_map(cluster_networks);
    for network in cluster
        .policies
        .iter()
        .flat_map(networks)
        .chain(of_clusters)
    {
        let (first, last) = (network.network(), network.broadcast());
        ends.extend([first, last]);
        ends.extend(step(first, false));
        ends.extend(step(last, true));
    }
    ends.insert(Ipv4Addr::new(198, 51, 100, 7).into());
    ends.insert(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7).into());
    ends
}

/// What the node's own packets may come from.
fn node_addresses(cluster: &Cluster, name: &str) -> Vec<IpAddr> {
    let node = cluster
        .nodes
        .iter()
        .find(|node| node.metadata.name.as_deref() == Some(name));
    let status = node.and_then(|node| node.status.as_ref());
    let entries = status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    entries
        .filter_map(|entry| parse_address(&entry.address))
        .collect()
}

/// The next address up or down, unless there is none.
fn step(address: IpAddr, up: bool) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            Ipv4Addr::from_bits(if up {
                bits.checked_add(1)?
            } else {
                bits.checked_sub(1)?
            })
            .into()
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            Ipv6Addr::from_bits(if up {
                bits.checked_add(1)?
            } else {
                bits.checked_sub(1)?
            })
            .into()
        }
    })
}

fn services(cluster: &Cluster) -> Vec<Service> {
    let mut ports = BTreeSet::from([0]);
    for border in cluster
        .policies
        .iter()
        .flat_map(policy_ports)
        .chain(cluster.cluster_policies.iter().flat_map(cluster_ports))
        .chain(cluster.pods.iter().flat_map(served_ports))
    {
        ports.extend([border.saturating_sub(1), border, border.saturating_add(1)]);
    }
    let with_ports = [protocol::TCP, protocol::TCP, protocol::UDP, protocol::SCTP];
    let mut services: Vec<Service> = ports
        .into_iter()
        .flat_map(|port| with_ports.map(|protocol| (protocol, port)))
        .collect();
    for _ in 0..services.len() / 16 + 1 {
        services.extend([(protocol::ICMP, 0), (protocol::GRE, 0)]);
    }
    services
}

fn networks(policy: &NetworkPolicy) -> Vec<IpNetwork> {
    let peers = rules(policy).into_iter().flat_map(|(peers, _)| peers);
    let blocks = peers.filter_map(|peer| peer.ip_block.as_ref());
    blocks
        .flat_map(|block| std::iter::once(&block.cidr).chain(block.except.iter().flatten()))
        .filter_map(|cidr| parse_network(cidr))
        .collect()
}

fn policy_ports(policy: &NetworkPolicy) -> Vec<u16> {
    let entries = rules(policy).into_iter().flat_map(|(_, ports)| ports);
    let borders = entries.flat_map(|entry| {
        let number = match &entry.port {
            Some(IntOrString::Int(number)) => Some(*number),
            _ => None,
        };
        number.into_iter().chain(entry.end_port)
    });
    borders
        .filter_map(|border| u16::try_from(border).ok())
        .collect()
}

/// Every rule of both directions: its peers and its ports.
fn rules(policy: &NetworkPolicy) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
    let Some(spec) = &policy.spec else {
        return Vec::new();
    };
    let ingress = spec
        .ingress
        .iter()
        .flatten()
        .map(|rule| (&rule.from, &rule.ports));
    let egress = spec
        .egress
        .iter()
        .flatten()
        .map(|rule| (&rule.to, &rule.ports));
    ingress
        .chain(egress)
        .map(|(peers, ports)| {
            (
                peers.as_deref().unwrap_or_default(),
                ports.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

fn cluster_networks(policy: &ClusterNetworkPolicy) -> Vec<IpNetwork> {
    let peers = policy.spec.egress.iter().flat_map(|rule| &rule.to);
    let networks = peers.filter_map(|peer| match peer {
        ClusterPeer::Networks(networks) => Some(networks),
        _ => None,
    });
    networks
        .flatten()
        .filter_map(|network| parse_network(network))
        .collect()
}

fn cluster_ports(policy: &ClusterNetworkPolicy) -> Vec<u16> {
    let ingress = policy.spec.ingress.iter().map(|rule| &rule.protocols);
    let egress = policy.spec.egress.iter().map(|rule| &rule.protocols);
    let borders = ingress
        .chain(egress)
        .flatten()
        .flat_map(|protocol| match protocol {
            ClusterProtocol::Tcp(transport)
            | ClusterProtocol::Udp(transport)
            | ClusterProtocol::Sctp(transport) => match transport.destination_port {
                ClusterPort::Number(number) => vec![number],
                ClusterPort::Range { start, end } => vec![start, end],
            },
            ClusterProtocol::DestinationNamedPort(_) | ClusterProtocol::Unknown(_) => Vec::new(),
        });
    borders
        .filter_map(|border| u16::try_from(border).ok())
        .collect()
}

/// Every port that a container declares, also of those that do not count.
fn served_ports(pod: &Pod) -> Vec<u16> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let declared = |container: &Container| container.ports.clone().unwrap_or_default();
    let ports = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .flat_map(declared);
    ports
        .filter_map(|port| u16::try_from(port.container_port).ok())
        .collect()
}
