//! Events of the kernel programs as records that people and exporters read: who talked to whom, what became of it and why.

mod decode;
mod enrich;
mod filter;
mod recent;
mod seen;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Direction, ObjectName, Tier};

pub use decode::{DecodeError, Decoded, Outcome, decode};
pub use enrich::Directory;
pub use filter::{End, EndError, Filter};
pub use recent::Recent;
pub use seen::{Seen, SeenEnd};

/// A drop, or the first packet of a flow (of allowed flows only one in `--event-sample`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When the packet was judged.
    pub time: jiff::Timestamp,
    /// On which node.
    #[serde(default)]
    pub node: String,
    /// What became of the packet.
    pub verdict: Outcome,
    /// Why, see [`weir_common::reason::Reason::name`].
    pub reason: String,
    /// Seen from the judged pod.
    pub direction: Direction,
    /// Protocol: TCP, UDP, ICMP, or its number.
    pub protocol: String,
    /// Who sent it.
    pub source: Peer,
    /// What it was addressed to.
    pub destination: Peer,
    /// The endpoint behind the Service that it was addressed to.
    pub backend: Option<Peer>,
    /// The rule that allowed it, or that of a ClusterNetworkPolicy that denied it.
    pub rule: Option<DecidedBy>,
    /// The NetworkPolicies that isolate the judged pod, when none of them allowed it.
    pub denied_by: Vec<ObjectName>,
    /// Length in bytes, with the Ethernet header.
    pub length: u32,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Address.
    pub address: IpAddr,
    /// Port; of an ICMP echo its identifier, and one more at the end that answers.
    pub port: u16,
    /// What has the address, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<Owner>,
    /// The workload of a pod, see [`Pod::workload`](crate::model::Pod::workload).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<ObjectName>,
}

/// What has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// A pod.
    Pod(ObjectName),
    /// A Service.
    Service(ObjectName),
    /// A node.
    Node(String),
}

/// The rule that decided about a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecidedBy {
    /// Tier of the policy.
    pub tier: Tier,
    /// The policy.
    pub policy: ObjectName,
    /// Position in `spec.ingress` or `spec.egress`, from 0.
    pub index: usize,
}
