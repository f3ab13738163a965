//! What nodes hold and have seen of an explanation's connections.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use super::records::flow_line;
use crate::admin::{Evidence, Held, HeldFrontend, HeldVerdict};
use crate::model::Direction;

/// Of each node: whether it does what the objects say, and what became of packets.
pub(super) fn evidence(nodes: &[Evidence], unanswered: &[String]) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    if !nodes.is_empty() || !unanswered.is_empty() {
        text.push_str("\nOn the nodes:\n");
    }
    for node in nodes {
        let _ = writeln!(text, "  {}: {}", node.node, maps(node));
        for verdict in node.verdicts.iter().filter(|it| !it.agrees()) {
            let _ = writeln!(text, "    {}", stray_verdict(verdict));
        }
        for frontend in node.frontends.iter().filter(|it| !it.agrees()) {
            let _ = writeln!(text, "    {}", stray_frontend(frontend));
        }
        if node.connections > 0 {
            let [there, back] = node.packets;
            let answered = if back == 0 { ": no answer so far" } else { "" };
            let _ = writeln!(
                text,
                "    {} tracked, {there} packets there, {back} back{answered}",
                counted(node.connections, "connection")
            );
        }
        if node.drops > 0 {
            let _ = writeln!(
                text,
                "    {} not let through, the last:",
                counted(node.drops, "packet")
            );
        }
        for drop in &node.last_drops {
            let _ = write!(text, "      {}", flow_line(drop));
        }
    }
    for why in unanswered {
        let _ = writeln!(text, "  not known of {why}");
    }
    text
}

fn maps(node: &Evidence) -> String {
    let asked = [
        (node.verdicts.len(), "verdict"),
        (node.frontends.len(), "Service address"),
    ];
    let asked = asked.into_iter().filter(|(count, _)| *count > 0);
    let asked: Vec<_> = asked.map(|(count, noun)| counted(count, noun)).collect();
    match (&asked[..], node.agrees()) {
        ([], _) => "its maps have no part in it".to_owned(),
        (_, true) => format!("its maps say the same ({})", asked.join(", ")),
        (_, false) => {
            "its maps say otherwise: `weir status` there tells what it waits for, `weir audit` what is wrong"
                .to_owned()
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "Service address") => format!("{count} Service addresses"),
        _ => format!("{count} {noun}s"),
    }
}

fn stray_verdict(verdict: &HeldVerdict) -> String {
    let HeldVerdict {
        pod, peer, port, ..
    } = verdict;
    let (direction, towards) = match verdict.direction {
        Direction::Ingress => ("ingress", format!("from {peer} to port {port}")),
        Direction::Egress => ("egress", format!("to {}", SocketAddr::new(*peer, *port))),
    };
    let held = match &verdict.held {
        Held::Unknown => "not in the maps, so not judged".to_owned(),
        Held::Open => "no policy decides".to_owned(),
        Held::Allowed(Some((policy, index))) => {
            format!("allowed by {policy} {direction}[{index}]")
        }
        Held::Allowed(None) => "allowed by a rule that no object has".to_owned(),
        Held::Denied => "denied".to_owned(),
    };
    let intended = if verdict.intended { "allow" } else { "deny" };
    format!("{pod} {direction} {towards}: {held}; the objects {intended} it")
}

fn stray_frontend(frontend: &HeldFrontend) -> String {
    let HeldFrontend {
        service,
        frontend: address,
        protocol,
        intended,
        held,
    } = frontend;
    let name = format!("Service {service} at {address}/{protocol}");
    let Some(held) = held else {
        return format!("{name} is not in the maps");
    };
    let words = |backends: BTreeSet<&SocketAddr>| {
        let words: Vec<_> = backends.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    let missing = words(intended.difference(held).collect());
    let stray = words(held.difference(intended).collect());
    match (&*missing, &*stray) {
        ("", stray) => format!("{name} leads to {stray} as well"),
        (missing, "") => format!("{name} does not lead to {missing}"),
        (missing, stray) => format!("{name} leads to {stray}, and not to {missing}"),
    }
}
