//! ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) as it is written; `k8s-openapi` does not have it.
//!
//! Fields that are not known are kept, by name, wherever they could narrow what a rule matches: whoever does not know them must not
//! let anything pass by that rule. Of two fields of which the API takes exactly one, both are taken here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::{ClusterResourceScope, Metadata, Resource};
use serde::Deserialize;
use serde_json::Value;

/// Fields that the API did not have when this was written.
pub type Unknown = BTreeMap<String, Value>;

/// A ClusterNetworkPolicy. Its status is not read.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterNetworkPolicy {
    /// Name, UID and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it wants.
    pub spec: Spec,
}

impl Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = ClusterResourceScope;
}

impl Metadata for ClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// `ClusterNetworkPolicySpec`.
#[derive(Clone, Debug, Deserialize)]
pub struct Spec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000, the lowest first.
    pub priority: i32,
    /// The pods that it applies to: `namespaces` or `pods`.
    pub subject: Peer,
    /// Rules for connections to the subject, in order.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for connections from the subject, in order.
    pub egress: Option<Vec<Rule>>,
}

/// A rule of either direction.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    #[serde(default)]
    pub action: String,
    /// Peers of an ingress rule.
    pub from: Option<Vec<Peer>>,
    /// Peers of an egress rule.
    pub to: Option<Vec<Peer>>,
    /// Protocols and ports; none given means all.
    pub protocols: Option<Vec<Protocol>>,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A subject, or a peer of a rule: exactly one field.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Every pod of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by namespace and label.
    pub pods: Option<NamespacedPod>,
    /// Nodes by label, at all addresses of their status (experimental channel).
    pub nodes: Option<LabelSelector>,
    /// CIDRs, wherever they are.
    pub networks: Option<Vec<String>>,
    /// Names of servers (experimental channel).
    pub domain_names: Option<Vec<String>>,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Pods by namespace and label; both must match.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Empty for all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Empty for all pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Protocol and destination port: exactly one field.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// TCP.
    pub tcp: Option<Transport>,
    /// UDP.
    pub udp: Option<Transport>,
    /// SCTP.
    pub sctp: Option<Transport>,
    /// A container port's name, of whatever protocol.
    pub destination_named_port: Option<String>,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What is wanted of a protocol with ports.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// The port at the destination.
    pub destination_port: Option<Port>,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A port or a range of them: exactly one field.
#[derive(Clone, Debug, Deserialize)]
pub struct Port {
    /// One port.
    pub number: Option<i32>,
    /// Several.
    pub range: Option<PortRange>,
    /// Whatever else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Ports from one to another, both included.
#[derive(Clone, Debug, Deserialize)]
pub struct PortRange {
    /// The first.
    pub start: i32,
    /// The last.
    pub end: i32,
}
