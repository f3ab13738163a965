//! What a change probably does not mean to do.

mod blocks;
mod in_use;
mod lost;
mod selectors;
pub(super) mod shadowed;

use serde::{Deserialize, Serialize};

use super::Proposal;
use super::parties::Ground;
use crate::explain::Fix;
use crate::model::{
    ClusterPolicy, Direction, Kind, Location, ObjectName, Peer, Policy, Rule, Selector,
};

/// What is watched for. The names are stable: `weir check --allow NAME` passes over what one finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Pods that cannot look names up, by UDP or by TCP.
    Dns,
    /// Pods that reached the API server and do not any more.
    ApiServer,
    /// Metrics that Prometheus read and cannot read any more.
    Metrics,
    /// Connections that there are, and that it would not let through.
    InUse,
    /// A policy that selects no pod.
    SelectsNothing,
    /// A peer of a rule that no pod is.
    PeerMatchesNothing,
    /// An ipBlock of Service addresses, which policies never see.
    VirtualAddress,
    /// An ipBlock of pods' addresses, which change with every pod.
    PodAddress,
    /// A rule that decides nothing, because another one of its policy matches all that it does.
    Shadowed,
    /// A document that could not be used, so that what it does was not reviewed.
    Refused,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::ApiServer,
        Self::Metrics,
        Self::InUse,
        Self::SelectsNothing,
        Self::PeerMatchesNothing,
        Self::VirtualAddress,
        Self::PodAddress,
        Self::Shadowed,
        Self::Refused,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::ApiServer => "api-server",
            Self::Metrics => "metrics",
            Self::InUse => "in-use",
            Self::SelectsNothing => "selects-nothing",
            Self::PeerMatchesNothing => "peer-matches-nothing",
            Self::VirtualAddress => "virtual-address",
            Self::PodAddress => "pod-address",
            Self::Shadowed => "shadowed",
            Self::Refused => "refused",
        }
    }

    /// What it watches for, in a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Dns => "Pods cannot look names up.",
            Self::ApiServer => "Pods lose the API server.",
            Self::Metrics => "Metrics cannot be scraped any more.",
            Self::InUse => "Connections that were seen lately do not pass any more.",
            Self::SelectsNothing => "A policy selects no pod.",
            Self::PeerMatchesNothing => "A peer of a rule is no pod.",
            Self::VirtualAddress => {
                "An ipBlock names addresses of Services, which policies never see."
            }
            Self::PodAddress => "An ipBlock names addresses of pods, which change with every pod.",
            Self::Shadowed => "A rule decides nothing that another one does not.",
            Self::Refused => "A document cannot be used and was not reviewed.",
        }
    }
}

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which guard found it.
    pub guard: Guard,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The policies that do it.
    pub policies: Vec<ObjectName>,
    /// Where these are written, as far as the manifests hold them.
    pub locations: Vec<Location>,
    /// Policies that would mend it, ready to apply.
    pub fixes: Vec<Fix>,
}

impl Finding {
    /// A document that could not be used.
    #[must_use]
    pub fn refused(location: Location, message: String) -> Self {
        Self {
            guard: Guard::Refused,
            message,
            hint: "mend it: what it would do is not in this review".to_owned(),
            policies: Vec::new(),
            locations: vec![location],
            fixes: Vec::new(),
        }
    }
}

/// Everything that the guards find.
pub(super) fn findings(ground: &Ground<'_>, proposal: &Proposal) -> Vec<Finding> {
    let touched = touched(ground);
    let mut findings = lost::findings(ground);
    findings.extend(in_use::findings(ground, &proposal.cluster, &proposal.seen));
    findings.extend(selectors::findings(ground, &touched));
    findings.extend(blocks::findings(ground, &touched, &proposal.pod_ranges));
    findings.extend(shadowed::findings(&touched));
    for finding in &mut findings {
        finding.policies.sort();
        finding.policies.dedup();
        let named = finding.policies.iter().filter_map(|name| {
            let kind = match name.namespace.as_str() {
                "" => Kind::ClusterNetworkPolicy,
                _ => Kind::NetworkPolicy,
            };
            proposal.locations.get(&(kind, name.clone())).cloned()
        });
        finding.locations = named.collect();
    }
    findings
}

/// A policy that comes or changes: what is wrong with the others is not this change's doing.
pub(super) enum Touched<'a> {
    Policy(&'a Policy),
    Cluster(&'a ClusterPolicy),
}

impl<'a> Touched<'a> {
    fn name(&self) -> &'a ObjectName {
        match self {
            Self::Policy(policy) => &policy.name,
            Self::Cluster(policy) => &policy.name,
        }
    }

    /// What its rules of a direction match, in their order.
    fn rules(&self, direction: Direction) -> Vec<&'a Rule> {
        match self {
            Self::Policy(policy) => policy.rules(direction).unwrap_or_default().iter().collect(),
            Self::Cluster(policy) => {
                let rules = policy.rules(direction).iter();
                rules.map(|rule| &rule.matches).collect()
            }
        }
    }

    /// Every peer, with its rule as explanations write it.
    fn peers(&self) -> Vec<(String, &'a Peer)> {
        let mut peers = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            for (index, rule) in self.rules(direction).into_iter().enumerate() {
                let place = format!("{}[{index}]", direction.as_str());
                peers.extend(rule.peers.iter().map(|peer| (place.clone(), peer)));
            }
        }
        peers
    }

    /// Selectors of namespaces (`None`: its own) and pods that it applies to.
    fn subject(&self) -> (Option<&'a Selector>, &'a Selector) {
        match self {
            Self::Policy(policy) => (None, &policy.pod_selector),
            Self::Cluster(policy) => (Some(&policy.namespaces), &policy.pods),
        }
    }
}

fn touched<'a>(ground: &Ground<'a>) -> Vec<Touched<'a>> {
    let (before, after) = (&ground.of.before, &ground.of.after);
    let policies = after.policies.iter();
    let policies = policies.filter(|(name, policy)| before.policies.get(*name) != Some(policy));
    let tiers = after.cluster_policies.iter();
    let tiers = tiers.filter(|(name, policy)| before.cluster_policies.get(*name) != Some(policy));
    policies
        .map(|(_, policy)| Touched::Policy(policy))
        .chain(tiers.map(|(_, policy)| Touched::Cluster(policy)))
        .collect()
}
