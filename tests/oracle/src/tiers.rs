//! Which rule of a tier of ClusterNetworkPolicies is the first that matches.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster_policy::{
    ClusterAction, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterProtocol, ClusterSubject,
    ClusterTier, ClusterTransport, NamespacedPod,
};
use crate::judge::Direction;
use crate::peers::namespace_selected;
use crate::pods::{labels, namespace};
use crate::{
    Cluster, ClusterRuleRef, Flow, owner, parse_address, parse_network, ports, protocol, selects,
};

/// A rule of either direction.
struct Rule<'a> {
    action: ClusterAction,
    peers: &'a [ClusterPeer],
    protocols: &'a [ClusterProtocol],
}

/// The first rule of the tier that matches the flow at its end `subject`.
///
/// Policies are in order of priority, and of one priority in order of name: the API leaves that
/// open. Of a policy's rules the first counts.
pub(crate) fn first_match(
    cluster: &Cluster,
    tier: ClusterTier,
    direction: Direction,
    subject: &Pod,
    flow: &Flow,
) -> Option<ClusterRuleRef> {
    let mut policies: Vec<&ClusterNetworkPolicy> = cluster
        .cluster_policies
        .iter()
        .filter(|policy| {
            policy.spec.tier == tier && subject_holds(cluster, &policy.spec.subject, subject)
        })
        .collect();
    policies.sort_by_key(|policy| (policy.spec.priority, &policy.metadata.name));
    policies.into_iter().find_map(|policy| {
        rules(policy, direction)
            .into_iter()
            .enumerate()
            .find_map(|(index, rule)| {
                let action = outcome(cluster, direction, &rule, flow)?;
                Some(ClusterRuleRef {
                    policy: policy.metadata.name.clone().unwrap_or_default(),
                    rule: index,
                    action,
                })
            })
    })
}

fn rules(policy: &ClusterNetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    match direction {
        Direction::Ingress => policy
            .spec
            .ingress
            .iter()
            .map(|rule| Rule {
                action: rule.action,
                peers: &rule.from,
                protocols: &rule.protocols,
            })
            .collect(),
        Direction::Egress => policy
            .spec
            .egress
            .iter()
            .map(|rule| Rule {
                action: rule.action,
                peers: &rule.to,
                protocols: &rule.protocols,
            })
            .collect(),
    }
}

/// What the rule does with the flow; `None` if it does not match.
///
/// A rule that somebody cannot read fails closed: "For "Accept" rules, "fail closed" means:
/// "treat the rule as matching no traffic". For "Deny" and "Pass" rules, "fail closed" means:
/// "treat the rule as a 'Deny all' rule"."
fn outcome(
    cluster: &Cluster,
    direction: Direction,
    rule: &Rule<'_>,
    flow: &Flow,
) -> Option<ClusterAction> {
    let unreadable = rule.peers.is_empty()
        || rule.peers.iter().any(|peer| match peer {
            // Not followed yet, so as good as unknown.
            ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => true,
            ClusterPeer::Nodes(_) => direction == Direction::Ingress,
            ClusterPeer::Networks(networks) => {
                direction == Direction::Ingress
                    || networks.is_empty()
                    || networks
                        .iter()
                        .any(|network| parse_network(network).is_none())
            }
            ClusterPeer::Namespaces(_) | ClusterPeer::Pods(_) => false,
        })
        || rule
            .protocols
            .iter()
            .any(|protocol| matches!(protocol, ClusterProtocol::Unknown(_)));
    if unreadable {
        return (rule.action != ClusterAction::Accept).then_some(ClusterAction::Deny);
    }
    let matches = rule
        .peers
        .iter()
        .any(|peer| peer_matches(cluster, direction, peer, flow))
        && (rule.protocols.is_empty()
            || rule
                .protocols
                .iter()
                .any(|protocol| protocol_matches(cluster, protocol, flow)));
    matches.then_some(rule.action)
}

fn subject_holds(cluster: &Cluster, subject: &ClusterSubject, pod: &Pod) -> bool {
    match subject {
        ClusterSubject::Namespaces(namespaces) => in_namespaces(cluster, namespaces, pod),
        ClusterSubject::Pods(selectors) => pod_selected(cluster, selectors, pod),
    }
}

fn in_namespaces(cluster: &Cluster, selector: &LabelSelector, pod: &Pod) -> bool {
    namespace_selected(cluster, selector, namespace(&pod.metadata))
}

fn pod_selected(cluster: &Cluster, selectors: &NamespacedPod, pod: &Pod) -> bool {
    in_namespaces(cluster, &selectors.namespace_selector, pod)
        && selects(&selectors.pod_selector, labels(&pod.metadata))
}

fn peer_matches(cluster: &Cluster, direction: Direction, peer: &ClusterPeer, flow: &Flow) -> bool {
    let address = match direction {
        Direction::Egress => flow.destination,
        Direction::Ingress => flow.source,
    };
    match peer {
        ClusterPeer::Namespaces(namespaces) => {
            owner(cluster, address).is_some_and(|pod| in_namespaces(cluster, namespaces, pod))
        }
        ClusterPeer::Pods(selectors) => {
            owner(cluster, address).is_some_and(|pod| pod_selected(cluster, selectors, pod))
        }
        ClusterPeer::Nodes(selector) => cluster.nodes.iter().any(|node| {
            let shown = node.status.iter().flat_map(|status| &status.addresses);
            selects(selector, labels(&node.metadata))
                && shown
                    .flatten()
                    .any(|entry| parse_address(&entry.address) == Some(address))
        }),
        ClusterPeer::Networks(networks) => networks
            .iter()
            .filter_map(|network| parse_network(network))
            .any(|network| network.contains(address)),
        ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => false,
    }
}

fn protocol_matches(cluster: &Cluster, wanted: &ClusterProtocol, flow: &Flow) -> bool {
    let port = i32::from(flow.destination_port);
    let transport = |number: u8, transport: &ClusterTransport| {
        flow.protocol == number
            && match transport.destination_port {
                ClusterPort::Number(wanted) => port == wanted,
                ClusterPort::Range { start, end } => (start..=end).contains(&port),
            }
    };
    match wanted {
        ClusterProtocol::Tcp(wanted) => transport(protocol::TCP, wanted),
        ClusterProtocol::Udp(wanted) => transport(protocol::UDP, wanted),
        ClusterProtocol::Sctp(wanted) => transport(protocol::SCTP, wanted),
        ClusterProtocol::DestinationNamedPort(name) => owner(cluster, flow.destination)
            .is_some_and(|pod| ports::named_port(pod, name, flow.protocol) == Some(port)),
        ClusterProtocol::Unknown(_) => false,
    }
}
