//! First packets of connections.

use weir_common::abi::{FlowKey, Hook, RULE_NODE, RULE_NONE, RULE_NOT_ISOLATED};
use weir_oracle::{Decider, DirectionVerdict, Exemption, Flow, Judgement, protocol};

use super::{Hooks, View};
use crate::packets::{Content, Packet, tcp};

/// Any device that no pod is behind: the loopback device, which every namespace has.
const UPLINK: u32 = 1;
const SOURCE_PORT: u16 = 40_000;

/// Sends the first packet of a flow past the hooks of its local ends and compares verdict and rule with the oracle's judgement.
/// What a pod says to itself never leaves it, and is not sent.
///
/// # Errors
/// What differs.
pub fn packets(
    hooks: &mut impl Hooks,
    view: &View,
    flow: &Flow,
    wanted: &Judgement,
) -> Result<(), String> {
    let verdicts = [&wanted.egress, &wanted.ingress];
    let itself = |verdict: &&DirectionVerdict| verdict.exempt == Some(Exemption::PodToItself);
    if verdicts
        .into_iter()
        .flatten()
        .any(|verdict| itself(&verdict))
    {
        return Ok(());
    }
    let packet = first_packet(flow).bytes();
    let mut from = if flow.born_on_node { 0 } else { UPLINK };
    if let Some(egress) = &wanted.egress {
        from = view.device(flow.source).ok_or("no device at the source")?;
        let answer = hooks.send(Hook::FromPod, from, from, &packet)?;
        compare(view, egress, answer.dropped, answer.rule)
            .map_err(|text| format!("egress, {text}"))?;
    }
    if let Some(ingress) = &wanted.ingress {
        let device = view.device(flow.destination);
        let device = device.ok_or("no device at the destination")?;
        let answer = hooks.send(Hook::ToPod, device, from, &packet)?;
        compare(view, ingress, answer.dropped, answer.rule)
            .map_err(|text| format!("ingress, {text}"))?;
    }
    hooks.forget(&key(flow))
}

fn compare(view: &View, wanted: &DirectionVerdict, dropped: bool, rule: u32) -> Result<(), String> {
    let right_rule = match (wanted.exempt, wanted.allowed) {
        (Some(_), _) => rule == RULE_NODE,
        (None, false) => rule == RULE_NONE,
        (None, true) if wanted.decider() == Decider::Nobody => rule == RULE_NOT_ISOLATED,
        (None, true) => view.decides(rule, wanted),
    };
    if dropped != wanted.allowed && right_rule {
        return Ok(());
    }
    let name = view.tables.policies.rules.get(&rule);
    Err(format!(
        "packet: dropped {dropped}, rule {rule} {name:?}, wanted {wanted:?}"
    ))
}

fn first_packet(flow: &Flow) -> Packet {
    let (source, destination) = (SOURCE_PORT, flow.destination_port);
    let echo = |kind| Content::Icmp {
        kind,
        code: 0,
        rest: 0,
        payload: vec![0; 8],
    };
    let payload = 8;
    let content = match flow.protocol {
        protocol::TCP => Content::Tcp {
            source,
            destination,
            flags: tcp::SYN,
            payload,
        },
        protocol::UDP => Content::Udp {
            source,
            destination,
            payload,
            checksum: true,
        },
        protocol::SCTP => Content::Sctp {
            source,
            destination,
            payload,
        },
        protocol::ICMP => echo(8),
        protocol::ICMPV6 => echo(128),
        protocol => Content::Other { protocol, payload },
    };
    Packet::new(flow.source, flow.destination, content)
}

fn key(flow: &Flow) -> FlowKey {
    let ports = match flow.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => (SOURCE_PORT, flow.destination_port),
        // Pings have their identifier, and one more at the end that answers.
        protocol::ICMP | protocol::ICMPV6 => (0, 1),
        _ => (0, 0),
    };
    let (source, destination) = (flow.source.into(), flow.destination.into());
    FlowKey::new(&source, ports.0, &destination, ports.1, flow.protocol).0
}
