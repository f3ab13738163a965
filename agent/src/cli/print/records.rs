//! Flow records as a table.

use std::net::SocketAddr;

use super::table::table;
use crate::flows::{DecidedBy, Owner, Peer, Record, Sent};

/// `weir flows`.
#[must_use]
pub fn flow_records(records: &[Record]) -> String {
    let header = [
        "TIME",
        "NODE",
        "VERDICT",
        "DIRECTION",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "REASON",
        "POLICY",
    ];
    let rows = records.iter().map(|record| {
        vec![
            format!("{:.3}", record.time),
            record.node.clone(),
            record.verdict.to_string(),
            record.direction.as_str().to_owned(),
            record.protocol.clone(),
            peer(&record.source),
            match &record.backend {
                Some(backend) => format!("{} > {}", peer(&record.destination), peer(backend)),
                None => peer(&record.destination),
            },
            reason(record),
            policy(record),
        ]
    });
    table("", &header, rows)
}

/// A record as a line of `weir flows --follow`, whose columns cannot know what comes.
#[must_use]
pub fn flow_line(record: &Record) -> String {
    let backend = record.backend.as_ref();
    let backend = backend.map_or_else(String::new, |it| format!(" > {}", peer(it)));
    format!(
        "{:.3} {} {} {} {} {} > {}{backend} {} {}\n",
        record.time,
        record.node,
        record.verdict,
        record.direction.as_str(),
        record.protocol,
        peer(&record.source),
        peer(&record.destination),
        reason(record),
        policy(record),
    )
}

/// Why it was so; of a flow that has ended how long it lasted and what went each way, too.
fn reason(record: &Record) -> String {
    let Some(ended) = &record.ended else {
        return record.reason.clone();
    };
    let lasted = ended.last_packet.duration_since(ended.began);
    let went = |sent: &Sent| format!("{} packets ({} bytes)", sent.packets, sent.bytes);
    format!(
        "{} after {:.3} s, sent {}, received {}",
        record.reason,
        lasted.as_secs_f64(),
        went(&ended.sent),
        went(&ended.received),
    )
}

/// The owner's name where it is known, else the address.
fn peer(peer: &Peer) -> String {
    let Some(owner) = &peer.owner else {
        return SocketAddr::new(peer.address, peer.port).to_string();
    };
    let name = match owner {
        Owner::Pod(pod) => pod.to_string(),
        Owner::Service(service) => format!("{}/svc/{}", service.namespace, service.name),
        Owner::Node(node) => format!("node {node}"),
    };
    format!("{name}:{}", peer.port)
}

/// The rules that decided, or the policies of which none allowed it.
fn policy(record: &Record) -> String {
    let rules = record.rules();
    let rules = rules.map(|(direction, DecidedBy { policy, index, .. })| {
        format!("{policy} {}[{index}]", direction.as_str())
    });
    let denied_by = record.denied_by.iter().map(ToString::to_string);
    let names: Vec<_> = rules.chain(denied_by).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use weir_common::abi::{Address, Event, Verdict};
    use weir_common::reason::Reason;

    use super::*;
    use crate::flows::tests::{RULE, ended, event, record};

    #[test]
    fn records_read_like_sentences() {
        let allowed = Event {
            rule: RULE,
            verdict: Verdict::Pass as u8,
            reason: Reason::PolicyAllowed as u8,
            source: Address::from(std::net::IpAddr::from([192, 0, 2, 1])),
            protocol: 17,
            ..event()
        };
        let records = [record(&event()), record(&allowed), ended()];
        insta::assert_snapshot!(flow_records(&records));
        let lines: String = records.iter().map(flow_line).collect();
        insta::assert_snapshot!("lines", lines);
    }
}
