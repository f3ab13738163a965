//! How often each rule decided, since the agent started.

use std::collections::BTreeSet;
use std::hash::Hash;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{Outcome, Record};
use crate::compile::RuleOrigin;
use crate::model::{Direction, ObjectName, Snapshot};

/// Rules, and as many policies, that are counted at most. A rule more is not.
const MOST: usize = 16_384;

/// Answer of `/v1/hits`: of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleHits {
    /// The node.
    pub node: String,
    /// Since when.
    pub since: jiff::Timestamp,
    /// One of so many allowed connections was reported, and stands for all of them; 0 for none, 1 where all that have ended are counted.
    pub event_sample: u32,
    /// The rules that decided, or have connections now.
    pub rules: Vec<RuleHit>,
    /// The policies that denied something.
    pub denials: Vec<Denials>,
    /// Hits of rules for which there was no room.
    pub uncounted: u64,
}

/// How often a rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleHit {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleOrigin,
    /// New connections that it allowed, where these are sampled an estimate; of a rule that denies, packets.
    pub hits: u64,
    /// Connections that are tracked now because of it.
    pub connections: u64,
}

/// What the pods of a NetworkPolicy were kept from, because no rule allowed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denials {
    /// The policy.
    pub policy: ObjectName,
    /// Seen from the pods.
    pub direction: Direction,
    /// Packets that were dropped; each counts for all policies that isolate the pod.
    pub packets: u64,
}

/// Counts by rule.
#[derive(Debug)]
pub struct Hits {
    most: usize,
    /// Allowed connections count when they have ended, and then all of them.
    by_ends: bool,
    event_sample: u32,
    rules: FxHashMap<RuleOrigin, u64>,
    denials: FxHashMap<(ObjectName, Direction), u64>,
    uncounted: u64,
}

impl Hits {
    /// Nothing is counted yet. Ends of connections are recorded, or one of `event_sample` beginnings is.
    #[must_use]
    pub fn new(event_sample: u32, by_ends: bool) -> Self {
        Self {
            by_ends,
            ..Self::at_most(MOST, event_sample)
        }
    }

    fn at_most(most: usize, event_sample: u32) -> Self {
        Self {
            most,
            by_ends: false,
            event_sample,
            rules: FxHashMap::default(),
            denials: FxHashMap::default(),
            uncounted: 0,
        }
    }

    /// Counts a record. The beginning of an allowed connection stands for all of its sample, while every drop is reported.
    pub fn count(&mut self, record: &Record) {
        let weight = match record.verdict {
            Outcome::Forwarded if self.by_ends => return,
            Outcome::Ended if !self.by_ends => return,
            Outcome::Forwarded => u64::from(self.event_sample.max(1)),
            Outcome::Dropped | Outcome::Rejected | Outcome::Ended => 1,
        };
        for (direction, rule) in record.rules() {
            let rule = RuleOrigin {
                tier: rule.tier,
                policy: rule.policy.clone(),
                direction,
                index: rule.index,
            };
            self.uncounted += add(&mut self.rules, rule, weight, self.most);
        }
        for policy in &record.denied_by {
            let policy = (policy.clone(), record.direction);
            self.uncounted += add(&mut self.denials, policy, weight, self.most);
        }
    }

