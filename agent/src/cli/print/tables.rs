//! Lists and status.

use std::fmt::Write;
use std::net::SocketAddr;

use super::Version;
use super::table::{cell, table, yes};
use crate::admin::{FlowRow, MapDump, MapFill, PodRow, Pods, PolicyRow, Sockets, Status};
use crate::compile::Clients;
use crate::explain::Translation;

/// `weir service list`.
#[must_use]
pub fn services(rows: &[Translation]) -> String {
    let header = [
        "NAMESPACE",
        "NAME",
        "KIND",
        "FRONTEND",
        "CLIENTS",
        "TARGET",
        "READY",
        "BACKENDS",
        "NOTE",
    ];
    let rows = rows.iter().map(|row| {
        let used = row.endpoints.iter().filter(|e| e.excluded.is_none());
        let backends = used.clone().map(|endpoint| match endpoint.port {
            Some(port) => SocketAddr::new(endpoint.address, port).to_string(),
            None => endpoint.address.to_string(),
        });
        vec![
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
            row.problem
                .clone()
                .or_else(|| row.warning.clone())
                .unwrap_or_default(),
        ]
    });
    table("", &header, rows)
}

/// `weir endpoint list`.
#[must_use]
pub fn pods(rows: &[PodRow]) -> String {
    let header = [
        "NAMESPACE",
        "POD",
        "NODE",
        "ADDRESSES",
        "DEVICE",
        "INGRESS",
        "EGRESS",
    ];
    let isolation = |row: &PodRow, policies: &[crate::model::ObjectName]| match policies {
        [] if row.unknown => "cut off".to_owned(),
        [] => "open".to_owned(),
        _ => cell(policies.iter().map(|policy| &policy.name)),
    };
    let rows = rows.iter().map(|row| {
        vec![
            row.pod.namespace.clone(),
            row.pod.name.clone(),
            row.node.clone(),
            cell(&row.addresses),
            row.device.clone().unwrap_or_else(|| "-".to_owned()),
            isolation(row, &row.ingress),
            isolation(row, &row.egress),
        ]
    });
    table("", &header, rows)
}

/// `weir policy list`.
#[must_use]
pub fn policies(rows: &[PolicyRow]) -> String {
    let header = [
        "TIER",
        "NAMESPACE",
        "NAME",
        "INGRESS",
        "EGRESS",
        "PODS",
        "LOCAL",
        "NOTE",
    ];
    let rules = |rules: Option<usize>| match rules {
        None => "-".to_owned(),
        Some(0) => "deny".to_owned(),
        Some(1) => "1 rule".to_owned(),
        Some(count) => format!("{count} rules"),
    };
    let rows = rows.iter().map(|row| {
        vec![
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
            if row.pods == 0 { "selects no pod" } else { "" }.to_owned(),
        ]
    });
    table("", &header, rows)
}

/// `weir conntrack list`.
#[must_use]
pub fn flows(rows: &[FlowRow]) -> String {
    let header = [
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "SERVICE",
        "PACKETS",
        "BYTES",
        "RULES",
    ];
    let rows = rows.iter().map(|row| {
        let service = row
            .service
            .map(|(address, port)| SocketAddr::new(address, port));
        vec![
            match row.protocol {
                1 => "ICMP".to_owned(),
                6 => "TCP".to_owned(),
                17 => "UDP".to_owned(),
                58 => "ICMPv6".to_owned(),
                132 => "SCTP".to_owned(),
                other => other.to_string(),
            },
            SocketAddr::new(row.source, row.source_port).to_string(),
            SocketAddr::new(row.destination, row.destination_port).to_string(),
            cell(service),
            format!("{}/{}", row.packets[0], row.packets[1]),
            format!("{}/{}", row.bytes[0], row.bytes[1]),
            format!("{:08x}/{:08x}", row.rules[0], row.rules[1]),
        ]
    });
    table("", &header, rows)
}

/// `weir map dump`.
#[must_use]
pub fn map_dump(dump: &MapDump) -> String {
    let header = ["MAP", "KEY", "VALUE"];
    let rows = dump.tables.iter().flat_map(|(name, elements)| {
        elements
            .iter()
            .map(move |element| vec![name.clone(), element.key.clone(), element.value.clone()])
    });
    table("", &header, rows)
}

