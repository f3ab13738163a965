//! Which fields of a flow a client wants.

use std::collections::BTreeSet;

use super::proto::flow::{Endpoint, Flow};

/// A path of a mask that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field_mask: a flow has no {0:?}")]
pub(super) struct MaskError(String);

/// Paths of fields; `None` is all of them.
///
/// Of `source` and `destination` single fields are kept apart, of all others the whole field that a path leads into.
#[derive(Debug, Default)]
pub(super) struct Mask(Option<BTreeSet<String>>);

impl Mask {
    /// The mask of a request.
    pub(super) fn new(mask: Option<prost_types::FieldMask>) -> Result<Self, MaskError> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return Ok(Self(None));
        };
        for path in &mask.paths {
            let mut steps = path.split('.');
            let first = steps.next().unwrap_or_default();
            let is_endpoint = ["source", "destination"].contains(&first);
            let leads_on = steps
                .next()
                .is_none_or(|next| !is_endpoint || ENDPOINT.contains(&next));
            if !FLOW.contains(&first) || !leads_on {
                return Err(MaskError(path.clone()));
            }
        }
        Ok(Self(Some(mask.paths.into_iter().collect())))
    }

    /// Leaves of a flow what is wanted.
    #[allow(deprecated, reason = "fields that clients still ask for")]
    pub(super) fn apply(&self, flow: Flow) -> Flow {
        if self.0.is_none() {
            return flow;
        }
        // Those that Weir gives; all others are empty in any case.
        Flow {
            time: self.keep("time", flow.time),
            emitter: self.keep("emitter", flow.emitter),
            verdict: self.keep("verdict", flow.verdict),
            drop_reason: self.keep("drop_reason", flow.drop_reason),
            ip: self.keep("IP", flow.ip),
            l4: self.keep("l4", flow.l4),
            source: self.endpoint("source", flow.source),
            destination: self.endpoint("destination", flow.destination),
            r#type: self.keep("Type", flow.r#type),
            node_name: self.keep("node_name", flow.node_name),
            event_type: self.keep("event_type", flow.event_type),
            destination_service: self.keep("destination_service", flow.destination_service),
            traffic_direction: self.keep("traffic_direction", flow.traffic_direction),
            trace_observation_point: self
                .keep("trace_observation_point", flow.trace_observation_point),
            trace_reason: self.keep("trace_reason", flow.trace_reason),
            drop_reason_desc: self.keep("drop_reason_desc", flow.drop_reason_desc),
            is_reply: self.keep("is_reply", flow.is_reply),
            summary: self.keep("Summary", flow.summary),
            egress_allowed_by: self.keep("egress_allowed_by", flow.egress_allowed_by),
            ingress_allowed_by: self.keep("ingress_allowed_by", flow.ingress_allowed_by),
            egress_denied_by: self.keep("egress_denied_by", flow.egress_denied_by),
            ingress_denied_by: self.keep("ingress_denied_by", flow.ingress_denied_by),
            ..Flow::default()
        }
    }

    fn endpoint(&self, field: &str, endpoint: Option<Endpoint>) -> Option<Endpoint> {
        if self.has(field) || !self.leads_into(field) {
            return self.keep(field, endpoint);
        }
        let own = |name: &str| format!("{field}.{name}");
        endpoint.map(|endpoint| Endpoint {
            id: self.keep(&own("ID"), endpoint.id),
            identity: self.keep(&own("identity"), endpoint.identity),
            cluster_name: self.keep(&own("cluster_name"), endpoint.cluster_name),
            namespace: self.keep(&own("namespace"), endpoint.namespace),
            labels: self.keep(&own("labels"), endpoint.labels),
            pod_name: self.keep(&own("pod_name"), endpoint.pod_name),
            workloads: self.keep(&own("workloads"), endpoint.workloads),
        })
    }

    fn keep<T: Default>(&self, field: &str, value: T) -> T {
        if self.has(field) || self.leads_into(field) {
            value
        } else {
            T::default()
        }
    }

    fn has(&self, field: &str) -> bool {
        self.0.as_ref().is_none_or(|paths| paths.contains(field))
    }

    fn leads_into(&self, field: &str) -> bool {
        let mut paths = self.0.iter().flatten();
        paths.any(|path| {
            let rest = path.strip_prefix(field);
            rest.is_some_and(|rest| rest.starts_with('.'))
        })
    }
}

/// Fields of an endpoint.
const ENDPOINT: [&str; 7] = [
    "ID",
    "identity",
    "cluster_name",
    "namespace",
    "labels",
    "pod_name",
    "workloads",
];

/// Fields of a flow.
pub(super) const FLOW: [&str; 45] = [
    "time",
    "uuid",
    "emitter",
    "verdict",
    "drop_reason",
    "auth_type",
    "ethernet",
    "IP",
    "l4",
    "tunnel",
    "source",
    "destination",
    "Type",
    "node_name",
    "node_labels",
    "source_names",
    "destination_names",
    "l7",
    "reply",
    "event_type",
    "source_service",
    "destination_service",
    "traffic_direction",
    "policy_match_type",
    "trace_observation_point",
    "trace_reason",
    "file",
    "ip_trace_id",
    "drop_reason_desc",
    "is_reply",
    "debug_capture_point",
    "interface",
    "proxy_port",
    "trace_context",
    "sock_xlate_point",
    "socket_cookie",
    "cgroup_id",
    "Summary",
    "extensions",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "policy_log",
    "aggregate",
];
