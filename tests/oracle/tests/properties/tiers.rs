//! Changes to ClusterNetworkPolicies that must not change a verdict.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use weir_oracle::generate::{cluster, flows};
use weir_oracle::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterPeer,
    ClusterPolicySpec, ClusterSubject, ClusterTier, judge, parse_network,
};

use crate::metamorphic::verdicts_survive;

#[test]
fn order_counts_between_rules_only() {
    verdicts_survive(|cluster| {
        cluster.cluster_policies.reverse();
        for ClusterNetworkPolicy { spec, .. } in &mut cluster.cluster_policies {
            for rule in &mut spec.ingress {
                rule.from.reverse();
                rule.protocols.reverse();
            }
            for rule in &mut spec.egress {
                rule.to.reverse();
                rule.protocols.reverse();
            }
        }
    });
}

#[test]
fn a_network_means_the_network_it_lies_in() {
    verdicts_survive(|cluster| {
        let policies = cluster.cluster_policies.iter_mut();
        let rules = policies.flat_map(|policy| &mut policy.spec.egress);
        for peer in rules.flat_map(|rule| &mut rule.to) {
            if let ClusterPeer::Networks(networks) = peer {
                for network in networks {
                    *network = parse_network(network).expect("a CIDR").to_string();
                }
            }
        }
    });
}

#[test]
fn a_policy_equals_its_rules_each_in_a_policy_of_its_own() {
    verdicts_survive(|cluster| {
        let mut split = Vec::new();
        for policy in &cluster.cluster_policies {
            let mut add = |index: usize, ingress, egress| {
                let name = format!("{}-{}", policy.spec.priority, split.len());
                let spec = ClusterPolicySpec {
                    priority: policy.spec.priority * 100 + index as i32,
                    ingress,
                    egress,
                    ..policy.spec.clone()
                };
                let metadata = ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                };
                split.push(ClusterNetworkPolicy { metadata, spec });
            };
            for (index, rule) in policy.spec.ingress.iter().enumerate() {
                add(index, vec![rule.clone()], Vec::new());
            }
            for (index, rule) in policy.spec.egress.iter().enumerate() {
                add(index, Vec::new(), vec![rule.clone()]);
            }
        }
        cluster.cluster_policies = split;
    });
}

/// A policy of this tier that comes first or last, for all pods and every pod as peer and, for egress, every address.
fn of_all(tier: ClusterTier, priority: i32, action: ClusterAction) -> ClusterNetworkPolicy {
    let pods = || vec![ClusterPeer::Namespaces(LabelSelector::default())];
    let world = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    ClusterNetworkPolicy {
        metadata: ObjectMeta {
            name: Some("of-all".to_owned()),
            ..ObjectMeta::default()
        },
        spec: ClusterPolicySpec {
            tier,
            priority,
            subject: ClusterSubject::Namespaces(LabelSelector::default()),
            ingress: vec![ClusterIngressRule {
                action,
                from: pods(),
                protocols: Vec::new(),
            }],
            egress: vec![ClusterEgressRule {
                action,
                to: vec![ClusterPeer::Networks(world.to_vec())],
                protocols: Vec::new(),
            }],
        },
    }
}

#[test]
fn a_pass_at_the_end_of_a_tier_changes_nothing() {
    verdicts_survive(|cluster| {
        let mut admin = of_all(ClusterTier::Admin, 5000, ClusterAction::Pass);
        let mut baseline = of_all(ClusterTier::Baseline, 5000, ClusterAction::Pass);
        for (policy, name) in [(&mut admin, "last-admin"), (&mut baseline, "last-baseline")] {
            policy.metadata.name = Some(name.to_owned());
        }
        cluster.cluster_policies.extend([admin, baseline]);
    });
}

#[test]
fn where_network_policies_isolate_the_baseline_does_not_matter() {
    let mut compared = [0, 0];
    for seed in 0..60 {
        let before = cluster(seed);
        let mut after = before.clone();
        let deny = of_all(ClusterTier::Baseline, -1, ClusterAction::Deny);
        after.cluster_policies.push(deny);
        for flow in flows(&before) {
            let (old, new) = (judge(&before, &flow), judge(&after, &flow));
            for (old, new) in [(old.egress, new.egress), (old.ingress, new.ingress)] {
                let (Some(old), Some(new)) = (old, new) else {
                    continue;
                };
                let isolated = !old.isolating.is_empty();
                if isolated {
                    assert_eq!(old.decider(), new.decider(), "seed {seed}, {flow:?}");
                }
                assert!(old.allowed || !new.allowed, "seed {seed}, {flow:?}");
                compared[usize::from(isolated)] += 1;
            }
        }
    }
    assert!(compared.iter().all(|&count| count > 1000), "{compared:?}");
}
