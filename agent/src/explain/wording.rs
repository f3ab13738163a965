//! Rules in words.

use crate::model::{Operator, Peer, PolicyPort, PortMatch, Requirement, Selector};

/// A peer of a rule; `None` is a rule without peers.
pub(crate) fn peer(peer: Option<&Peer>) -> String {
    match peer {
        None => "every peer".to_owned(),
        Some(Peer::Block { cidr, except }) if except.is_empty() => cidr.to_string(),
        Some(Peer::Block { cidr, except }) => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} except {}", except.join(", "))
        }
        Some(Peer::Nodes(nodes)) if nodes.requirements.is_empty() => "all nodes".to_owned(),
        Some(Peer::Nodes(nodes)) => format!("nodes {}", selector(nodes)),
        Some(Peer::Pods { namespaces, pods }) => {
            let pods = match pods {
                Some(pods) if !pods.requirements.is_empty() => format!("pods {}", selector(pods)),
                _ => "all pods".to_owned(),
            };
            match namespaces {
                None => format!("{pods} in the policy's namespace"),
                Some(namespaces) if namespaces.requirements.is_empty() => {
                    format!("{pods} in all namespaces")
                }
                Some(namespaces) => format!("{pods} in namespaces {}", selector(namespaces)),
            }
        }
    }
}

/// A port of a rule; `None` is a rule without ports.
pub(crate) fn port(port: Option<&PolicyPort>) -> String {
    let Some(PolicyPort { protocol, port }) = port else {
        return "every port".to_owned();
    };
    match port {
        PortMatch::All => format!("every {protocol} port"),
        PortMatch::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortMatch::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortMatch::Named(name) => format!("{protocol} {name}"),
    }
}

/// A label selector in kubectl's notation.
pub(crate) fn selector(selector: &Selector) -> String {
    let requirements: Vec<_> = selector.requirements.iter().map(requirement).collect();
    requirements.join(",")
}

/// One requirement in kubectl's notation.
pub(crate) fn requirement(requirement: &Requirement) -> String {
    let key = &requirement.key;
    let list = |values: &std::collections::BTreeSet<String>| {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        values.join(",")
    };
    match &requirement.operator {
        Operator::In(values) if values.len() == 1 => format!("{key}={}", list(values)),
        Operator::In(values) => format!("{key} in ({})", list(values)),
        Operator::NotIn(values) if values.len() == 1 => format!("{key}!={}", list(values)),
        Operator::NotIn(values) => format!("{key} notin ({})", list(values)),
        Operator::Exists => key.clone(),
        Operator::DoesNotExist => format!("!{key}"),
    }
}
