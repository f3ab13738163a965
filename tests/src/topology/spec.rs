//! What a topology is made of, as data, and the addresses that follow from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

/// How many nodes, outside hosts and pods per node the address plan has room for.
pub const MAX_NODES: u8 = 80;
/// See [`MAX_NODES`].
pub const MAX_HOSTS: u8 = 100;
/// See [`MAX_NODES`].
pub const MAX_PODS_PER_NODE: u8 = 250;

/// The subnet that the harness's clusters give Services their IPv4 addresses from.
pub const SERVICE_CIDR_V4: &str = "10.96.0.0/16";
/// The subnet that the harness's clusters give Services their IPv6 addresses from.
pub const SERVICE_CIDR_V6: &str = "fd10:96::/112";

/// How a CNI plugin wires pods to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A veth per pod, routed by host routes, as the `ptp` plugin does.
    Ptp,
    /// A veth per pod in the node's bridge `cni0`, as the `bridge` plugin does with `isGateway`.
    Bridge {
        /// `net.bridge.bridge-nf-call-{ip,ip6}tables`: whether frames inside the bridge pass through netfilter.
        call_iptables: bool,
    },
}

/// A cluster to build.
#[derive(Clone, Debug)]
pub struct TopologySpec {
    /// At most [`MAX_NODES`], with different names.
    pub nodes: Vec<NodeSpec>,
    /// Pods that exist from the start; [`super::Topology::add_pod`] adds more.
    pub pods: Vec<PodSpec>,
    /// Machines outside the cluster on the nodes' own network, by name; at most [`MAX_HOSTS`].
    pub hosts: Vec<String>,
    /// How pods are wired.
    pub shape: Shape,
    /// Whether pods of different nodes talk through vxlan tunnels, as with flannel; else nodes route to each other's pods.
    pub overlay: bool,
    /// Whether nodes drop forwarded packets that conntrack calls invalid, as kube-proxy and many firewalls do, and IPv6 packets
    /// from where no route leads back; for IPv4, all nodes have a strict `rp_filter`.
    pub drop_invalid: bool,
    /// Whether frames between machines are as on a wire, which XDP in drivers needs: finished by their sender, and received from a
    /// ring into which a driver can send.
    pub wires: bool,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// `metadata.name`; different from all other pods' names in the topology, whatever their namespaces.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `spec.nodeName`.
    pub node: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

impl TopologySpec {
    /// `nodes` nodes named `node1`, `node2`, ... and no pods.
    #[must_use]
    pub fn new(shape: Shape, nodes: u8) -> Self {
        let nodes = (1..=nodes)
            .map(|n| NodeSpec {
                name: format!("node{n}"),
                ..NodeSpec::default()
            })
            .collect();
        Self {
            nodes,
            pods: Vec::new(),
            hosts: Vec::new(),
            shape,
            overlay: false,
            drop_invalid: false,
            wires: false,
        }
    }

    /// Adds a pod of namespace `default`.
    #[must_use]
    pub fn pod(self, name: &str, node: &str, labels: &[(&str, &str)]) -> Self {
        self.pod_in("default", name, node, labels)
    }

    /// Adds a pod.
    #[must_use]
    pub fn pod_in(
        mut self,
        namespace: &str,
        name: &str,
        node: &str,
        labels: &[(&str, &str)],
    ) -> Self {
        self.pods.push(PodSpec {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            node: node.to_owned(),
            labels: labels
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        });
        self
    }

    /// Adds a machine outside the cluster.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_owned());
        self
    }

    /// Joins nodes by tunnels instead of routes.
    #[must_use]
    pub fn overlay(mut self) -> Self {
        self.overlay = true;
        self
    }

    /// Makes nodes drop what conntrack calls invalid.
    #[must_use]
    pub fn drop_invalid(mut self) -> Self {
        self.drop_invalid = true;
        self
    }
}

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DualStack {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl DualStack {
    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The address of the same family as `other`.
    #[must_use]
    pub fn like(self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() {
            self.v4.into()
        } else {
            self.v6.into()
        }
    }
}

/// The router of the underlay: 172.30.0.1 and fd10:30::1.
pub(crate) const ROUTER: DualStack = underlay(1);
/// Where a control plane of the topology listens: 172.30.0.2 and fd10:30::2.
pub(crate) const CONTROL_PLANE: DualStack = underlay(2);

/// The address of the `n`th node, from 1: 172.30.0.11 and fd10:30::11 for the first.
pub(crate) const fn node(n: u8) -> DualStack {
    DualStack {
        v4: underlay(10 + n).v4,
        v6: underlay(0x10 + n).v6,
    }
}

/// The address of the `n`th outside host, from 0: 172.30.0.100 and fd10:30::64 for the first.
pub(crate) const fn host(n: u8) -> DualStack {
    underlay(100 + n)
}

/// The pod subnets of the `n`th node: 10.244.n.0/24 and fd10:244:0:n::/64.
pub(crate) fn pod_cidrs(n: u8) -> (Ipv4Network, Ipv6Network) {
    let v4 = Ipv4Network::new(Ipv4Addr::new(10, 244, n, 0), 24).expect("24 is a prefix length");
    let v6 = Ipv6Addr::new(0xfd10, 0x244, 0, n.into(), 0, 0, 0, 0);
    (v4, Ipv6Network::new(v6, 64).expect("64 is a prefix length"))
}

/// The subnets that all pods have their addresses from: 10.244.0.0/16 and fd10:244::/48.
pub(crate) fn cluster_cidrs() -> (Ipv4Network, Ipv6Network) {
    let DualStack { v4, v6 } = pod(0, 0);
    (
        Ipv4Network::new(v4, 16).expect("16 is a prefix length"),
        Ipv6Network::new(v6, 48).expect("48 is a prefix length"),
    )
}

/// The address in the `n`th node's pod subnets that ends in `end`; 0 is the node's tunnel, 1 the gateway.
pub(crate) const fn pod(n: u8, end: u8) -> DualStack {
    DualStack {
        v4: Ipv4Addr::new(10, 244, n, end),
        v6: Ipv6Addr::new(0xfd10, 0x244, 0, n as u16, 0, 0, 0, end as u16),
    }
}

const fn underlay(end: u8) -> DualStack {
    DualStack {
        v4: Ipv4Addr::new(172, 30, 0, end),
        v6: Ipv6Addr::new(0xfd10, 0x30, 0, 0, 0, 0, 0, end as u16),
    }
}
