//! Which rules of policies do anything, and which pods no policy isolates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::guards::shadowed::shadowed;
use super::workload::spoken;
use crate::compile::RuleOrigin;
use crate::explain::{RuleDetails, World, details_in};
use crate::model::{Direction, ObjectName, Rule, Snapshot, Tier};

/// What was counted of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// How often it decided.
    pub hits: u64,
    /// Connections that are tracked now because of it.
    pub connections: u64,
}

/// What was counted of all.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By rule.
    pub rules: BTreeMap<RuleOrigin, Counted>,
    /// Packets that no rule of a NetworkPolicy allowed.
    pub denials: BTreeMap<(ObjectName, Direction), u64>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Every rule, and for each direction in which a NetworkPolicy isolates what none of its rules allows; by weight of the policies.
    pub rules: Vec<CoveredRule>,
    /// Pods that can be reached, or reach others, as if there were no NetworkPolicies.
    pub unisolated: Vec<Unisolated>,
}

/// A rule and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoveredRule {
    /// Tier of the policy.
    pub tier: Tier,
    /// The policy.
    pub policy: ObjectName,
    /// Ingress or egress.
    pub direction: Direction,
    /// Position in `spec.ingress` or `spec.egress`, from 0; `None` for what no rule allows.
    pub index: Option<usize>,
    /// What was counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// The position of a rule that matches all that this one does.
    pub shadowed_by: Option<usize>,
    /// Whether no connection can match it as things are: it names nobody, or its policy selects no pod.
    pub matches_nobody: bool,
}

impl CoveredRule {
    /// Whether it is a rule that never did anything.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.index.is_some() && self.counted == Counted::default()
    }
}

/// Pods that no NetworkPolicy isolates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unisolated {
    /// Namespace.
    pub namespace: String,
    /// `deploy/NAME` and alike; for a pod that no workload made its own name.
    pub workload: String,
    /// For connections to them.
    pub ingress: bool,
    /// For connections from them.
    pub egress: bool,
    /// How many pods there are.
    pub pods: usize,
}

/// What all policies of a cluster did, by these counts.
#[must_use]
pub fn coverage(snapshot: &Snapshot, counts: &Counts) -> Coverage {
    let world = &World::new(snapshot);
    let mut tiers: Vec<_> = snapshot.cluster_policies.values().collect();
    tiers.sort_by_key(|policy| policy.weight());
    let of_tier = |tier| {
        let policies = tiers.iter().filter(move |policy| policy.tier == tier);
        policies.flat_map(move |policy| {
            let rules = |direction| {
                let rules = policy.rules(direction).iter();
                Some(rules.map(|rule| &rule.matches).collect())
            };
            of_policy(world, counts, tier, &policy.name, rules)
        })
    };
    let own = snapshot.policies.values().flat_map(|policy| {
        let rules = |direction| Some(policy.rules(direction)?.iter().collect());
        of_policy(world, counts, Tier::NetworkPolicy, &policy.name, rules)
    });
    Coverage {
        rules: of_tier(Tier::Admin)
            .chain(own)
            .chain(of_tier(Tier::Baseline))
            .collect(),
        unisolated: unisolated(world),
    }
}

/// The rules of one policy; `None` in a direction about which it says nothing.
fn of_policy<'a>(
    world: &World<'_>,
    counts: &Counts,
    tier: Tier,
    policy: &ObjectName,
    rules: impl Fn(Direction) -> Option<Vec<&'a Rule>>,
) -> Vec<CoveredRule> {
    let details = details_in(world, policy);
    let mut covered = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let Some(rules) = rules(direction) else {
            continue;
        };
        let shadows: BTreeMap<usize, usize> = shadowed(&rules, tier != Tier::NetworkPolicy)
            .into_iter()
            .collect();
        let said = details.as_ref().and_then(|details| match direction {
            Direction::Ingress => details.ingress.as_ref(),
            Direction::Egress => details.egress.as_ref(),
        });
        let selects_nobody = details.as_ref().is_some_and(|it| it.pods.is_empty());
        let nobody = |index: usize| {
            let rule = said.and_then(|rules| rules.get(index));
            selects_nobody || rule.is_some_and(RuleDetails::matches_nobody)
        };
        for index in 0..rules.len() {
            let rule = RuleOrigin {
                tier,
                policy: policy.clone(),
                direction,
                index,
            };
            covered.push(CoveredRule {
                tier,
                policy: policy.clone(),
                direction,
                index: Some(index),
                counted: counts.rules.get(&rule).copied().unwrap_or_default(),
                shadowed_by: shadows.get(&index).copied(),
                matches_nobody: nobody(index),
            });
        }
        if tier == Tier::NetworkPolicy {
            let denied = counts.denials.get(&(policy.clone(), direction));
            covered.push(CoveredRule {
                tier,
                policy: policy.clone(),
                direction,
                index: None,
                counted: Counted {
                    hits: denied.copied().unwrap_or_default(),
                    connections: 0,
                },
                shadowed_by: None,
                matches_nobody: selects_nobody,
            });
        }
    }
    covered
}

fn unisolated(world: &World<'_>) -> Vec<Unisolated> {
    let mut counts: BTreeMap<(ObjectName, bool, bool), usize> = BTreeMap::new();
    let pods = world
        .snapshot
        .pods
        .values()
        .filter(|pod| pod.owns_addresses());
    for pod in pods {
        let is_free = |direction| {
            let mut policies = world.policies_of(pod);
            policies.all(|policy| policy.rules(direction).is_none())
        };
        let free = (is_free(Direction::Ingress), is_free(Direction::Egress));
        if free != (false, false) {
            *counts.entry((spoken(pod), free.0, free.1)).or_default() += 1;
        }
    }
    let unisolated = counts.into_iter();
    unisolated
        .map(|((workload, ingress, egress), pods)| Unisolated {
            namespace: workload.namespace,
            workload: workload.name,
            ingress,
            egress,
            pods,
        })
        .collect()
}
