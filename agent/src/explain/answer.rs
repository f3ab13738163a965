//! The answer: plain data that printers and JSON share.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::compile::{Claim, Clients};
use crate::model::{Action, Direction, ObjectName, Protocol, Tier};

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is let through.
    Allowed,
    /// A policy drops it silently; the client times out.
    Denied,
    /// It depends on the address family, the backend or the source pod.
    Partly,
    /// The Service has no endpoint that takes new connections; the client is refused at once.
    NoEndpoint,
    /// The traffic policy is Local and the node that translates has no endpoint; dropped.
    NoLocalEndpoint,
    /// The load balancer's address is not for this client (loadBalancerSourceRanges); dropped.
    SourceRange,
    /// The cluster IP has no such port; the client is refused at once.
    NoServicePort,
    /// The address is for Services, and no Service has it; dropped.
    NoService,
}

impl Verdict {
    /// The verdict over several connections; `None` if there is none.
    #[must_use]
    pub fn combine(verdicts: &BTreeSet<Self>) -> Option<Self> {
        match verdicts.len() {
            0 => None,
            1 => verdicts.first().copied(),
            _ => Some(Self::Partly),
        }
    }

    /// Words for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Partly => "partly allowed",
            Self::NoEndpoint => "refused: no endpoint",
            Self::NoLocalEndpoint => "dropped: no endpoint on the node",
            Self::SourceRange => "dropped: the client is in no source range",
            Self::NoServicePort => "refused: no such Service port",
            Self::NoService => "dropped: no Service has that address",
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Source as asked for.
    pub source: String,
    /// Destination as asked for.
    pub destination: String,
    /// Port asked for, or found out: the Service port for a Service, the pod's port otherwise.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// The verdict over all flows.
    pub verdict: Verdict,
    /// What the Service makes of it, for each of its addresses; empty if no Service is involved.
    pub translations: Vec<Translation>,
    /// Each connection that can come of it: source address, destination address.
    pub flows: Vec<Flow>,
    /// What to apply to have it allowed; empty unless a policy denies something.
    pub fixes: Vec<Fix>,
    /// What else is worth knowing.
    pub notes: Vec<Note>,
}

/// How a Service leads a connection to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Translation {
    /// The Service.
    pub service: ObjectName,
    /// By what it has the address.
    pub kind: Claim,
    /// The address that the client names.
    pub address: IpAddr,
    /// The port there: the Service port, or the node port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Name of the Service port, empty if it has none or there is no such port.
    pub port_name: String,
    /// targetPort as written; `None` if the Service has no such port.
    pub target_port: Option<String>,
    /// The node that translates.
    pub node: String,
    /// The clients that this is for, where it is not the same for all.
    pub clients: Option<Clients>,
    /// The ranges that clients must come from (loadBalancerSourceRanges); empty for any.
    pub source_ranges: Vec<IpNetwork>,
    /// The node whose endpoints alone count (traffic policy Local).
    pub only_node: Option<String>,
    /// All endpoints of the address's family, usable or not.
    pub endpoints: Vec<EndpointAnswer>,
    /// Why clients get to no endpoint; `None` if they do.
    pub problem: Option<String>,
    /// What is probably wrong although there are endpoints.
    pub warning: Option<String>,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAnswer {
    /// Address.
    pub address: IpAddr,
    /// Target port; `None` if its slice has none for this Service port.
    pub port: Option<u16>,
    /// Pod behind it.
    pub pod: Option<ObjectName>,
    /// Node that it is on.
    pub node: Option<String>,
    /// conditions.ready.
    pub ready: bool,
    /// conditions.serving.
    pub serving: bool,
    /// conditions.terminating.
    pub terminating: bool,
    /// Why new connections do not go there; `None` if they do.
    pub excluded: Option<String>,
}

/// One connection between two addresses, after translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Who opens it.
    pub source: Place,
    /// Who takes it.
    pub destination: Place,
    /// Port at the destination, the one that policies judge.
    pub port: u16,
    /// What the source's policies see in place of the destination: a port of another node, which translates.
    pub hop: Option<Hop>,
    /// What the destination's policies see in place of the source: the node that the connection came in by, where it is another than
    /// the destination's.
    pub seen_as: Option<Place>,
    /// Allowed or denied.
    pub verdict: Verdict,
    /// The source's policies.
    pub egress: Side,
    /// The destination's policies.
    pub ingress: Side,
}

