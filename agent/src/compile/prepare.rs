//! The policies that select a local pod, of every tier, with their rules ready to be matched.

use std::collections::BTreeMap;

use super::pods::Local;
use super::rows::{Rule, Tiers};
use super::terms::Terms;
use super::{PolicyTables, RuleOrigin};
use crate::model::{
    Action, ClusterPolicy, ClusterRule, Direction, Labels, Pod, Policy, Snapshot, Tier, rule_id,
};

/// What there is to say about local pods.
pub(super) struct Prepared<'a> {
    snapshot: &'a Snapshot,
    /// NetworkPolicies by namespace, sorted by name.
    namespaced: BTreeMap<&'a str, Vec<Namespaced<'a>>>,
    /// ClusterNetworkPolicies of both tiers in order of weight.
    cluster: Vec<Cluster<'a>>,
}

/// A NetworkPolicy with the rules of each direction in which it isolates.
struct Namespaced<'a> {
    policy: &'a Policy,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// A ClusterNetworkPolicy with its rules.
struct Cluster<'a> {
    policy: &'a ClusterPolicy,
    ingress: Vec<(Action, Rule)>,
    egress: Vec<(Action, Rule)>,
}

impl<'a> Prepared<'a> {
    /// Picks the policies that select a local pod, gives their rules ids and notes the terms that they need.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        local: &[Local],
        tables: &mut PolicyTables,
        terms: &mut Terms,
    ) -> Self {
        let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        // Which policies select a stranger is not known.
        let known = || local.iter().filter(|local| !local.stranger);
        for Local { pod, .. } in known() {
            pods.entry(&pod.name.namespace).or_default().push(pod);
        }
        let mut namespaced: BTreeMap<&str, Vec<Namespaced<'_>>> = BTreeMap::new();
        for policy in snapshot.policies.values() {
            let namespace = policy.name.namespace.as_str();
            let selects = |pod: &&Pod| policy.pod_selector.matches(&pod.labels);
            if !pods
                .get(namespace)
                .is_some_and(|pods| pods.iter().any(selects))
            {
                continue;
            }
            let mut rules = |direction| {
                let rules = policy.rules(direction)?.iter().enumerate();
                let prepare = |(index, rule)| {
                    let origin = RuleOrigin {
                        tier: Tier::NetworkPolicy,
                        policy: policy.name.clone(),
                        direction,
                        index,
                    };
                    let id = add_rule(tables, &policy.uid, origin);
                    Rule::new(id, namespace, direction, rule, terms)
                };
                Some(rules.map(prepare).collect())
            };
            let entry = Namespaced {
                policy,
                ingress: rules(Direction::Ingress),
                egress: rules(Direction::Egress),
            };
            namespaced.entry(namespace).or_default().push(entry);
        }
        let mut chosen: Vec<&ClusterPolicy> = snapshot
            .cluster_policies
            .values()
            .map(AsRef::as_ref)
            .filter(|policy| {
                known().any(|local| {
                    let namespace = namespace_labels(snapshot, &local.pod);
                    policy.selects(namespace, &local.pod.labels)
                })
            })
            .collect();
        chosen.sort_by_key(|policy| policy.weight());
        let cluster = chosen.into_iter().map(|policy| {
            let mut rules = |direction| {
                let rules = policy.rules(direction).iter().enumerate();
                let prepare = |(index, rule): (usize, &ClusterRule)| {
                    let origin = RuleOrigin {
                        tier: policy.tier,
                        policy: policy.name.clone(),
                        direction,
                        index,
                    };
                    let id = add_rule(tables, &policy.uid, origin);
                    let matches = Rule::new(id, "", direction, &rule.matches, terms);
                    (rule.action, matches)
                };
                rules.map(prepare).collect()
            };
            Cluster {
                policy,
                ingress: rules(Direction::Ingress),
                egress: rules(Direction::Egress),
            }
        });
        let cluster = cluster.collect();
        Self {
            snapshot,
            namespaced,
            cluster,
        }
    }

    /// What every tier says about a pod in a direction.
    pub(super) fn tiers(&self, direction: Direction, pod: &Pod) -> Tiers<'_> {
        let namespaced = self.namespaced.get(pod.name.namespace.as_str());
        let isolating = namespaced
            .into_iter()
            .flatten()
            .filter(|prepared| prepared.policy.pod_selector.matches(&pod.labels))
            .filter_map(|prepared| {
                let rules = match direction {
                    Direction::Ingress => prepared.ingress.as_deref(),
                    Direction::Egress => prepared.egress.as_deref(),
                };
                Some((&prepared.policy.name, rules?))
            });
        let mut tiers = Tiers {
            isolating: isolating.collect(),
            ..Tiers::default()
        };
        let namespace = namespace_labels(self.snapshot, pod);
        for Cluster {
            policy,
            ingress,
            egress,
        } in &self.cluster
        {
            if !policy.selects(namespace, &pod.labels) {
                continue;
            }
            let rules = match direction {
                Direction::Ingress => ingress,
                Direction::Egress => egress,
            };
            let tier = match policy.tier {
                Tier::Baseline => &mut tiers.baseline,
                _ => &mut tiers.admin,
            };
            tier.extend(rules.iter().map(|(action, rule)| (*action, rule)));
        }
        tiers
    }
}

fn namespace_labels<'a>(snapshot: &'a Snapshot, pod: &Pod) -> Option<&'a Labels> {
    let namespace = snapshot.namespaces.get(&pod.name.namespace)?;
    Some(&namespace.labels)
}

/// Gives a rule an id that no other rule of this node has; `uid` is its policy's.
fn add_rule(tables: &mut PolicyTables, uid: &str, origin: RuleOrigin) -> u32 {
    let RuleOrigin {
        policy,
        direction,
        index,
        ..
    } = &origin;
    let id = (0..)
        .map(|attempt| rule_id(policy, uid, *direction, *index, attempt))
        .find(|id| !tables.rules.contains_key(id))
        .expect("a node has fewer rules than there are ids");
    tables.rules.insert(id, origin);
    id
}