/// `weir version`.
#[must_use]
pub fn version(version: &Version) -> String {
    format!("weir {} (map layout {})\n", version.version, version.layout)
}

fn sockets(sockets: &Sockets) -> String {
    match &sockets.cgroup {
        None => sockets.served.to_string(),
        Some(cgroup) => {
            let not = if sockets.attached { "" } else { "NOT " };
            format!("{}, {not}attached to {cgroup}", sockets.served)
        }
    }
}

fn pods_of_node(pods: Pods) -> String {
    let mut text = format!(
        "{}, {} announced by the CNI plugin",
        pods.known, pods.announced
    );
    if pods.unknown > 0 {
        let unknown = pods.unknown;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "; {unknown} of which the API has not told are cut off"
        );
    }
    text
}

/// Percents of a map that are in use.
pub(super) fn share(map: &MapFill) -> f64 {
    map.entries as f64 / map.capacity.max(1) as f64 * 100.0
}

/// `weir status`.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    let sync = match (status.last_sync_seconds, status.synced) {
        (None, _) => "never".to_owned(),
        (Some(seconds), true) => format!("{seconds:.1}s ago"),
        (Some(seconds), false) => format!("{seconds:.1}s ago, waiting for watches"),
    };
    for (name, value) in [
        ("Version", status.version.clone()),
        ("Node", status.node.clone()),
        ("Uptime", format!("{}s", status.uptime_seconds)),
        ("Last sync", sync),
        (
            "Generation",
            format!("{} (policy epoch {})", status.generation, status.epoch),
        ),
        ("Attached by", status.attach_mode.clone()),
        ("Sockets", sockets(&status.sockets)),
        ("Pods", pods_of_node(status.pods)),
        ("Events lost", status.events_lost.to_string()),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    }
    if let Some(log) = &status.flow_log {
        let (file, written, lost) = (&log.file, log.written, log.lost);
        let _ = write!(
            text,
            "{:<14}{file}: {written} records written, {lost} lost",
            "Flow log:"
        );
        let error = log.error.iter();
        let _ = writeln!(
            text,
            "{}",
            error.map(|error| format!("; {error}")).collect::<String>()
        );
    }
    if let Some(error) = &status.last_error {
        let _ = writeln!(text, "{:<14}{error}", "Last error:");
    }
    let mut section = |title: &str, header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = write!(text, "\n{title}\n{}", table("  ", header, rows));
        }
    };
    let watches = status.watches.iter().map(|watch| {
        vec![
            watch.kind.clone(),
            yes(watch.synced),
            watch.objects.to_string(),
        ]
    });
    section("Watches", &["KIND", "SYNCED", "OBJECTS"], watches.collect());
    let devices = status.devices.iter().map(|device| {
        vec![
            device.name.clone(),
            device.ifindex.to_string(),
            match (&device.xdp, device.uplink) {
                (Some(xdp), true) => format!("(uplink; XDP: {xdp})"),
                (None, true) => "(uplink)".to_owned(),
                (_, false) => cell(&device.pod),
            },
        ]
    });
    section("Devices", &["NAME", "INDEX", "POD"], devices.collect());
    let maps = status.maps.iter().map(|map| {
        vec![
            map.name.clone(),
            map.entries.to_string(),
            map.capacity.to_string(),
            format!("{:.0}%", share(map)),
        ]
    });
    section(
        "Maps",
        &["NAME", "ENTRIES", "CAPACITY", "FULL"],
        maps.collect(),
    );
    let features = status.features.iter().map(|feature| {
        let otherwise = if feature.present {
            ""
        } else {
            &feature.otherwise
        };
        vec![
            feature.name.clone(),
            yes(feature.present),
            otherwise.to_owned(),
        ]
    });
    section(
        "Kernel features",
        &["NAME", "PRESENT", "OTHERWISE"],
        features.collect(),
    );
    let rejections = status.rejections.iter().map(|rejection| {
        vec![
            rejection.kind.clone(),
            rejection.name.clone(),
            rejection.message.clone(),
        ]
    });
    section("Skipped", &["KIND", "NAME", "WHY"], rejections.collect());
    text
}
