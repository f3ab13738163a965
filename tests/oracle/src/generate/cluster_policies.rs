//! ClusterNetworkPolicies of both tiers whose rules meet, pass on, and overrule each other.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::json;

use super::lattice;
use super::policies::{PORT_NAMES, PORTS, RANGES, namespace_selector, selector};
use super::random::Random;
use crate::cluster_policy::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterPeer,
    ClusterPolicySpec, ClusterPort, ClusterProtocol, ClusterSubject, ClusterTier, ClusterTransport,
    NamespacedPod,
};

/// One more than the greatest priority.
const PRIORITIES: usize = 1001;

/// None to four policies, in half of all clusters none. Priorities differ within a tier: what equal
/// ones mean is open.
pub(super) fn policies(random: &mut Random, pods: &[Pod]) -> Vec<ClusterNetworkPolicy> {
    let count = random.below(9).saturating_sub(4);
    let mut policies: Vec<ClusterNetworkPolicy> = Vec::with_capacity(count);
    while policies.len() < count {
        let tier = *random.pick(&[ClusterTier::Admin, ClusterTier::Baseline]);
        let priority = random.below(PRIORITIES) as i32;
        let taken = |policy: &ClusterNetworkPolicy| {
            (policy.spec.tier, policy.spec.priority) == (tier, priority)
        };
        if policies.iter().any(taken) {
            continue;
        }
        let number = policies.len();
        policies.push(ClusterNetworkPolicy {
            metadata: ObjectMeta {
                name: Some(format!("cluster-{number}")),
                uid: Some(format!("cluster-policy-{number}")),
                ..ObjectMeta::default()
            },
            spec: ClusterPolicySpec {
                tier,
                priority,
                subject: subject(random),
                ingress: random.list(4, ingress_rule).unwrap_or_default(),
                egress: random
                    .list(4, |random| egress_rule(random, pods))
                    .unwrap_or_default(),
            },
        });
    }
    policies
}

/// Mostly many pods: verdicts are interesting only for those that are selected.
fn subject(random: &mut Random) -> ClusterSubject {
    match random.below(4) {
        0 => ClusterSubject::Namespaces(LabelSelector::default()),
        1 => ClusterSubject::Namespaces(namespace_selector(random)),
        2 => ClusterSubject::Pods(NamespacedPod {
            pod_selector: selector(random),
            ..NamespacedPod::default()
        }),
        _ => ClusterSubject::Pods(namespaced_pod(random)),
    }
}

fn namespaced_pod(random: &mut Random) -> NamespacedPod {
    NamespacedPod {
        namespace_selector: namespace_selector(random),
        pod_selector: selector(random),
    }
}

fn action(random: &mut Random) -> ClusterAction {
    *random.pick(&[
        ClusterAction::Accept,
        ClusterAction::Deny,
        ClusterAction::Pass,
    ])
}

fn ingress_rule(random: &mut Random) -> ClusterIngressRule {
    ClusterIngressRule {
        action: action(random),
        from: some(random, pods_peer),
        protocols: protocols(random, true),
    }
}

/// Names of ports and peers that are no pods do not go together.
fn egress_rule(random: &mut Random, pods: &[Pod]) -> ClusterEgressRule {
    let pods_only = random.one_in(2);
    ClusterEgressRule {
        action: action(random),
        to: some(random, |random| match random.below(8) {
            _ if pods_only => pods_peer(random),
            0 | 1 => ClusterPeer::Nodes(selector(random)),
            2..=5 => ClusterPeer::Networks(some(random, |random| lattice::network(random, pods))),
            6 if random.one_in(4) => ClusterPeer::DomainNames(vec!["*.example.com".to_owned()]),
            _ => pods_peer(random),
        }),
        protocols: protocols(random, pods_only),
    }
}

fn pods_peer(random: &mut Random) -> ClusterPeer {
    match random.below(40) {
        0 => ClusterPeer::Unknown(json!({"serviceAccounts": {}})),
        1..=19 => ClusterPeer::Namespaces(namespace_selector(random)),
        _ => ClusterPeer::Pods(namespaced_pod(random)),
    }
}

/// One to three items.
fn some<T>(random: &mut Random, mut item: impl FnMut(&mut Random) -> T) -> Vec<T> {
    let length = random.between(1, 3);
    (0..length).map(|_| item(random)).collect()
}

fn protocols(random: &mut Random, with_names: bool) -> Vec<ClusterProtocol> {
    if random.one_in(3) {
        return Vec::new();
    }
    some(random, |random| protocol(random, with_names))
}

fn protocol(random: &mut Random, with_names: bool) -> ClusterProtocol {
    match random.below(40) {
        0 => return ClusterProtocol::Unknown(json!({"icmp": {"type": 8}})),
        1..=12 if with_names => {
            return ClusterProtocol::DestinationNamedPort((*random.pick(&PORT_NAMES)).to_owned());
        }
        _ => {}
    }
    let destination_port = if random.one_in(2) {
        ClusterPort::Number(*random.pick(&PORTS))
    } else {
        let ranges = RANGES.iter().filter(|(start, end)| start < end);
        let ranges: Vec<_> = ranges.collect();
        let &&(start, end) = random.pick(&ranges);
        ClusterPort::Range { start, end }
    };
    let of = *random.pick(&[
        ClusterProtocol::Tcp as fn(ClusterTransport) -> ClusterProtocol,
        ClusterProtocol::Udp,
        ClusterProtocol::Sctp,
    ]);
    of(ClusterTransport { destination_port })
}
