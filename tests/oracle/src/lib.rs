//! A slow, literal reading of the NetworkPolicy API (`networking.k8s.io/v1`) and of ClusterNetworkPolicy
//! (`policy.networking.k8s.io/v1alpha2`).
//!
//! This crate judges Weir's policy compiler, so it shares no code with it and prefers the words
//! of the API to speed: every question walks every object again. It takes objects as a user wrote
//! them; what an API server would have defaulted is defaulted here.
//!
//! It judges the first packet of a connection, after service translation of the destination and
//! before any translation of the source. Replies, fragments and ICMP errors belong to a
//! connection that was judged, and are not its business.
//!
//! # Where the API text leaves a choice
//!
//! * A pod talking to itself is always allowed, through a Service as well.
//! * Ingress from the pod's own node is allowed for packets born in the host's network namespace,
//!   whatever their source address, and for no others. Egress to the node is not exempt.
//! * `ipBlock` is a match on the address alone: pods, nodes and the world.
//! * Pods on the host's network are neither subjects nor selectable peers.
//! * A protocol without ports (ICMP, GRE, ...) passes only by a rule without `ports`.
//! * Of several containers of a pod that give one name to ports of one protocol, the first counts,
//!   as for the endpoints of a Service.
//! * Of several live pods that show one address, the newest owns it.
//! * What validation refuses (an unknown operator, protocol or type, a peer with no field, a
//!   malformed CIDR, `endPort` beside a name) matches nothing.
//! * A Namespace object that does not exist is selected by no `namespaceSelector`, not even by
//!   the empty one; the policies and pods in it count none the less.
//! * NetworkPolicies have the last word in each direction in which one isolates the pod; in the
//!   other direction the Baseline tier is asked.
//! * The two exemptions above hold in every tier.
//! * Of ClusterNetworkPolicies of one tier and priority the one whose name sorts first comes first.
//! * A rule with `domainNames` is one that cannot be read: it fails closed.

mod address;
mod cluster_policy;
mod flow;
pub mod generate;
mod judge;
mod judgement;
mod minimise;
mod peers;
mod pods;
mod ports;
mod selector;
mod tiers;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

pub use address::{block_contains, parse_address, parse_network};
pub use cluster_policy::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterPeer,
    ClusterPolicySpec, ClusterPort, ClusterProtocol, ClusterSubject, ClusterTier, ClusterTransport,
    NamespacedPod,
};
pub use flow::{Flow, beneath_policy, protocol};
pub use judge::{judge, judge_cluster_wide};
pub use judgement::{
    ClusterRuleRef, Decider, DirectionVerdict, Exemption, Judgement, PolicyRef, RuleRef,
};
pub use minimise::minimise;
pub use pods::{addresses, on_pod_network, owner};
pub use selector::selects;

/// Everything of a cluster that policies depend on, as its users wrote it.
///
/// An object without `metadata.namespace` is in the namespace `default`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Namespaces, for their labels.
    pub namespaces: Vec<Namespace>,
    /// Nodes, for their labels and addresses.
    pub nodes: Vec<Node>,
    /// Pods on every node and in every phase.
    pub pods: Vec<Pod>,
    /// The policies of every namespace.
    pub policies: Vec<NetworkPolicy>,
    /// The policies above and below those.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
}
