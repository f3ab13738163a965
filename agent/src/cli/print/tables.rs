//! Maps, version and status.

use std::fmt::Write;

use super::Version;
use super::table::{cell, table, yes};
use crate::admin::{MapDump, MapFill, Pods, Sockets, Status};

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
        ("Kernel", status.kernel.clone()),
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
