//! The verdict on a flow.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};

use crate::pods::{labels, namespace, node};
use crate::{
    Cluster, ClusterTier, DirectionVerdict, Exemption, Flow, Judgement, PolicyRef, RuleRef,
};
use crate::{owner, peers, ports, selects, tiers};

/// Judges `flow` as its observer node must: the egress of that node's pods and the ingress of that
/// node's pods.
pub fn judge(cluster: &Cluster, flow: &Flow) -> Judgement {
    judge_ends(cluster, flow, |pod| node(pod) == Some(&flow.observer_node))
}

/// Judges both ends of `flow` wherever they run. The observer node then only says where a packet
/// with `born_on_node` was born.
pub fn judge_cluster_wide(cluster: &Cluster, flow: &Flow) -> Judgement {
    judge_ends(cluster, flow, |_| true)
}

fn judge_ends(cluster: &Cluster, flow: &Flow, judged_here: impl Fn(&Pod) -> bool) -> Judgement {
    // What the host sends is not sent by a pod, whatever source address it bears.
    let source = owner(cluster, flow.source).filter(|_| !flow.born_on_node);
    let destination = owner(cluster, flow.destination);
    let itself = source
        .zip(destination)
        .is_some_and(|(from, to)| std::ptr::eq(from, to));
    let itself = itself.then_some(Exemption::PodToItself);
    let ends = Ends {
        cluster,
        flow,
        destination,
    };
    Judgement {
        egress: source
            .filter(|pod| judged_here(pod))
            .map(|pod| ends.verdict(Direction::Egress, pod, itself)),
        ingress: destination.filter(|pod| judged_here(pod)).map(|pod| {
            let own_node = flow.born_on_node && node(pod) == Some(&flow.observer_node);
            ends.verdict(
                Direction::Ingress,
                pod,
                itself.or(own_node.then_some(Exemption::FromOwnNode)),
            )
        }),
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Egress,
    Ingress,
}

/// A rule of either direction: `from` and `to` are both peers.
struct Rule<'a> {
    peers: Option<&'a [NetworkPolicyPeer]>,
    ports: Option<&'a [NetworkPolicyPort]>,
}

struct Ends<'a> {
    cluster: &'a Cluster,
    flow: &'a Flow,
    destination: Option<&'a Pod>,
}

impl Ends<'_> {
    fn verdict(
        &self,
        direction: Direction,
        subject: &Pod,
        exempt: Option<Exemption>,
    ) -> DirectionVerdict {
        let mut isolating = Vec::new();
        let mut allowing = Vec::new();
        let empty = NetworkPolicySpec::default();
        for policy in &self.cluster.policies {
            let spec = policy.spec.as_ref().unwrap_or(&empty);
            if !applies_to(policy, spec, subject) || !affects(spec, direction) {
                continue;
            }
            let reference = PolicyRef {
                namespace: namespace(&policy.metadata).to_owned(),
                name: policy.metadata.name.clone().unwrap_or_default(),
            };
            for (rule, body) in rules(spec, direction).into_iter().enumerate() {
                if self.rule_matches(direction, &reference.namespace, &body) {
                    allowing.push(RuleRef {
                        policy: reference.clone(),
                        rule,
                    });
                }
            }
            isolating.push(reference);
        }
        isolating.sort();
        allowing.sort();
        let tier = |tier| tiers::first_match(self.cluster, tier, direction, subject, self.flow);
        let mut verdict = DirectionVerdict {
            allowed: exempt.is_some(),
            admin: tier(ClusterTier::Admin),
            isolating,
            allowing,
            baseline: tier(ClusterTier::Baseline),
            exempt,
        };
        verdict.allowed |= verdict.policies_allow();
        verdict
    }

    fn rule_matches(&self, direction: Direction, policy_namespace: &str, rule: &Rule<'_>) -> bool {
        let peer: IpAddr = match direction {
            Direction::Egress => self.flow.destination,
            Direction::Ingress => self.flow.source,
        };
        ports::match_flow(rule.ports, self.flow, self.destination)
            && peers::match_address(self.cluster, policy_namespace, rule.peers, peer)
    }
}

/// Whether the policy selects the pod. An absent `podSelector` is an empty one.
fn applies_to(policy: &NetworkPolicy, spec: &NetworkPolicySpec, pod: &Pod) -> bool {
    namespace(&policy.metadata) == namespace(&pod.metadata)
        && spec
            .pod_selector
            .as_ref()
            .is_none_or(|selector| selects(selector, labels(&pod.metadata)))
}

/// Whether the policy isolates the pods it selects in this direction. Without `policyTypes` it is
/// an ingress policy, and an egress policy if it has an egress rule.
fn affects(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|name| name == "Ingress"),
        Direction::Egress if types.is_empty() => {
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
        }
        Direction::Egress => types.iter().any(|name| name == "Egress"),
    }
}

fn rules(spec: &NetworkPolicySpec, direction: Direction) -> Vec<Rule<'_>> {
    match direction {
        Direction::Egress => spec
            .egress
            .iter()
            .flatten()
            .map(|rule| Rule {
                peers: rule.to.as_deref(),
                ports: rule.ports.as_deref(),
            })
            .collect(),
        Direction::Ingress => spec
            .ingress
            .iter()
            .flatten()
            .map(|rule| Rule {
                peers: rule.from.as_deref(),
                ports: rule.ports.as_deref(),
            })
            .collect(),
    }
}
