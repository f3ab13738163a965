//! Rules that decide nothing, because another one decides it already.

use super::{Finding, Guard, Touched};
use crate::model::{Direction, Peer, PolicyPort, PortMatch, Requirement, Rule, Selector};

pub(super) fn findings(touched: &[Touched<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in touched {
        for direction in [Direction::Ingress, Direction::Egress] {
            let is_ordered = matches!(policy, Touched::Cluster(_));
            for (index, other) in shadowed(&policy.rules(direction), is_ordered) {
                let (name, direction) = (policy.name(), direction.as_str());
                findings.push(Finding {
                    guard: Guard::Shadowed,
                    message: format!(
                        "{direction}[{index}] of policy {name} decides nothing: {direction}[{other}] matches all that it does"
                    ),
                    hint: "take it out, or narrow the other one".to_owned(),
                    policies: vec![name.clone()],
                    locations: Vec::new(),
                    fixes: Vec::new(),
                });
            }
        }
    }
    findings
}

/// The rules of one policy and direction that decide nothing, each with one that matches all that it does. Where the order of rules means
/// nothing, of two that say the same the later one is told of.
pub(in crate::review) fn shadowed(rules: &[&Rule], is_ordered: bool) -> Vec<(usize, usize)> {
    let rules = || rules.iter().enumerate();
    let by = |(index, rule): (usize, &&Rule)| {
        let mut others = rules().filter(|(other, _)| {
            if is_ordered {
                *other < index
            } else {
                *other != index
            }
        });
        let covered =
            others.find(|(other, it)| covers(it, rule) && (*other < index || !covers(rule, it)));
        covered.map(|(other, _)| (index, other))
    };
    rules().filter_map(by).collect()
}

/// Whether one rule surely matches all that another does, whatever pods there are.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let peers = wide.peers.is_empty()
        || !narrow.peers.is_empty()
            && (narrow.peers.iter()).all(|peer| wide.peers.iter().any(|it| covers_peer(it, peer)));
    let ports = wide.ports.is_empty()
        || !narrow.ports.is_empty()
            && (narrow.ports.iter()).all(|port| wide.ports.iter().any(|it| covers_port(it, port)));
    peers && ports
}

fn covers_peer(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (
            Peer::Pods { namespaces, pods },
            Peer::Pods {
                namespaces: narrow_namespaces,
                pods: narrow_pods,
            },
        ) => {
            let same_namespaces = match (namespaces, narrow_namespaces) {
                (None, None) => true,
                (Some(wide), Some(narrow)) => covers_selector(wide, narrow),
                // The policy's own namespace may have any labels.
                (Some(wide), None) => wide.requirements.is_empty(),
                (None, Some(_)) => false,
            };
            let pods = pods.as_ref().is_none_or(|wide| {
                let narrow = narrow_pods.as_ref();
                let everything = wide.requirements.is_empty();
                everything || narrow.is_some_and(|narrow| covers_selector(wide, narrow))
            });
            same_namespaces && pods
        }
        (
            Peer::Block { cidr, except },
            Peer::Block {
                cidr: narrow,
                except: narrow_except,
            },
        ) => {
            let inside = cidr.is_ipv4() == narrow.is_ipv4()
                && cidr.prefix() <= narrow.prefix()
                && cidr.contains(narrow.network());
            // What the wide one leaves out must be left out, or outside of it.
            let left_out = except.iter().all(|hole| {
                narrow_except.contains(hole)
                    || !hole.contains(narrow.network()) && !narrow.contains(hole.network())
            });
            inside && left_out
        }
        (Peer::Nodes(wide), Peer::Nodes(narrow)) => covers_selector(wide, narrow),
        _ => false,
    }
}

/// Every requirement of the wide one is one of the narrow one's.
fn covers_selector(wide: &Selector, narrow: &Selector) -> bool {
    let has = |it: &Requirement| narrow.requirements.contains(it);
    wide.requirements.iter().all(has)
}

fn covers_port(wide: &PolicyPort, narrow: &PolicyPort) -> bool {
    wide.protocol == narrow.protocol
        && match (&wide.port, &narrow.port) {
            (PortMatch::All, _) => true,
            (PortMatch::Range(first, last), PortMatch::Range(from, to)) => {
                first <= from && to <= last
            }
            (wide, narrow) => wide == narrow,
        }
}
