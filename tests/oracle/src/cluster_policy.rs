//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`) as its users write it.
//!
//! Where the API takes exactly one of several fields, an `enum` stands here. What fits none of its
//! variants has a field that nobody knew when this was written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicy {
    /// Only the name and the UID matter.
    pub metadata: ObjectMeta,
    /// What it wants.
    pub spec: ClusterPolicySpec,
}

/// `ClusterNetworkPolicySpec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterPolicySpec {
    /// Before NetworkPolicies or behind them.
    pub tier: ClusterTier,
    /// 0 to 1000; the lowest comes first in its tier.
    pub priority: i32,
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for connections to the subject; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for connections from the subject; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterEgressRule>,
}

/// `Tier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClusterTier {
    /// Before NetworkPolicies.
    Admin,
    /// For what no NetworkPolicy has decided.
    Baseline,
}

/// `ClusterNetworkPolicySubject`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterSubject {
    /// Every pod of these namespaces.
    Namespaces(LabelSelector),
    /// Pods by namespace and label.
    Pods(NamespacedPod),
}

/// Pods by namespace and label; both must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Empty for all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Empty for all pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// `ClusterNetworkPolicyRuleAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClusterAction {
    /// Lets it pass, finally.
    Accept,
    /// Drops it, finally.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// `ClusterNetworkPolicyIngressRule`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterIngressRule {
    /// What becomes of what matches.
    pub action: ClusterAction,
    /// Any of these peers.
    pub from: Vec<ClusterPeer>,
    /// Any of these; none given means every protocol and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// `ClusterNetworkPolicyEgressRule`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterEgressRule {
    /// What becomes of what matches.
    pub action: ClusterAction,
    /// Any of these peers.
    pub to: Vec<ClusterPeer>,
    /// Any of these; none given means every protocol and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// `ClusterNetworkPolicyIngressPeer`, which has the first two only, and
/// `ClusterNetworkPolicyEgressPeer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterPeer {
    /// Every pod of these namespaces.
    Namespaces(LabelSelector),
    /// Pods by namespace and label.
    Pods(NamespacedPod),
    /// Nodes by label, at all addresses of their status.
    Nodes(LabelSelector),
    /// CIDRs, also of pods and nodes.
    Networks(Vec<String>),
    /// Names of servers.
    DomainNames(Vec<String>),
    /// A field of a later version.
    #[serde(untagged)]
    Unknown(Value),
}

/// `ClusterNetworkPolicyProtocol`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterProtocol {
    /// A port of TCP.
    Tcp(ClusterTransport),
    /// A port of UDP.
    Udp(ClusterTransport),
    /// A port of SCTP.
    Sctp(ClusterTransport),
    /// A port that the pod at the destination calls so, of whatever protocol.
    DestinationNamedPort(String),
    /// A field of a later version.
    #[serde(untagged)]
    Unknown(Value),
}

/// `ClusterNetworkPolicyProtocolTCP` and its like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterTransport {
    /// The port at the destination.
    pub destination_port: ClusterPort,
}

/// `Port`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterPort {
    /// One port.
    Number(i32),
    /// Several, both ends included.
    Range {
        /// The first.
        start: i32,
        /// The last.
        end: i32,
    },
}
