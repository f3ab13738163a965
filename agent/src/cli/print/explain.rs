//! An explanation as text.

use std::fmt::Write;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::evidence::evidence;
use super::table::{cell, table, yes};
use crate::admin::Evidence;
use crate::compile::{Claim, Clients};
use crate::explain::{
    Explanation, Flow, Note, Place, PlaceKind, Side, SideOutcome, TierMatch, Translation, Verdict,
};
use crate::model::{Direction, Protocol};

/// How many near misses people want to read.
const NEAREST: usize = 3;

/// Answer of `weir explain`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// What follows from the objects.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// What the nodes that have a part in it hold and have seen; none for files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Evidence>,
    /// Why others of them did not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<String>,
}

impl From<Explanation> for Explained {
    fn from(explanation: Explanation) -> Self {
        Self {
            explanation,
            nodes: Vec::new(),
            unanswered: Vec::new(),
        }
    }
}

/// `weir explain`.
#[must_use]
pub fn explanation(explained: &Explained, colour: bool) -> String {
    let answer = &explained.explanation;
    // Writing to a String cannot fail.
    let mut text = String::new();
    let verdict = answer.verdict.words();
    let verdict = if colour {
        let style = Style::new().bold().fg_color(Some(match answer.verdict {
            Verdict::Allowed => AnsiColor::Green.into(),
            Verdict::Partly => AnsiColor::Yellow.into(),
            _ => AnsiColor::Red.into(),
        }));
        format!("{style}{verdict}{style:#}")
    } else {
        verdict.to_owned()
    };
    let _ = writeln!(
        text,
        "{} -> {}, {} {}: {verdict}",
        answer.source, answer.destination, answer.protocol, answer.port
    );
    for note in &answer.notes {
        let (word, note) = match note {
            Note::Warning(note) => ("Warning", note),
            Note::Hint(note) => ("Hint", note),
        };
        let _ = writeln!(text, "{word}: {note}");
    }
    let stray = explained.nodes.iter().filter(|node| !node.agrees());
    for node in stray.map(|evidence| &evidence.node) {
        let _ = writeln!(text, "Warning: node {node} has it otherwise, see below");
    }
    for (index, translation) in answer.translations.iter().enumerate() {
        // It may be the same for every pod that asks.
        if answer.translations[..index].contains(translation) {
            continue;
        }
        text.push('\n');
        service(&mut text, translation);
    }
    for (flow, alike) in groups(&answer.flows) {
        text.push('\n');
        self::flow(&mut text, flow, alike, answer.protocol);
    }
    text += &evidence(&explained.nodes, &explained.unanswered);
    if !answer.fixes.is_empty() {
        let _ = write!(
            text,
            "\nTo allow it, apply (kubectl apply -f):\n\n{}",
            fixes(answer)
        );
    }
    text
}

/// The policies that would allow it, as one YAML stream.
#[must_use]
pub fn fixes(answer: &Explanation) -> String {
    let documents: Vec<_> = answer
        .fixes
        .iter()
        .map(|fix| format!("# {}\n{}", fix.title, fix.yaml))
        .collect();
    documents.join("---\n")
}

fn service(text: &mut String, translation: &Translation) {
    let frontend = SocketAddr::new(translation.address, translation.port);
    let _ = write!(
        text,
        "Service {} at {frontend}/{}",
        translation.service, translation.protocol
    );
    match &translation.target_port {
        Some(target) => {
            let _ = writeln!(text, " leads to targetPort {target}");
        }
        None => text.push('\n'),
    }
    if translation.kind != Claim::ClusterIp || translation.clients.is_some() {
        let clients = match translation.clients {
            None => "",
            Some(Clients::Inside) => ", for clients inside the cluster",
            Some(Clients::Outside) => ", for clients outside",
        };
        let _ = writeln!(
            text,
            "  {} of node {}{clients}",
            translation.kind, translation.node
        );
    }
    if !translation.source_ranges.is_empty() {
        let ranges = cell(&translation.source_ranges);
        let _ = writeln!(
            text,
            "  Only clients from {ranges} are let in (loadBalancerSourceRanges)"
        );
    }
    if let Some(problem) = &translation.problem {
        let _ = writeln!(text, "  Problem: {problem}");
    }
    if translation.endpoints.is_empty() {
        return;
    }
    let header = [
        "ENDPOINT",
        "POD",
        "NODE",
        "READY",
        "SERVING",
        "TERMINATING",
        "TAKES CONNECTIONS",
    ];
    let rows = translation.endpoints.iter().map(|endpoint| {
        let dash = || "-".to_owned();
        vec![
            match endpoint.port {
                Some(port) => SocketAddr::new(endpoint.address, port).to_string(),
                None => endpoint.address.to_string(),
            },
            endpoint.pod.as_ref().map_or_else(dash, ToString::to_string),
            endpoint.node.clone().unwrap_or_else(dash),
            yes(endpoint.ready),
            yes(endpoint.serving),
            yes(endpoint.terminating),
            match &endpoint.excluded {
                Some(why) => format!("no: {why}"),
                None => "yes".to_owned(),
            },
        ]
    });
    text.push_str(&table("  ", &header, rows));
}