    /// Forgets the rules of policies that are gone or have others now: a position in them means something else.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot) {
        let own = changed(&before.policies, &after.policies, |old, new| {
            (&old.ingress, &old.egress) == (&new.ingress, &new.egress)
        });
        let tiers = changed(
            &before.cluster_policies,
            &after.cluster_policies,
            |old, new| (&old.ingress, &old.egress) == (&new.ingress, &new.egress),
        );
        let own = own.into_iter().cloned();
        let tiers = tiers.into_iter().map(ObjectName::cluster);
        let changed: BTreeSet<ObjectName> = own.chain(tiers).collect();
        if !changed.is_empty() {
            self.rules.retain(|rule, _| !changed.contains(&rule.policy));
            self.denials
                .retain(|(policy, _), _| !changed.contains(policy));
        }
    }

    /// What was counted on a node since then, with the connections that are tracked now by the rule that allowed them.
    #[must_use]
    pub fn answer(
        &self,
        node: &str,
        since: jiff::Timestamp,
        connections: FxHashMap<RuleOrigin, u64>,
    ) -> RuleHits {
        let mut rules = connections
            .into_iter()
            .map(|(rule, connections)| (rule, (0, connections)))
            .collect::<FxHashMap<_, _>>();
        for (rule, hits) in &self.rules {
            rules.entry(rule.clone()).or_default().0 = *hits;
        }
        let mut rules: Vec<_> = rules
            .into_iter()
            .map(|(rule, (hits, connections))| RuleHit {
                rule,
                hits,
                connections,
            })
            .collect();
        rules.sort_by(|a, b| a.rule.cmp(&b.rule));
        let denials = self.denials.iter();
        let mut denials: Vec<_> = denials
            .map(|((policy, direction), packets)| Denials {
                policy: policy.clone(),
                direction: *direction,
                packets: *packets,
            })
            .collect();
        denials.sort_by(|a, b| (&a.policy, a.direction).cmp(&(&b.policy, b.direction)));
        RuleHits {
            node: node.to_owned(),
            since,
            event_sample: if self.by_ends { 1 } else { self.event_sample },
            rules,
            denials,
            uncounted: self.uncounted,
        }
    }
}

/// The keys of what is gone or not the same any more; only what differs is looked at.
fn changed<'m, K: Ord, V: PartialEq>(
    before: &'m OrdMap<K, V>,
    after: &'m OrdMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<&'m K> {
    let changed = before.diff(after).filter_map(|item| match item {
        DiffItem::Remove(key, _) => Some(key),
        DiffItem::Update { old, new } if !same(old.1, new.1) => Some(old.0),
        DiffItem::Update { .. } | DiffItem::Add(..) => None,
    });
    changed.collect()
}

