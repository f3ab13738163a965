//! The one table of metrics. Counters get `_total` from the encoder, as OpenMetrics wants it.

/// Name and help text of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// Name without `_total` and `_info`.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

pub(super) const BUILD: Name = name("weir_build", "Version of the agent");
pub(super) const SYNC_DURATION: Name = name(
    "weir_sync_duration_seconds",
    "Time that a stage of bringing the kernel in line with the API took",
);
pub(super) const SYNC_ERRORS: Name = name(
    "weir_sync_errors",
    "Failures of a stage of bringing the kernel in line; the kernel kept its former state",
);
pub(super) const LAST_SYNC: Name = name(
    "weir_last_sync_timestamp_seconds",
    "When the kernel was last brought in line with the API; 0 before the first time",
);
pub(super) const WATCH_SYNCED: Name = name(
    "weir_watch_synced",
    "Whether a kind has been listed completely",
);
pub(super) const WATCH_ERRORS: Name =
    name("weir_watch_errors", "Failed requests and broken watches");
pub(super) const REJECTED: Name = name(
    "weir_objects_rejected",
    "Objects and files that are skipped now, wholly or in part",
);
pub(super) const MAP_ENTRIES: Name = name("weir_map_entries", "Elements of a map in use");
pub(super) const MAP_CAPACITY: Name = name("weir_map_capacity", "Elements that a map can hold");
pub(super) const PACKETS: Name = name("weir_packets", "Packets judged, a GSO packet once");
pub(super) const BYTES: Name = name("weir_bytes", "Bytes judged, with Ethernet headers");
pub(super) const FLOWS: Name = name(
    "weir_flows",
    "Flow events: every drop, and one in --event-sample of the new flows that were allowed",
);
pub(super) const CONNTRACK_ENTRIES: Name = name(
    "weir_conntrack_entries",
    "Entries of the flow table, two for a flow to a Service, counted every 30 seconds",
);
pub(super) const CONNTRACK_CAPACITY: Name = name(
    "weir_conntrack_capacity",
    "Entries that the flow table can hold",
);
pub(super) const CONNTRACK_INSERTED: Name = name(
    "weir_conntrack_inserted",
    "Entries ever put into the flow table",
);
pub(super) const CONNTRACK_EXPIRED: Name = name(
    "weir_conntrack_expired",
    "Entries that this agent removed as their time was over",
);
pub(super) const EVENTS_LOST: Name = name(
    "weir_flow_events_lost",
    "Events that found the ring buffer full",
);
pub(super) const ATTACHED: Name = name(
    "weir_program_attached",
    "Devices that the program of a hook is attached to",
);

pub(super) const EPOCH: Name = name(
    "weir_policy_epoch",
    "How often live flows had to be judged again because a policy was narrowed",
);

/// All metrics.
pub const ALL: [Name; 19] = [
    BUILD,
    SYNC_DURATION,
    SYNC_ERRORS,
    LAST_SYNC,
    WATCH_SYNCED,
    WATCH_ERRORS,
    REJECTED,
    MAP_ENTRIES,
    MAP_CAPACITY,
    PACKETS,
    BYTES,
    FLOWS,
    CONNTRACK_ENTRIES,
    CONNTRACK_CAPACITY,
    CONNTRACK_INSERTED,
    CONNTRACK_EXPIRED,
    EVENTS_LOST,
    ATTACHED,
    EPOCH,
];
