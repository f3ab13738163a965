//! Lists in kubectl's look.

use std::net::{IpAddr, SocketAddr};

use super::table::{Table, cell, labels};
use crate::admin::{FlowRow, PodRow, PolicyRow, ServiceRow};
use crate::compile::Clients;
use crate::model::{ObjectName, TrafficPolicy};

/// Columns of every form of a table, and those of the wide one behind them.
fn columns<const N: usize, const M: usize>(
    usual: [&'static str; N],
    more: [&'static str; M],
    wide: bool,
) -> impl Iterator<Item = &'static str> {
    let more = more.into_iter().filter(move |_| wide);
    usual.into_iter().chain(more)
}

/// `weir service list`.
#[must_use]
pub fn services(rows: &[ServiceRow], wide: bool) -> Table {
    let header = columns(
        [
            "NAMESPACE",
            "NAME",
            "KIND",
            "FRONTEND",
            "CLIENTS",
            "TARGET",
            "READY",
            "BACKENDS",
            "NOTE",
        ],
        ["TRAFFIC POLICIES", "AFFINITY", "SELECTOR", "LABELS"],
        wide,
    );
    let rows = rows.iter().map(|service| {
        let row = &service.translation;
        let used = row.endpoints.iter().filter(|e| e.excluded.is_none());
        let backends = used.clone().map(|endpoint| match endpoint.port {
            Some(port) => SocketAddr::new(endpoint.address, port).to_string(),
            None => endpoint.address.to_string(),
        });
        let note = row.problem.clone().or_else(|| row.warning.clone());
        let mut cells = vec![
            row.service.namespace.clone(),
            row.service.name.clone(),
            row.kind.to_string(),
            format!(
                "{}/{}",
                SocketAddr::new(row.address, row.port),
                row.protocol
            ),
            match (row.clients, &row.source_ranges[..]) {
                (None, []) => "all".to_owned(),
                (None, ranges) => cell(ranges),
                (Some(Clients::Inside), []) => "inside".to_owned(),
                (Some(Clients::Outside), []) => "outside".to_owned(),
                (Some(Clients::Inside), ranges) => format!("inside, of {}", cell(ranges)),
                (Some(Clients::Outside), ranges) => format!("outside, of {}", cell(ranges)),
            },
            row.target_port.clone().unwrap_or_default(),
            format!("{}/{}", used.clone().count(), row.endpoints.len()),
            cell(backends),
        ];
        if wide {
            cells.extend([
                // Columns follow: nothing at all would be taken for the next one.
                cell(note),
                format!(
                    "internal {}, external {}",
                    traffic_policy(service.internal_traffic_policy),
                    traffic_policy(service.external_traffic_policy)
                ),
                cell(
                    service
                        .affinity_seconds
                        .map(|seconds| format!("{seconds}s")),
                ),
                labels(&service.selector),
                labels(&service.labels),
            ]);
        } else {
            cells.push(note.unwrap_or_default());
        }
        cells
    });
    Table::new(header, rows)
}

pub(super) const fn traffic_policy(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

/// `weir endpoint list`.
#[must_use]
pub fn pods(rows: &[PodRow], wide: bool) -> Table {
    let header = columns(
        [
            "NAMESPACE",
            "POD",
            "NODE",
            "ADDRESSES",
            "DEVICE",
            "INGRESS",
            "EGRESS",
        ],
        ["WORKLOAD", "LABELS"],
        wide,
    );
    let isolation = |row: &PodRow, policies: &[ObjectName]| match policies {
        [] if row.unknown => "cut off".to_owned(),
        [] => "open".to_owned(),
        _ => cell(policies.iter().map(|policy| &policy.name)),
    };
    let rows = rows.iter().map(|row| {
        let mut cells = vec![
            row.pod.namespace.clone(),
            row.pod.name.clone(),
            row.node.clone(),
            cell(&row.addresses),
            row.device.clone().unwrap_or_else(|| "-".to_owned()),
            isolation(row, &row.ingress),
            isolation(row, &row.egress),
        ];
        if wide {
            let workload = row.workload.iter().map(|workload| &workload.name);
            cells.extend([cell(workload), labels(&row.labels)]);
        }
        cells
    });
    Table::new(header, rows)
}

/// `weir policy list`.
#[must_use]
pub fn policies(rows: &[PolicyRow], wide: bool) -> Table {
    let header = columns(
        [
            "TIER",
            "NAMESPACE",
            "NAME",
            "INGRESS",
            "EGRESS",
            "PODS",
            "LOCAL",
            "NOTE",
        ],
        ["SUBJECT", "LABELS"],
        wide,
    );
    let rules = |rules: Option<usize>| match rules {
        None => "-".to_owned(),
        Some(0) => "deny".to_owned(),
        Some(1) => "1 rule".to_owned(),
        Some(count) => format!("{count} rules"),
    };
    let rows = rows.iter().map(|row| {
        let note = (row.pods == 0).then_some("selects no pod");
        let mut cells = vec![
            match row.priority {
                Some(priority) => format!("{} {priority}", row.tier.as_str()),
                None => row.tier.as_str().to_owned(),
            },
            match row.policy.namespace.as_str() {
                "" => "-".to_owned(),
                namespace => namespace.to_owned(),
            },
            row.policy.name.clone(),
            rules(row.ingress_rules),
            rules(row.egress_rules),
            row.pods.to_string(),
            row.local_pods.to_string(),
        ];
        if wide {
            cells.extend([cell(note), row.subject.clone(), labels(&row.labels)]);
        } else {
            cells.push(note.unwrap_or_default().to_owned());
        }
        cells
    });
    Table::new(header, rows)
}

/// `weir conntrack list`.
#[must_use]
pub fn flows(rows: &[FlowRow], wide: bool) -> Table {
    let header = columns(
        [
            "PROTO",
            "SOURCE",
            "DESTINATION",
            "SERVICE",
            "PACKETS",
            "BYTES",
            "RULES",
        ],
        ["SOURCE POD", "DESTINATION POD"],
        wide,
    );
    let rows = rows.iter().map(|row| {
        let socket = |(address, port): (IpAddr, u16)| SocketAddr::new(address, port);
        let mut cells = vec![
            match row.protocol {
                1 => "ICMP".to_owned(),
                6 => "TCP".to_owned(),
                17 => "UDP".to_owned(),
                58 => "ICMPv6".to_owned(),
                132 => "SCTP".to_owned(),
                other => other.to_string(),
            },
            socket((row.source, row.source_port)).to_string(),
            socket((row.destination, row.destination_port)).to_string(),
            cell(row.service.map(socket)),
            format!("{}/{}", row.packets[0], row.packets[1]),
            format!("{}/{}", row.bytes[0], row.bytes[1]),
            format!("{:08x}/{:08x}", row.rules[0], row.rules[1]),
        ];
        if wide {
            cells.extend([cell(&row.source_pod), cell(&row.destination_pod)]);
        }
        cells
    });
    Table::new(header, rows)
}