/// Adds where there is room; gives what found none.
fn add<K: Hash + Eq>(counts: &mut FxHashMap<K, u64>, key: K, weight: u64, most: usize) -> u64 {
    if counts.len() >= most && !counts.contains_key(&key) {
        return weight;
    }
    *counts.entry(key).or_default() += weight;
    0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compile::testing::{policy, selector};
    use crate::flows::tests::{event, record};
    use crate::flows::{DecidedBy, Ended, Sent};
    use crate::model::{Policy, Rule, Tier};

    fn decided(name: &str, index: usize, verdict: Outcome) -> Record {
        Record {
            verdict,
            rule: Some(DecidedBy {
                tier: Tier::NetworkPolicy,
                policy: ObjectName::new("shop", name),
                index,
            }),
            denied_by: Vec::new(),
            ..record(&event())
        }
    }

    fn answer(hits: &Hits) -> RuleHits {
        let since = "2026-01-02T03:04:05Z".parse().unwrap();
        hits.answer("n1", since, FxHashMap::default())
    }

    fn shown(hits: &Hits) -> Vec<(String, usize, u64)> {
        let rules = answer(hits).rules.into_iter();
        rules
            .map(|it| (it.rule.policy.name, it.rule.index, it.hits))
            .collect()
    }

    #[test]
    fn an_allowed_connection_stands_for_its_sample_and_a_drop_for_itself() {
        for (sample, expected) in [(100, 200), (1, 2), (0, 2)] {
            let mut hits = Hits::new(sample, false);
            for _ in 0..2 {
                hits.count(&decided("a", 1, Outcome::Forwarded));
                hits.count(&decided("b", 0, Outcome::Dropped));
            }
            let expected = [("a".to_owned(), 1, expected), ("b".to_owned(), 0, 2)];
            assert_eq!(shown(&hits), expected, "{sample}");
        }
    }

    #[test]
    fn connections_that_ended_count_for_the_rules_of_both_ends() {
        let rule = |index| {
            Some(DecidedBy {
                tier: Tier::NetworkPolicy,
                policy: ObjectName::new("shop", "a"),
                index,
            })
        };
        let ended = Record {
            ended: Some(Ended {
                began: jiff::Timestamp::UNIX_EPOCH,
                last_packet: jiff::Timestamp::UNIX_EPOCH,
                sent: Sent::default(),
                received: Sent::default(),
                egress_rule: rule(3),
                ingress_rule: rule(4),
            }),
            ..decided("a", 3, Outcome::Ended)
        };
        for (by_ends, sample, expected) in [
            (
                true,
                1,
                vec![(Direction::Ingress, 4, 1), (Direction::Egress, 3, 1)],
            ),
            (false, 10, vec![(record(&event()).direction, 7, 10)]),
        ] {
            let mut hits = Hits::new(10, by_ends);
            hits.count(&ended);
            hits.count(&decided("a", 7, Outcome::Forwarded));
            let told = answer(&hits);
            let rules = told
                .rules
                .iter()
                .map(|it| (it.rule.direction, it.rule.index, it.hits));
            assert_eq!(rules.collect::<Vec<_>>(), expected);
            assert_eq!(told.event_sample, sample);
        }
    }

    #[test]
    fn what_no_rule_allows_counts_for_every_policy_that_isolates() {
        let mut hits = Hits::new(10, false);
        let denied = record(&event());
        assert!(!denied.denied_by.is_empty(), "{denied:?}");
        hits.count(&denied);
        hits.count(&denied);
        let told = answer(&hits).denials;
        let told: Vec<_> = told.iter().map(|it| (&it.policy, it.packets)).collect();
        let expected: Vec<_> = denied.denied_by.iter().map(|it| (it, 2)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn connections_of_now_stand_beside_what_was_counted() {
        let mut hits = Hits::new(1, false);
        hits.count(&decided("a", 0, Outcome::Forwarded));
        let rule = |index| RuleOrigin {
            tier: Tier::NetworkPolicy,
            policy: ObjectName::new("shop", "a"),
            direction: record(&event()).direction,
            index,
        };
        let connections = [(rule(0), 3), (rule(1), 4)].into_iter().collect();
        let since = "2026-01-02T03:04:05Z".parse().unwrap();
        let told = hits.answer("n1", since, connections).rules;
        let told: Vec<_> = told
            .iter()
            .map(|it| (it.rule.index, it.hits, it.connections))
            .collect();
        assert_eq!(told, [(0, 1, 3), (1, 0, 4)]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_lost_is_told() {
        let mut hits = Hits::at_most(3, 10);
        for index in 0..100 {
            hits.count(&decided("a", index, Outcome::Forwarded));
        }
        hits.count(&decided("a", 0, Outcome::Forwarded));
        let told = answer(&hits);
        assert_eq!((told.rules.len(), told.uncounted), (3, 970));
        assert_eq!(told.rules[0].hits, 20);
    }

    #[test]
    fn counts_of_policies_that_go_or_have_other_rules_end() {
        let with = |policies: &[Policy]| {
            let policies = policies.iter();
            Snapshot {
                policies: policies
                    .map(|it| (it.name.clone(), Arc::new(it.clone())))
                    .collect(),
                ..Snapshot::default()
            }
        };
        let of = |name: &str, ingress: Vec<Rule>| Policy {
            ingress: Some(ingress),
            ..policy("shop", name, selector(&[]))
        };
        let before = with(&[of("a", vec![]), of("b", vec![]), of("c", vec![])]);
        // b has a rule more, c only another label.
        let labelled = Policy {
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..of("c", vec![])
        };
        let after = with(&[of("b", vec![Rule::default()]), labelled]);
        let mut hits = Hits::new(1, false);
        for name in ["a", "b", "c"] {
            hits.count(&decided(name, 0, Outcome::Forwarded));
            let mut denied = record(&event());
            denied.denied_by = vec![ObjectName::new("shop", name)];
            hits.count(&denied);
        }
        hits.follow(&before, &before);
        assert_eq!(shown(&hits).len(), 3);
        hits.follow(&before, &after);
        assert_eq!(shown(&hits), [("c".to_owned(), 0, 1)]);
        assert_eq!(answer(&hits).denials.len(), 1);
    }
}