/// Flows that were judged alike (a Service may have hundreds of backends), with their number.
fn groups(flows: &[Flow]) -> Vec<(&Flow, usize)> {
    let same_side = |a: &Side, b: &Side| {
        a.outcome == b.outcome
            && a.tiers == b.tiers
            && a.isolated_by == b.isolated_by
            && a.allowed_by == b.allowed_by
    };
    let mut groups: Vec<(&Flow, usize)> = Vec::new();
    for flow in flows {
        let alike = groups.iter_mut().find(|(first, _)| {
            first.source.address == flow.source.address
                && (&first.hop, &first.seen_as) == (&flow.hop, &flow.seen_as)
                && same_side(&first.egress, &flow.egress)
                && same_side(&first.ingress, &flow.ingress)
        });
        match alike {
            Some((_, count)) => *count += 1,
            None => groups.push((flow, 1)),
        }
    }
    groups
}

fn flow(text: &mut String, flow: &Flow, alike: usize, protocol: Protocol) {
    let more = match alike {
        1 => String::new(),
        _ => format!(" (and {} more alike)", alike - 1),
    };
    let by = flow.hop.as_ref().map_or_else(String::new, |hop| {
        format!("{} port {} -> ", place(&hop.place), hop.port)
    });
    let _ = writeln!(
        text,
        "{} -> {by}{}, {protocol} {}: {}{more}",
        place(&flow.source),
        place(&flow.destination),
        flow.port,
        flow.verdict.words()
    );
    side(text, &flow.egress, &flow.source);
    if let Some(node) = &flow.seen_as {
        let _ = writeln!(text, "  {:<9}as {}", "arrives", place(node));
    }
    side(text, &flow.ingress, &flow.destination);
}

fn place(place: &Place) -> String {
    match (&place.pod, place.kind, &place.node) {
        (Some(pod), PlaceKind::Pod, _) => format!("{pod} ({})", place.address),
        (Some(pod), _, _) => format!("{pod} (host network, {})", place.address),
        (None, PlaceKind::Node, Some(node)) => format!("node {node} ({})", place.address),
        _ => place.address.to_string(),
    }
}

fn side(text: &mut String, side: &Side, subject: &Place) {
    let (name, word) = match side.direction {
        Direction::Egress => ("egress", "to"),
        Direction::Ingress => ("ingress", "from"),
    };
    let isolation = || -> String {
        let policies: Vec<_> = side
            .isolated_by
            .iter()
            .map(|isolation| match isolation.rules {
                0 => format!("{} (no rules)", isolation.policy),
                1 => format!("{} (1 rule)", isolation.policy),
                rules => format!("{} ({rules} rules)", isolation.policy),
            })
            .collect();
        policies.join(", ")
    };
    let summary = match side.outcome {
        SideOutcome::NotSelectable if subject.kind == PlaceKind::Node => {
            "open: policies never select a node or a host-network pod".to_owned()
        }
        SideOutcome::NotSelectable => "open: not a pod, no policy selects it".to_owned(),
        SideOutcome::NotIsolated => "open: no policy isolates the pod".to_owned(),
        SideOutcome::OwnNode => "allowed: it comes from the pod's own node".to_owned(),
        SideOutcome::Itself => "allowed: a pod may always reach itself".to_owned(),
        SideOutcome::Allowed => "allowed".to_owned(),
        SideOutcome::DeniedByRule => "denied by a rule".to_owned(),
        SideOutcome::Denied => format!("denied: isolated by {}", isolation()),
    };
    let _ = writeln!(text, "  {name:<9}{summary}");
    for TierMatch {
        tier,
        action,
        name: rule_name,
        rule,
    } in &side.tiers
    {
        let named = match rule_name.as_str() {
            "" => String::new(),
            rule_name => format!(" {rule_name:?}"),
        };
        let _ = writeln!(
            text,
            "    {} by {} {name}[{}]{named} of tier {}: {word} {}, {}",
            action.as_str(),
            rule.policy,
            rule.index,
            tier.as_str(),
            rule.peer,
            rule.port
        );
    }
    for rule in &side.allowed_by {
        let _ = writeln!(
            text,
            "    by {} {name}[{}]: {word} {}, {}",
            rule.policy, rule.index, rule.peer, rule.port
        );
    }
    for near in side.nearest.iter().take(NEAREST) {
        let _ = writeln!(
            text,
            "    nearest: {} {name}[{}] ({word} {}, {})",
            near.policy, near.index, near.peer, near.port
        );
        for miss in &near.misses {
            let _ = writeln!(text, "      - {miss}");
        }
        let matches = match (near.peer_matches, near.port_matches) {
            (true, false) => "the peer matches",
            (false, true) => "the port matches",
            _ => continue,
        };
        let _ = writeln!(text, "      + {matches}");
    }
}