/// A port of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// The node.
    pub place: Place,
    /// The port.
    pub port: u16,
}

impl Flow {
    /// Where the source's policies see it go.
    #[must_use]
    pub fn egress_peer(&self) -> (&Place, u16) {
        let hop = self.hop.as_ref();
        hop.map_or((&self.destination, self.port), |hop| (&hop.place, hop.port))
    }

    /// Where the destination's policies see it come from.
    #[must_use]
    pub fn ingress_peer(&self) -> &Place {
        self.seen_as.as_ref().unwrap_or(&self.source)
    }
}

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// What it is to policies.
    pub kind: PlaceKind,
    /// The pod: owner of the address, or a host-network pod that was asked for.
    pub pod: Option<ObjectName>,
    /// The node it is on.
    pub node: Option<String>,
}

/// What an address is to policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// A pod-network pod: policies may select it and selectors may name it.
    Pod,
    /// A node, host-network pods included: only ipBlocks name it.
    Node,
    /// Neither: only ipBlocks name it.
    Outside,
}

/// What one end's policies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Egress for the source, ingress for the destination.
    pub direction: Direction,
    /// Result.
    pub outcome: SideOutcome,
    /// Rules of ClusterNetworkPolicies that were the first of their tier to match, as far as tiers were asked: those that leave it to
    /// the next tier, and then the one that decides, if one does.
    pub tiers: Vec<TierMatch>,
    /// NetworkPolicies that isolate the pod in this direction.
    pub isolated_by: Vec<Isolation>,
    /// Rules of NetworkPolicies that allow the connection.
    pub allowed_by: Vec<RuleMatch>,
    /// For a denial, the rules that come nearest, best first.
    pub nearest: Vec<NearMiss>,
}

/// Result of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideOutcome {
    /// No pod-network pod: policies never select it.
    NotSelectable,
    /// No policy of any tier decides.
    NotIsolated,
    /// A rule allows it.
    Allowed,
    /// No rule of the isolating NetworkPolicies allows it.
    Denied,
    /// A rule of a ClusterNetworkPolicy denies it.
    DeniedByRule,
    /// From the pod's own node (kubelet probes among it).
    OwnNode,
    /// The pod reaches itself.
    Itself,
}

impl SideOutcome {
    /// Whether the connection passes this side.
    #[must_use]
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Denied | Self::DeniedByRule)
    }

    /// Whether it passes whatever policies say: they were not asked, and tables do not tell.
    #[must_use]
    pub const fn is_exempt(self) -> bool {
        matches!(self, Self::Itself | Self::OwnNode | Self::NotSelectable)
    }
}

/// A policy that isolates a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// The policy.
    pub policy: ObjectName,
    /// Its number of rules in this direction; without any it only denies.
    pub rules: usize,
}

/// A rule and what it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleMatch {
    /// The policy.
    pub policy: ObjectName,
    /// Position in spec.ingress or spec.egress, from 0.
    pub index: usize,
    /// The peer of the rule that matches.
    pub peer: String,
    /// The port of the rule that matches.
    pub port: String,
}

/// A rule of a ClusterNetworkPolicy and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierMatch {
    /// Tier of the policy.
    pub tier: Tier,
    /// What the rule does.
    pub action: Action,
    /// The rule's own name, empty if it has none.
    pub name: String,
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleMatch,
}

/// A rule that does not allow the connection, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// The policy.
    pub policy: ObjectName,
    /// Position in spec.ingress or spec.egress, from 0.
    pub index: usize,
    /// Whether one of its peers matches.
    pub peer_matches: bool,
    /// Whether one of its ports matches.
    pub port_matches: bool,
    /// Its nearest peer.
    pub peer: String,
    /// Its nearest port.
    pub port: String,
    /// Every requirement that is not met.
    pub misses: Vec<String>,
}

/// A policy that would allow what is denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// What it does.
    pub title: String,
    /// A NetworkPolicy, ready to apply.
    pub yaml: String,
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "level", content = "text", rename_all = "lowercase")]
pub enum Note {
    /// Something that is probably wrong.
    Warning(String),
    /// Something to know.
    Hint(String),
}
