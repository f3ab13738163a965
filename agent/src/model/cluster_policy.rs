//! ClusterNetworkPolicy, the tiers above and below NetworkPolicy.

use serde::{Deserialize, Serialize};

use super::{Direction, Labels, ObjectName, Rule, Selector};

/// What policies are asked in this order, each for what the ones before it have left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// ClusterNetworkPolicies that nobody overrules.
    Admin,
    /// NetworkPolicies, which decide wherever they isolate.
    NetworkPolicy,
    /// ClusterNetworkPolicies for what no NetworkPolicy has decided.
    Baseline,
}

impl Tier {
    /// The API's name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }
}

/// A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// Name.
    pub name: ObjectName,
    /// metadata.uid, empty for a file without one.
    pub uid: String,
    /// metadata.labels, for those who ask for policies by them.
    #[serde(default)]
    pub labels: Labels,
    /// spec.tier; never [`Tier::NetworkPolicy`].
    pub tier: Tier,
    /// spec.priority: the lowest of a tier comes first, and of equal ones the name that sorts first.
    pub priority: u16,
    /// Namespaces of the pods that it applies to.
    pub namespaces: Selector,
    /// Labels of those pods.
    pub pods: Selector,
    /// Rules for connections to them; the first that matches counts.
    pub ingress: Vec<ClusterRule>,
    /// Rules for connections from them; the first that matches counts.
    pub egress: Vec<ClusterRule>,
}

impl ClusterPolicy {
    /// The rules of a direction. Without any the policy says nothing about it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// What orders policies by weight, the one that is asked first before the others.
    #[must_use]
    pub fn weight(&self) -> (Tier, u16, &ObjectName) {
        (self.tier, self.priority, &self.name)
    }

    /// Whether it applies to a pod-network pod with these labels. Nobody selects a pod whose Namespace is not known.
    #[must_use]
    pub fn selects(&self, namespace: Option<&Labels>, pod: &Labels) -> bool {
        namespace.is_some_and(|labels| self.namespaces.matches(labels)) && self.pods.matches(pod)
    }
}

/// One rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRule {
    /// For people; empty if it has none.
    pub name: String,
    /// What becomes of what matches.
    pub action: Action,
    /// What matches. Peers name their namespaces, since the policy has none of its own.
    pub matches: Rule,
}

/// `ClusterNetworkPolicyRuleAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Let pass, whatever later rules and tiers say.
    Accept,
    /// Drop, whatever later rules and tiers say.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

impl Action {
    /// The API's name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}
