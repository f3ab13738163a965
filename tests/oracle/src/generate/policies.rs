//! Policies that select, overlap and leave out fields in every way that validation lets through.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::random::Random;
use super::{LABELS, lattice};

/// Ranges that touch, overlap, and reach both ends of the port space.
pub(super) const RANGES: [(i32, i32); 7] = [
    (80, 80),
    (80, 81),
    (82, 443),
    (443, 8080),
    (8080, 8443),
    (1, 65535),
    (65535, 65535),
];
pub(super) const PORTS: [i32; 6] = [1, 53, 80, 443, 8080, 65535];
pub(super) const PORT_NAMES: [&str; 4] = ["web", "dns", "metrics", "nowhere"];

/// None to six policies over the namespaces; equal names meet in several of them.
pub(super) fn policies(
    random: &mut Random,
    namespaces: &[&str],
    pods: &[Pod],
) -> Vec<NetworkPolicy> {
    let count = random.below(7);
    let mut policies: Vec<NetworkPolicy> = Vec::with_capacity(count);
    for number in 0..count {
        let namespace = Some((*random.pick(namespaces)).to_owned());
        let earlier = policies
            .iter()
            .filter(|policy| policy.metadata.namespace == namespace)
            .count();
        let metadata = ObjectMeta {
            namespace,
            name: Some(format!("policy-{earlier}")),
            uid: Some(format!("policy-{number}")),
            ..ObjectMeta::default()
        };
        policies.push(NetworkPolicy {
            metadata,
            spec: Some(spec(random, pods)),
        });
    }
    policies
}

fn spec(random: &mut Random, pods: &[Pod]) -> NetworkPolicySpec {
    let types: Option<&[&str]> = match random.below(8) {
        0 => None,
        1 => Some(&[]),
        2 | 3 => Some(&["Ingress"]),
        4 | 5 => Some(&["Egress"]),
        6 => Some(&["Ingress", "Egress"]),
        _ => Some(&["Egress", "Ingress"]),
    };
    NetworkPolicySpec {
        pod_selector: subject(random),
        policy_types: types.map(|types| types.iter().map(|&name| name.to_owned()).collect()),
        ingress: random.list(3, |random| NetworkPolicyIngressRule {
            from: random.list(3, |random| peer(random, pods)),
            ports: random.list(3, port),
        }),
        egress: random.list(3, |random| NetworkPolicyEgressRule {
            to: random.list(3, |random| peer(random, pods)),
            ports: random.list(3, port),
        }),
    }
}

/// Mostly a wide selector: verdicts are interesting only for pods that are selected.
fn subject(random: &mut Random) -> Option<LabelSelector> {
    match random.below(8) {
        0 => None,
        1..=3 => Some(LabelSelector::default()),
        _ => Some(selector(random)),
    }
}

fn peer(random: &mut Random, pods: &[Pod]) -> NetworkPolicyPeer {
    let mut peer = NetworkPolicyPeer::default();
    match random.below(6) {
        0 => peer.pod_selector = Some(selector(random)),
        1 => peer.namespace_selector = Some(namespace_selector(random)),
        2 => {
            peer.namespace_selector = Some(namespace_selector(random));
            peer.pod_selector = Some(selector(random));
        }
        _ => peer.ip_block = Some(lattice::block(random, pods)),
    }
    peer
}

pub(super) fn namespace_selector(random: &mut Random) -> LabelSelector {
    if !random.one_in(4) {
        return selector(random);
    }
    let name = *random.pick(&["red", "green", "blue", "grey"]);
    let labels = [("kubernetes.io/metadata.name".to_owned(), name.to_owned())];
    LabelSelector {
        match_labels: Some(labels.into()),
        match_expressions: None,
    }
}

/// An empty selector, or one or two requirements in either notation.
pub(super) fn selector(random: &mut Random) -> LabelSelector {
    let mut selector = LabelSelector::default();
    match random.below(5) {
        0 => {}
        1 | 2 => selector.match_labels = Some([label(random)].into()),
        3 => selector.match_expressions = Some(vec![requirement(random)]),
        _ => {
            selector.match_labels = Some([label(random)].into());
            selector.match_expressions = Some(vec![requirement(random)]);
        }
    }
    selector
}

fn label(random: &mut Random) -> (String, String) {
    let (key, values) = random.pick(&LABELS);
    ((*key).to_owned(), (*random.pick(values)).to_owned())
}

fn requirement(random: &mut Random) -> LabelSelectorRequirement {
    let (key, value) = label(random);
    let (operator, values) = match random.below(6) {
        0 => ("In", Some(vec![value])),
        1 => ("In", Some(vec![value, "other".to_owned()])),
        // Stored before labels were validated in selectors; no object bears it.
        2 => ("In", Some(vec!["no label, surely".to_owned(), value])),
        3 => ("NotIn", Some(vec![value])),
        4 => ("Exists", None),
        _ => ("DoesNotExist", Some(Vec::new())),
    };
    LabelSelectorRequirement {
        key,
        operator: operator.to_owned(),
        values,
    }
}

fn port(random: &mut Random) -> NetworkPolicyPort {
    let protocol = random
        .pick(&[None, Some("TCP"), Some("UDP"), Some("SCTP")])
        .map(str::to_owned);
    let (port, end_port) = match random.below(8) {
        0 => (None, None),
        1..=3 => (Some(IntOrString::Int(*random.pick(&PORTS))), None),
        4 | 5 => (
            Some(IntOrString::String((*random.pick(&PORT_NAMES)).to_owned())),
            None,
        ),
        _ => {
            let &(first, last) = random.pick(&RANGES);
            (Some(IntOrString::Int(first)), Some(last))
        }
    };
    NetworkPolicyPort {
        port,
        end_port,
        protocol,
    }
}
