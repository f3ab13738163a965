//! The policies of all tiers that select a local pod, with their rules ready to be matched.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use super::rows::{Rule, Tiers};
use super::terms::Terms;
use crate::compile::RuleOrigin;
use crate::model::{self, Action, Direction, ObjectName, Snapshot, Tier, rule_id};

/// Names a policy of any tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PolicyKey {
    /// A NetworkPolicy.
    Namespaced(ObjectName),
    /// A ClusterNetworkPolicy.
    Cluster(String),
}

/// Those that are chosen.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    prepared: BTreeMap<PolicyKey, Prepared>,
    collided: bool,
}

/// A policy with the rules of each direction, for ingress and for egress: `None` where it says nothing.
#[derive(Debug)]
struct Prepared {
    /// As [`model::ClusterPolicy::weight`].
    weight: (Tier, u16, ObjectName),
    rules: [Option<Vec<(Action, Rule)>>; 2],
}

/// In the order in which rows and rules are held.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Chosen {
    /// Prepares what the snapshot has of `keys` if it `is_chosen`, and forgets what was there of them. Terms that stay in use keep
    /// their numbers.
    pub(super) fn follow(
        &mut self,
        keys: &BTreeSet<PolicyKey>,
        is_chosen: impl Fn(&PolicyKey) -> bool,
        snapshot: &Snapshot,
        terms: &mut Terms,
        origins: &mut OrdMap<u32, RuleOrigin>,
    ) {
        let former: Vec<Prepared> = keys
            .iter()
            .filter_map(|key| self.prepared.remove(key))
            .collect();
        let rules = former.iter().flat_map(|policy| &policy.rules).flatten();
        for (_, rule) in rules.flatten() {
            origins.remove(&rule.id);
        }
        for key in keys.iter().filter(|key| is_chosen(key)) {
            if let Some(spec) = Spec::of(key, snapshot) {
                let prepared = self.prepare(&spec, terms, origins);
                self.prepared.insert(key.clone(), prepared);
            }
        }
        for policy in former {
            for (direction, rules) in DIRECTIONS.iter().zip(policy.rules) {
                for (_, rule) in rules.into_iter().flatten() {
                    rule.release(*direction, terms);
                }
            }
        }
    }

    fn prepare(
        &mut self,
        spec: &Spec<'_>,
        terms: &mut Terms,
        origins: &mut OrdMap<u32, RuleOrigin>,
    ) -> Prepared {
        let mut rules = |direction: Direction| {
            let (tier, _, name) = spec.weight;
            let rules = spec.rules[direction as usize].as_deref()?;
            let prepare = |(index, (action, rule)): (usize, &(Action, &model::Rule))| {
                let origin = RuleOrigin {
                    tier,
                    policy: name.clone(),
                    direction,
                    index,
                };
                let (id, collided) = add(origins, spec.uid, origin);
                self.collided |= collided;
                let namespace = &name.namespace;
                (*action, Rule::new(id, namespace, direction, rule, terms))
            };
            Some(rules.iter().enumerate().map(prepare).collect())
        };
        let rules = DIRECTIONS.map(&mut rules);
        let (tier, priority, name) = spec.weight;
        let weight = (tier, priority, name.clone());
        Prepared { weight, rules }
    }

    /// Whether ids of rules collided, so that they depend on the order in which policies came.
    pub(super) fn collided(&self) -> bool {
        self.collided
    }

    /// What every tier says about a pod that these policies select.
    pub(super) fn tiers(&self, direction: Direction, selected: &BTreeSet<PolicyKey>) -> Tiers<'_> {
        let mut tiers = Tiers::default();
        let mut cluster = Vec::new();
        for policy in selected.iter().filter_map(|key| self.prepared.get(key)) {
            let Some(rules) = policy.rules[direction as usize].as_deref() else {
                continue;
            };
            match &policy.weight {
                (Tier::NetworkPolicy, _, name) => tiers.isolating.push((name, rules)),
                weight => cluster.push((weight, rules)),
            }
        }
        cluster.sort_by_key(|(weight, _)| *weight);
        for ((tier, ..), rules) in cluster {
            match tier {
                Tier::Baseline => tiers.baseline.push(rules),
                _ => tiers.admin.push(rules),
            }
        }
        tiers
    }
}

/// What a policy of any tier says.
struct Spec<'a> {
    weight: (Tier, u16, &'a ObjectName),
    uid: &'a str,
    rules: [Option<Vec<(Action, &'a model::Rule)>>; 2],
}

impl<'a> Spec<'a> {
    fn of(key: &PolicyKey, snapshot: &'a Snapshot) -> Option<Self> {
        match key {
            PolicyKey::Namespaced(name) => {
                let policy = snapshot.policies.get(name)?;
                let accepted = |rules: &'a [model::Rule]| {
                    let rules = rules.iter();
                    rules.map(|rule| (Action::Accept, rule)).collect()
                };
                Some(Self {
                    weight: (Tier::NetworkPolicy, 0, &policy.name),
                    uid: &policy.uid,
                    rules: DIRECTIONS.map(|direction| policy.rules(direction).map(accepted)),
                })
            }
            PolicyKey::Cluster(name) => {
                let policy = snapshot.cluster_policies.get(name)?;
                let rules = |direction| {
                    let rules = policy.rules(direction).iter();
                    Some(rules.map(|rule| (rule.action, &rule.matches)).collect())
                };
                Some(Self {
                    weight: policy.weight(),
                    uid: &policy.uid,
                    rules: DIRECTIONS.map(rules),
                })
            }
        }
    }
}

/// Gives a rule an id that no other rule of this node has, the first of several that are possible; whether it is another than that.
fn add(origins: &mut OrdMap<u32, RuleOrigin>, uid: &str, origin: RuleOrigin) -> (u32, bool) {
    let RuleOrigin {
        policy,
        direction,
        index,
        ..
    } = &origin;
    let (attempt, id) = (0..)
        .map(|attempt| (attempt, rule_id(policy, uid, *direction, *index, attempt)))
        .find(|(_, id)| !origins.contains_key(id))
        .expect("a node has fewer rules than there are ids");
    origins.insert(id, origin);
    (id, attempt > 0)
}
