//! Events of the kernel programs as records that people and exporters read: who talked to whom, what became of it and why.

mod decode;
mod ends;
mod enrich;
mod filter;
mod hits;
mod recent;
mod seen;
#[cfg(test)]
pub(crate) mod tests;
pub mod top;
mod walk;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Direction, ObjectName, Tier};

pub use decode::{DecodeError, Decoded, Outcome, decode};
pub use enrich::{Directory, Ticks};
pub use filter::{End, EndError, Filter, FilterError, policy_name};
pub use hits::{Denials, Hits, RuleHit, RuleHits};
pub use recent::Recent;
pub use seen::{Seen, SeenEnd};
pub use walk::{Counts, Idle, Walk, Walks};

/// A drop, the first packet of a flow (of allowed flows only one in `--event-sample`), or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When the packet was judged, or the flow found over.
    pub time: jiff::Timestamp,
    /// On which node.
    #[serde(default)]
    pub node: String,
    /// What became of the packet, or that the flow has ended.
    pub verdict: Outcome,
    /// Why, see [`weir_common::reason::Reason::name`]; of an end see [`Ending::name`].
    pub reason: String,
    /// Seen from the judged pod; of an end, from the pod that opened the flow if it is of this node, else from the other one.
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
    /// Length of the packet in bytes, with the Ethernet header; 0 for an end, which is no packet.
    pub length: u32,
    /// What the flow was, if it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Ended>,
}

impl Record {
    /// The rules that decided, each with the direction that it is of.
    pub fn rules(&self) -> impl Iterator<Item = (Direction, &DecidedBy)> {
        let of_ends = self.ended.iter().flat_map(|ended| {
            let egress = ended.egress_rule.as_ref();
            let ingress = ended.ingress_rule.as_ref();
            let egress = egress.map(|rule| (Direction::Egress, rule));
            egress
                .into_iter()
                .chain(ingress.map(|rule| (Direction::Ingress, rule)))
        });
        let own = self.rule.as_ref().filter(|_| self.ended.is_none());
        own.map(|rule| (self.direction, rule))
            .into_iter()
            .chain(of_ends)
    }
}

/// What a flow that has ended was, as far as this node has seen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// When its first packet came. Of one that lasted for longer than the kernel's clock takes to wrap (49 days at 1000 ticks a second), too late.
    pub began: jiff::Timestamp,
    /// When its last packet came.
    pub last_packet: jiff::Timestamp,
    /// What its source, which opened it, has sent.
    pub sent: Sent,
    /// What its source was sent.
    pub received: Sent,
    /// The rule that allowed it at the pod that opened it, if that is one of this node.
    pub egress_rule: Option<DecidedBy>,
    /// The rule that allowed it at the other end, if that is a pod of this node.
    pub ingress_rule: Option<DecidedBy>,
}

/// What one end of a flow has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// Packets, a GSO packet once.
    pub packets: u64,
    /// Bytes, with Ethernet headers.
    pub bytes: u64,
    /// TCP flags that were seen.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tcp_flags: Vec<TcpFlag>,
}

/// A flag of TCP (RFC 9293 section 3.1), with its bit as value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcpFlag {
    /// No more data from the sender.
    Fin = 1,
    /// Sequence numbers begin.
    Syn = 2,
    /// The connection is no more.
    Rst = 4,
    /// Data for the receiver at once.
    Psh = 8,
    /// Something is acknowledged.
    Ack = 16,
    /// Something is urgent.
    Urg = 32,
}

impl TcpFlag {
    /// Those that are set in a byte of TCP's header. The two of congestion control (RFC 3168) tell nothing about a connection.
    fn of(byte: u8) -> Vec<Self> {
        let all = [
            Self::Syn,
            Self::Ack,
            Self::Psh,
            Self::Urg,
            Self::Fin,
            Self::Rst,
        ];
        let set = all.into_iter().filter(|flag| byte & *flag as u8 != 0);
        set.collect()
    }
}

/// How a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both ends of a TCP connection have said all.
    Closed,
    /// One end of a TCP connection has given it up.
    Reset,
    /// No packet came within the time of its protocol and state.
    TimedOut,
}

impl Ending {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
        }
    }
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

impl Peer {
    /// What people call it: `NAMESPACE/POD`, `NAMESPACE/svc/NAME`, `node/NAME`, else its address.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.owner {
            Some(owner) => owner.to_string(),
            None => self.address.to_string(),
        }
    }

    /// The same with the workload for its pods, and `world` for all addresses that are nobody's.
    #[must_use]
    pub fn party(&self) -> String {
        match (&self.workload, &self.owner) {
            (Some(workload), _) => workload.to_string(),
            (None, Some(owner)) => owner.to_string(),
            (None, None) => WORLD.to_owned(),
        }
    }
}

/// Whoever is no pod, Service or node.
const WORLD: &str = "world";

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

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => pod.fmt(f),
            Self::Service(service) => write!(f, "{}/svc/{}", service.namespace, service.name),
            Self::Node(node) => write!(f, "node/{node}"),
        }
    }
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
