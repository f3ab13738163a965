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
pub(super) const MAP_DRIFT: Name = name(
    "weir_map_drift",
    "Elements of a map that somebody else had changed, written anew since",
);
pub(super) const PACKETS: Name = name("weir_packets", "Packets judged, a GSO packet once");
pub(super) const BYTES: Name = name("weir_bytes", "Bytes judged, with Ethernet headers");
pub(super) const FLOWS: Name = name(
    "weir_flows",
    "Flow events: every drop, and one in --event-sample of the new flows that were allowed",
);
pub(super) const WORKLOAD_FLOWS: Name = name(
    "weir_workload_flows",
    "Flow events by workload: those of which most is heard (--workload-series), and all others together",
);
pub(super) const CONNTRACK_ENTRIES: Name = name(
    "weir_conntrack_entries",
    "Entries of the flow table, two for a flow to a Service, as the last walk over it found them (--flow-ends)",
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
pub(super) const CONNTRACK_ENDED: Name = name(
    "weir_conntrack_ended",
    "Entries of the flow table that walks over it found over",
);
pub(super) const CONNTRACK_LOST: Name = name(
    "weir_conntrack_lost",
    "Entries of the flow table that were gone before a walk found them over: evicted, replaced, or without room",
);
pub(super) const FLOWS_ENDED: Name = name(
    "weir_flows_ended",
    "Flows that walks over the flow table found over, a flow to a Service once",
);
pub(super) const FLOW_LOG_WRITTEN: Name = name(
    "weir_flow_log_written",
    "Flow records written to the file of --flow-log",
);
pub(super) const FLOW_LOG_LOST: Name = name(
    "weir_flow_log_lost",
    "Flow records for the file of --flow-log that it could not take, or not fast enough",
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

pub(super) const UNPROTECTED: Name = name(
    "weir_pod_unprotected_seconds",
    "Time from a pod's device, or where the agent came later from its object, to programs on the device, of pods that no CNI plugin announced",
);
pub(super) const REQUESTS: Name = name(
    "rest_client_requests",
    "Requests to the API server, by status code, method and host; <error> for those without an answer",
);
pub(super) const PROCESS_CPU: Name = name(
    "process_cpu_seconds",
    "Processor time that the agent has used",
);
pub(super) const PROCESS_START: Name = name("process_start_time_seconds", "When the agent started");
pub(super) const PROCESS_RESIDENT: Name = name(
    "process_resident_memory_bytes",
    "Memory of the agent that is in RAM",
);
pub(super) const PROCESS_VIRTUAL: Name =
    name("process_virtual_memory_bytes", "Address space of the agent");
pub(super) const PROCESS_FDS: Name = name("process_open_fds", "Open file descriptors of the agent");
pub(super) const PROCESS_MOST_FDS: Name = name(
    "process_max_fds",
    "File descriptors that the agent may have open",
);
pub(super) const PROXY_SYNC: Name = name(
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "Time from changed Services or endpoints to the maps that hold them",
);
pub(super) const PROXY_SYNC_FULL: Name = name(
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    "The same of those times that built a whole new generation of maps",
);
pub(super) const PROXY_SYNC_PARTIAL: Name = name(
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    "The same of those times that wrote what differs",
);
pub(super) const PROXY_QUEUED: Name = name(
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "When a change of Services or endpoints was last waiting to be written",
);
pub(super) const PROXY_SYNCED: Name = name(
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "When the maps last were what Services and endpoints want",
);
pub(super) const PROXY_PROGRAMMING: Name = name(
    "kubeproxy_network_programming_duration_seconds",
    "Time from what changed an EndpointSlice to the maps that hold the slice",
);
pub(super) const PROXY_ENDPOINTS_PENDING: Name = name(
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "Changed EndpointSlices that the maps do not hold yet",
);
pub(super) const PROXY_ENDPOINTS: Name = name(
    "kubeproxy_sync_proxy_rules_endpoint_changes",
    "EndpointSlices that the API server has told of",
);
pub(super) const PROXY_SERVICES_PENDING: Name = name(
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "Changed Services that the maps do not hold yet",
);
pub(super) const PROXY_SERVICES: Name = name(
    "kubeproxy_sync_proxy_rules_service_changes",
    "Services that the API server has told of",
);
pub(super) const PROXY_NO_LOCAL_ENDPOINTS: Name = name(
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "Service ports with a Local traffic policy and endpoints on other nodes only",
);
pub(super) const PROXY_HEALTHZ: Name = name(
    "kubeproxy_proxy_healthz",
    "Answers of /healthz by status code",
);
pub(super) const PROXY_LIVEZ: Name =
    name("kubeproxy_proxy_livez", "Answers of /livez by status code");

/// All metrics.
pub const ALL: [Name; 47] = [
    BUILD,
    SYNC_DURATION,
    SYNC_ERRORS,
    LAST_SYNC,
    WATCH_SYNCED,
    WATCH_ERRORS,
    REJECTED,
    MAP_DRIFT,
    MAP_ENTRIES,
    MAP_CAPACITY,
    PACKETS,
    BYTES,
    FLOWS,
    WORKLOAD_FLOWS,
    CONNTRACK_ENTRIES,
    CONNTRACK_CAPACITY,
    CONNTRACK_INSERTED,
    CONNTRACK_EXPIRED,
    CONNTRACK_ENDED,
    CONNTRACK_LOST,
    FLOWS_ENDED,
    FLOW_LOG_WRITTEN,
    FLOW_LOG_LOST,
    EVENTS_LOST,
    ATTACHED,
    EPOCH,
    UNPROTECTED,
    REQUESTS,
    PROCESS_CPU,
    PROCESS_START,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_FDS,
    PROCESS_MOST_FDS,
    PROXY_SYNC,
    PROXY_SYNC_FULL,
    PROXY_SYNC_PARTIAL,
    PROXY_QUEUED,
    PROXY_SYNCED,
    PROXY_PROGRAMMING,
    PROXY_ENDPOINTS_PENDING,
    PROXY_ENDPOINTS,
    PROXY_SERVICES_PENDING,
    PROXY_SERVICES,
    PROXY_NO_LOCAL_ENDPOINTS,
    PROXY_HEALTHZ,
    PROXY_LIVEZ,
];
