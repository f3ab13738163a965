//! What a cluster is made of, as data.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// How many nodes the address plan and one machine have room for.
pub const MAX_NODES: u8 = 20;

/// A cluster to build.
#[derive(Args, Clone, Debug, Deserialize, Serialize)]
pub struct LabSpec {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    pub nodes: u8,
    /// What wires pods to nodes, and nodes to each other
    #[arg(long, value_enum, default_value_t)]
    pub cni: Cni,
    /// Who serves Services
    #[arg(long, value_enum, default_value_t)]
    pub proxy: Proxy,
    /// A further environment variable for Weir, such as WEIR_SOCKET_LB=all
    #[arg(long, value_name = "NAME=VALUE")]
    pub agent_env: Vec<String>,
}

/// What wires pods to nodes, and nodes to each other.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[non_exhaustive]
pub enum Cni {
    /// Routed veths, and routes between nodes
    #[default]
    Ptp,
    /// A bridge on each node whose frames netfilter does not see, which kube-proxy cannot do with, and routes between nodes
    Bridge,
    /// A bridge on each node whose frames pass through netfilter, and routes between nodes
    BridgeNf,
    /// A bridge on each node, VXLAN between nodes, and the node's address for what leaves the cluster
    Vxlan,
    /// The same, by a real flanneld on each node
    Flannel,
}

/// Who serves Services.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[non_exhaustive]
pub enum Proxy {
    /// Weir, from the image of this build and the manifest for users
    #[default]
    Weir,
    /// kube-proxy in nftables mode
    KubeProxyNftables,
    /// kube-proxy in iptables mode
    KubeProxyIptables,
    /// Nobody, until somebody is deployed
    None,
}

impl Cni {
    /// Whether machines outside the cluster see pods' own addresses, and have routes to them.
    pub(super) fn is_routed(self) -> bool {
        matches!(self, Self::Ptp | Self::Bridge | Self::BridgeNf)
    }
}
