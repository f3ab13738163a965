//! One Service or policy in full.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

use serde::Serialize;

use super::lists::traffic_policy;
use super::table::{cell, labels, table};
use crate::admin::{Rejection, ServiceRow};
use crate::compile::Clients;
use crate::explain::{EndpointAnswer, PeerDetails, PolicyDetails, RuleDetails};
use crate::model::Tier;

/// Names that a line has.
const NAMES: usize = 5;

/// `weir policy show`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownPolicy {
    /// The policy.
    #[serde(flatten)]
    pub details: PolicyDetails,
    /// What of it is not used, and why.
    pub rejections: Vec<Rejection>,
}

/// `weir service show`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownService {
    /// Its addresses and ports, at least one.
    pub frontends: Vec<ServiceRow>,
    /// What of it is not used, and why.
    pub rejections: Vec<Rejection>,
}

/// `weir policy show`.
#[must_use]
pub fn policy(shown: &ShownPolicy) -> String {
    let it = &shown.details;
    // Writing to a String cannot fail.
    let mut text = String::new();
    let kind = match it.tier {
        Tier::NetworkPolicy => "NetworkPolicy",
        Tier::Admin | Tier::Baseline => "ClusterNetworkPolicy",
    };
    let _ = writeln!(text, "{kind} {}", it.policy);
    if let Some(priority) = it.priority {
        let _ = writeln!(text, "Tier:     {}, priority {priority}", it.tier.as_str());
    }
    let _ = writeln!(text, "Labels:   {}", labels(&it.labels));
    let _ = writeln!(text, "For:      {}", it.subject);
    let _ = writeln!(text, "Pods now: {}", names(&it.pods, "pods"));
    for (direction, word, rules) in [
        ("Ingress", "from", &it.ingress),
        ("Egress", "to", &it.egress),
    ] {
        let title = format!("{direction}:");
        let says = match (rules.as_deref(), it.tier) {
            (None, _) => "says nothing",
            (Some([]), _) => "isolates, and allows nothing",
            (Some(_), Tier::NetworkPolicy) => "isolates, and allows",
            (Some(_), _) => "the first rule that matches counts",
        };
        let _ = writeln!(text, "{title:<10}{says}");
        for (index, rule) in rules.iter().flatten().enumerate() {
            policy_rule(&mut text, index, rule, word);
        }
    }
    rejected(&mut text, &shown.rejections);
    text
}

fn policy_rule(text: &mut String, index: usize, rule: &RuleDetails, word: &str) {
    let action = rule.action.map(|action| format!("{} ", action.as_str()));
    let name = match rule.name.as_str() {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    let nobody = if rule.matches_nobody() {
        ": matches nobody now"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "  [{index}] {}{}{name}{nobody}",
        action.unwrap_or_default(),
        rule.ports.join(", ")
    );
    for peer in &rule.peers {
        let _ = writeln!(text, "      {word} {}{}", peer.peer, found(peer));
    }
}

/// Who a peer is now.
fn found(peer: &PeerDetails) -> String {
    let mut found = Vec::new();
    if let Some(namespaces) = &peer.namespaces {
        found.push(format!("namespaces {}", names(namespaces, "namespaces")));
    }
    if peer.is_nobody {
        found.push("nobody".to_owned());
    }
    if !peer.pods.is_empty() {
        found.push(format!("pods {}", names(&peer.pods, "pods")));
    }
    if !peer.nodes.is_empty() {
        found.push(format!("nodes {}", names(&peer.nodes, "nodes")));
    }
    if found.is_empty() {
        return String::new();
    }
    format!(" = {}", found.join("; "))
}

/// The first names, and how many there are.
fn names<T: Display>(names: &[T], what: &str) -> String {
    let more = names.len().saturating_sub(NAMES);
    let first = cell(names.iter().take(NAMES)).replace(',', ", ");
    match more {
        0 => first,
        _ => format!("{first} and {more} more {what}"),
    }
}

/// `weir service show`.
#[must_use]
pub fn service(shown: &ShownService) -> String {
    let mut text = String::new();
    if let Some(first) = shown.frontends.first() {
        let affinity = match first.affinity_seconds {
            Some(seconds) => format!("ClientIP, {seconds}s"),
            None => "none".to_owned(),
        };
        let policies = format!(
            "internal {}, external {}",
            traffic_policy(first.internal_traffic_policy),
            traffic_policy(first.external_traffic_policy)
        );
        let _ = writeln!(text, "Service {}", first.translation.service);
        for (name, value) in [
            ("Labels", labels(&first.labels)),
            ("Selector", labels(&first.selector)),
            ("Traffic policies", policies),
            ("Affinity", affinity),
            ("Seen from node", first.translation.node.clone()),
        ] {
            let _ = writeln!(text, "{:<18}{value}", format!("{name}:"));
        }
    }
    for row in &shown.frontends {
        let it = &row.translation;
        let clients = match it.clients {
            None => "",
            Some(Clients::Inside) => ", for clients inside,",
            Some(Clients::Outside) => ", for clients outside,",
        };
        let _ = writeln!(
            text,
            "\n{} {}/{}{clients} to port {}",
            it.kind,
            SocketAddr::new(it.address, it.port),
            it.protocol,
            cell(&it.target_port)
        );
        if !it.source_ranges.is_empty() {
            let _ = writeln!(text, "  only from {}", cell(&it.source_ranges));
        }
        for note in it.problem.iter().chain(&it.warning) {
            let _ = writeln!(text, "  {note}");
        }
        if !it.endpoints.is_empty() {
            let header = ["ENDPOINT", "POD", "NODE", "STATE", "USED"];
            text += &table("  ", &header, it.endpoints.iter().map(endpoint));
        }
    }
    rejected(&mut text, &shown.rejections);
    text
}

fn endpoint(it: &EndpointAnswer) -> Vec<String> {
    let address = match it.port {
        Some(port) => SocketAddr::new(it.address, port).to_string(),
        None => it.address.to_string(),
    };
    let state = match (it.ready, it.serving, it.terminating) {
        (true, ..) => "ready",
        (false, true, true) => "terminating, serving",
        (false, false, true) => "terminating",
        (false, ..) => "not ready",
    };
    let used = match &it.excluded {
        None => "yes".to_owned(),
        Some(why) => format!("no: {why}"),
    };
    vec![
        address,
        cell(&it.pod),
        cell(&it.node),
        state.to_owned(),
        used,
    ]
}

fn rejected(text: &mut String, rejections: &[Rejection]) {
    for rejection in rejections {
        let _ = writeln!(text, "\nNot used: {}", rejection.message);
    }
}
