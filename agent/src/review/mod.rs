//! What manifests would change if they were applied: which connections open and close, and what is probably not meant.
//!
//! Pure, from objects alone, by the judge of [`crate::explain`]. The answer is exhaustive, not a sample: the world is cut into parties (pods,
//! nodes, addresses outside) and ranges of ports that no rule tells apart, and one question about each pair of them is a question about all. So
//! its size follows workloads and rules, not pods.
//!
//! Probes are not asked about: a pod's own node, the kubelet on it, always reaches the pod, whatever policies say.

mod coverage;
mod guards;
mod matrix;
mod pairs;
mod parties;
mod ports;
mod regions;
#[cfg(test)]
mod tests;
mod workload;
mod worlds;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use coverage::{Counted, Counts, Coverage, CoveredRule, Unisolated, coverage};
pub use guards::{Finding, Guard};
pub use matrix::{Matrix, MatrixEnd, Reach, matrix};
pub use ports::{PortRange, in_words};

use crate::explain::{RuleMatch, SideOutcome, World};
use crate::flows::Seen;
use crate::model::{Direction, Kind, Location, Object, ObjectName};
use parties::Ground;
use worlds::Worlds;

/// What is to be reviewed.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// The objects of the cluster as it is.
    pub cluster: Vec<Object>,
    /// The objects that are to be applied.
    pub manifests: Vec<Object>,
    /// They are all that there will be: what only the cluster has goes.
    pub replaces: bool,
    /// Where pods of templates get their addresses from, for rules that name blocks; at most one range a family. Without any they get
    /// the addresses behind those of the cluster's pods.
    pub pod_ranges: Vec<IpNetwork>,
    /// Connections that each node of the cluster tells of.
    pub seen: Vec<Vec<Seen>>,
    /// Where the manifests are written.
    pub locations: BTreeMap<(Kind, ObjectName), Location>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// What could not be done before.
    pub opened: Vec<Change>,
    /// What can not be done any more. New workloads are judged as if they had been there before.
    pub closed: Vec<Change>,
    /// What is probably not meant.
    pub findings: Vec<Finding>,
    /// What the answer rests on.
    pub notes: Vec<String>,
}

/// Connections that open or close, from each of `from` to each of `to`. (A pod itself is never meant: it always reaches itself.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Who opens them.
    pub from: Vec<End>,
    /// Who takes them.
    pub to: Vec<End>,
    /// To which ports; in order.
    pub ports: Vec<PortRange>,
    /// The address families that it holds for; empty for all that both ends have.
    pub families: Vec<Family>,
    /// What decides now, on each side that decided otherwise before (what opens) or that denies it now (what closes).
    pub because: Vec<Decision>,
    /// Of what closes, the rule that comes nearest to allowing it.
    pub nearest: Option<RuleMatch>,
}

/// One end of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum End {
    /// Pods of a workload: all of them, or those of which it holds.
    Pods {
        /// Namespace.
        namespace: String,
        /// `deploy/NAME` and alike; for a pod that no workload made its own name.
        workload: String,
        /// How many pods there are; of a template two.
        pods: usize,
    },
    /// Nodes and host-network pods, at these addresses; a pod's own node is never meant where it opens the connection.
    Nodes {
        /// Addresses.
        addresses: Vec<IpAddr>,
    },
    /// Addresses that nobody in the cluster has.
    Outside {
        /// A block.
        cidr: IpNetwork,
        /// Blocks inside it that are not meant.
        except: Vec<IpNetwork>,
    },
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::IPv4,
            IpAddr::V6(_) => Self::IPv6,
        }
    }

    /// Whether an address is of it.
    #[must_use]
    pub const fn has(self, address: IpAddr) -> bool {
        matches!(
            (self, address),
            (Self::IPv4, IpAddr::V4(_)) | (Self::IPv6, IpAddr::V6(_))
        )
    }
}

/// What one end's policies decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whose: egress for the source, ingress for the destination.
    pub direction: Direction,
    /// How.
    pub outcome: SideOutcome,
    /// NetworkPolicies that isolate the pod, where no rule of theirs allows it.
    pub policies: Vec<ObjectName>,
    /// The rules that decide.
    pub rules: Vec<RuleMatch>,
}

impl Decision {
    /// Every policy that has a part in it.
    pub fn all_policies(&self) -> impl Iterator<Item = &ObjectName> {
        self.policies
            .iter()
            .chain(self.rules.iter().map(|rule| &rule.policy))
    }
}

/// What is probably not meant by the policies that a cluster has: what the guards would say if they all came at once.
///
/// Whether something reached the API server or read metrics without them tells nothing: that may be what they are for.
#[must_use]
pub fn lint(cluster: Vec<Object>) -> Vec<Finding> {
    let is_policy =
        |object: &Object| matches!(object, Object::Policy(_) | Object::ClusterPolicy(_));
    let (manifests, cluster) = cluster.into_iter().partition(is_policy);
    let proposal = Proposal {
        cluster,
        manifests,
        ..Proposal::default()
    };
    let of = Worlds::new(&proposal);
    let worlds = [World::new(&of.before), World::new(&of.after)];
    let mut findings = guards::findings(&Ground::new(&of, &worlds), &proposal);
    findings.retain(|it| !matches!(it.guard, Guard::ApiServer | Guard::Metrics));
    findings
}

/// Compares the cluster as it is with what it would be.
#[must_use]
pub fn review(proposal: &Proposal) -> Review {
    let of = Worlds::new(proposal);
    let worlds = [World::new(&of.before), World::new(&of.after)];
    let ground = Ground::new(&of, &worlds);
    let pairs = ground.pairs();
    let mut notes = Vec::new();
    if of.assumed_dns {
        notes.push(
            "nothing tells of the cluster's DNS: pods labelled k8s-app=kube-dns in namespace kube-system are assumed, at port 53".to_owned(),
        );
    }
    Review {
        opened: pairs.opened,
        closed: pairs.closed,
        findings: guards::findings(&ground, proposal),
        notes,
    }
}
