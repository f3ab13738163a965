//! What nodes hold and have seen of an explanation's connections.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use super::records::flow_line;
use crate::admin::{Evidence, Held, HeldFrontend, HeldVerdict, Tried};
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
        for verdict in &node.verdicts {
            if !verdict.maps_agree() {
                let _ = writeln!(text, "    {}", stray_verdict(verdict));
            } else if !verdict.programs_agree() {
                let _ = writeln!(text, "    {}", stray_packet(verdict));
            }
        }
        for frontend in &node.frontends {
            if !frontend.maps_agree() {
                let _ = writeln!(text, "    {}", stray_frontend(frontend));
            } else if !frontend.programs_agree() {
                let _ = writeln!(text, "    {}", lost_packet(frontend));
            }
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
    let verdicts = node.verdicts.iter();
    let maps_agree = verdicts.clone().all(HeldVerdict::maps_agree)
        && node.frontends.iter().all(HeldFrontend::maps_agree);
    let tried = verdicts.filter(|it| it.tried.is_some()).count()
        + node
            .frontends
            .iter()
            .filter(|it| it.tried.is_some())
            .count();
    match (&asked[..], maps_agree, node.agrees()) {
        ([], _, _) => "its maps have no part in it".to_owned(),
        (_, true, true) => {
            let same = format!("its maps say the same ({})", asked.join(", "));
            match tried {
                0 => same,
                tried => format!("{same}, and its programs do it ({})", counted(tried, "packet tried")),
            }
        }
        (_, true, false) => {
            "its maps say the same, its programs do otherwise with packets that were tried:".to_owned()
        }
        (_, false, _) => {
            "its maps say otherwise: `weir status` there tells what it waits for, `weir audit` what is wrong"
                .to_owned()
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "Service address") => format!("{count} Service addresses"),
        (_, "packet tried") => format!("{count} packets tried"),
        _ => format!("{count} {noun}s"),
    }
}

/// Which verdict, in words.
fn judgement(verdict: &HeldVerdict) -> String {
    let HeldVerdict {
        pod, peer, port, ..
    } = verdict;
    match verdict.direction {
        Direction::Ingress => format!("{pod} ingress from {peer} to port {port}"),
        Direction::Egress => format!("{pod} egress to {}", SocketAddr::new(*peer, *port)),
    }
}

fn stray_verdict(verdict: &HeldVerdict) -> String {
    let direction = match verdict.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
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
    format!("{}: {held}; the objects {intended} it", judgement(verdict))
}

/// What became of a packet that was tried.
fn fate(tried: &Tried) -> String {
    match (tried.passed, tried.to) {
        (true, Some(to)) => format!("goes to {to} ({})", tried.reason),
        (true, None) => format!("passes ({})", tried.reason),
        (false, _) => format!("does not pass ({})", tried.reason),
    }
}

fn stray_packet(verdict: &HeldVerdict) -> String {
    let fate = verdict.tried.as_ref().map(fate).unwrap_or_default();
    format!("{}: a packet {fate}", judgement(verdict))
}

fn lost_packet(frontend: &HeldFrontend) -> String {
    let fate = frontend.tried.as_ref().map(fate).unwrap_or_default();
    format!("{}: a packet {fate}", service_address(frontend))
}

fn service_address(frontend: &HeldFrontend) -> String {
    let HeldFrontend {
        service,
        frontend: address,
        protocol,
        ..
    } = frontend;
    format!("Service {service} at {address}/{protocol}")
}

fn stray_frontend(frontend: &HeldFrontend) -> String {
    let HeldFrontend { intended, held, .. } = frontend;
    let name = service_address(frontend);
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
