//! Hubble's filters of flows.
//!
//! What Weir cannot judge is refused: a filter that is passed over would show what nobody asked for, and one that nothing meets would hide what
//! somebody did.

mod ends;
mod selector;

use super::flow::{HOST, REMOTE_NODE, WORLD};
use super::proto::flow::flow_filter::Experimental;
use super::proto::flow::{
    DropReason, EventTypeFilter, Flow, FlowFilter, IpVersion, TrafficDirection, Verdict, layer4,
};
use ends::{End, EndFilter};

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// Weir does not know what it asks for.
    #[error("filter {field}: Weir's flows do not have that; leave it out")]
    Unknown {
        /// The field.
        field: &'static str,
    },
    /// It means nothing.
    #[error("filter {field}: cannot read {value:?}: {why}")]
    Unreadable {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FilterError {
    fn unreadable(field: &'static str, value: &str, why: impl ToString) -> Self {
        Self::Unreadable {
            field,
            value: value.to_owned(),
            why: why.to_string(),
        }
    }
}

/// What flows are wanted: any of some, none of others.
#[derive(Debug, Default)]
pub(super) struct Filters {
    wanted: Vec<Filter>,
    unwanted: Vec<Filter>,
}

impl Filters {
    /// Those of a request.
    pub(super) fn new(
        whitelist: Vec<FlowFilter>,
        blacklist: Vec<FlowFilter>,
    ) -> Result<Self, FilterError> {
        let read = |filters: Vec<FlowFilter>| -> Result<Vec<_>, _> {
            filters.into_iter().map(Filter::new).collect()
        };
        Ok(Self {
            wanted: read(whitelist)?,
            unwanted: read(blacklist)?,
        })
    }

    /// Whether a flow is wanted.
    pub(super) fn want(&self, flow: &Flow) -> bool {
        let mut wanted = self.wanted.iter();
        (self.wanted.is_empty() || wanted.any(|filter| filter.matches(flow)))
            && !self.unwanted.iter().any(|filter| filter.matches(flow))
    }
}

/// Conditions that all must hold; each holds if any of its values does.
#[derive(Debug)]
struct Filter {
    source: EndFilter,
    destination: EndFilter,
    directions: Vec<TrafficDirection>,
    verdicts: Vec<Verdict>,
    reasons: Vec<DropReason>,
    events: Vec<EventTypeFilter>,
    protocols: Vec<Protocol>,
    replies: Vec<bool>,
    nodes: Vec<String>,
    versions: Vec<IpVersion>,
}

/// Protocols that filters name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
    IcmpV4,
    IcmpV6,
}

impl Filter {
    fn new(filter: FlowFilter) -> Result<Self, FilterError> {
        // Every field has a name here: one that is new must not be passed over.
        let FlowFilter {
            uuid,
            source_ip,
            source_ip_xlated,
            source_pod,
            source_fqdn,
            source_label,
            source_service,
            source_workload,
            source_cluster_name,
            destination_ip,
            destination_pod,
            destination_fqdn,
            destination_label,
            destination_service,
            destination_workload,
            destination_cluster_name,
            traffic_direction,
            verdict,
            drop_reason_desc,
            interface,
            event_type,
            http_status_code,
            protocol,
            source_port,
            destination_port,
            reply,
            dns_query,
            source_identity,
            destination_identity,
            http_method,
            http_path,
            http_url,
            http_header,
            tcp_flags,
            node_name,
            node_labels,
            ip_version,
            trace_id,
            ip_trace_id,
            encrypted,
            experimental,
        } = filter;
        let Experimental { cel_expression } = experimental.unwrap_or_default();
        for (field, is_asked) in [
            ("uuid", !uuid.is_empty()),
            ("source_ip_xlated", !source_ip_xlated.is_empty()),
            ("source_fqdn", !source_fqdn.is_empty()),
            ("source_cluster_name", !source_cluster_name.is_empty()),
            ("destination_fqdn", !destination_fqdn.is_empty()),
            (
                "destination_cluster_name",
                !destination_cluster_name.is_empty(),
            ),
            ("interface", !interface.is_empty()),
            ("http_status_code", !http_status_code.is_empty()),
            ("dns_query", !dns_query.is_empty()),
            ("http_method", !http_method.is_empty()),
            ("http_path", !http_path.is_empty()),
            ("http_url", !http_url.is_empty()),
            ("http_header", !http_header.is_empty()),
            // Only ends of connections have flags.
            ("tcp_flags", !tcp_flags.is_empty()),
            ("node_labels", !node_labels.is_empty()),
            ("trace_id", !trace_id.is_empty()),
            ("ip_trace_id", !ip_trace_id.is_empty()),
            ("encrypted", !encrypted.is_empty()),
            ("experimental.cel_expression", !cel_expression.is_empty()),
        ] {
            if is_asked {
                return Err(FilterError::Unknown { field });
            }
        }
        let source = End {
            ips: ("source_ip", source_ip),
            pods: ("source_pod", source_pod),
            labels: ("source_label", source_label),
            services: ("source_service", source_service),
            workloads: source_workload,
            ports: ("source_port", source_port),
            identities: ("source_identity", source_identity),
        };
        let destination = End {
            ips: ("destination_ip", destination_ip),
            pods: ("destination_pod", destination_pod),
            labels: ("destination_label", destination_label),
            services: ("destination_service", destination_service),
            workloads: destination_workload,
            ports: ("destination_port", destination_port),
            identities: ("destination_identity", destination_identity),
        };
        Ok(Self {
            source: EndFilter::new(source)?,
            destination: EndFilter::new(destination)?,
            directions: known("traffic_direction", traffic_direction)?,
            verdicts: known("verdict", verdict)?,
            reasons: known("drop_reason_desc", drop_reason_desc)?,
            events: event_type,
            protocols: protocols(&protocol)?,
            replies: reply,
            nodes: node_name,
            versions: known("ip_version", ip_version)?,
        })
    }

    fn matches(&self, flow: &Flow) -> bool {
        let version = flow.ip.as_ref().map(super::proto::flow::Ip::ip_version);
        self.source.matches(&ends::source(flow))
            && self.destination.matches(&ends::destination(flow))
            && any(&self.directions, |it| *it == flow.traffic_direction())
            && any(&self.verdicts, |it| *it == flow.verdict())
            && any(&self.reasons, |it| *it == flow.drop_reason_desc())
            && any(&self.events, |it| is_event(it, flow))
            && any(&self.protocols, |it| Some(*it) == protocol(flow))
            && any(&self.replies, |it| Some(*it) == flow.is_reply)
            && any(&self.nodes, |it| is_named(it, &flow.node_name))
            && any(&self.versions, |it| Some(*it) == version)
    }
}

/// Whether any of the conditions holds; none is no condition.
fn any<T>(conditions: &[T], holds: impl Fn(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}

/// Values of an enumeration.
fn known<T: TryFrom<i32>>(field: &'static str, numbers: Vec<i32>) -> Result<Vec<T>, FilterError> {
    let known = |number: i32| {
        T::try_from(number).map_err(|_| {
            FilterError::unreadable(field, &number.to_string(), "no such value is known")
        })
    };
    numbers.into_iter().map(known).collect()
}

fn protocols(names: &[String]) -> Result<Vec<Protocol>, FilterError> {
    let mut all = Vec::new();
    for name in names {
        match &*name.to_ascii_lowercase() {
            "tcp" => all.push(Protocol::Tcp),
            "udp" => all.push(Protocol::Udp),
            "sctp" => all.push(Protocol::Sctp),
            "icmp" => all.extend([Protocol::IcmpV4, Protocol::IcmpV6]),
            "icmpv4" => all.push(Protocol::IcmpV4),
            "icmpv6" => all.push(Protocol::IcmpV6),
            _ => {
                let known = "Weir knows tcp, udp, sctp, icmp, icmpv4 and icmpv6";
                return Err(FilterError::unreadable("protocol", name, known));
            }
        }
    }
    Ok(all)
}

fn protocol(flow: &Flow) -> Option<Protocol> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(_) => Some(Protocol::Tcp),
        layer4::Protocol::Udp(_) => Some(Protocol::Udp),
        layer4::Protocol::Sctp(_) => Some(Protocol::Sctp),
        layer4::Protocol::IcmPv4(_) => Some(Protocol::IcmpV4),
        layer4::Protocol::IcmPv6(_) => Some(Protocol::IcmpV6),
        layer4::Protocol::Vrrp(_) | layer4::Protocol::Igmp(_) => None,
    }
}

fn is_event(wanted: &EventTypeFilter, flow: &Flow) -> bool {
    flow.event_type.is_some_and(|event| {
        event.r#type == wanted.r#type
            && (!wanted.match_sub_type || event.sub_type == wanted.sub_type)
    })
}

/// Whether a pattern is for a node: its name, with `*` for anything in it, after the name of a cluster or not.
fn is_named(pattern: &str, node: &str) -> bool {
    let pattern = pattern.rsplit_once('/').map_or(pattern, |(_, name)| name);
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = node.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        // `CLUSTER/` is for all of its nodes.
        return rest.is_empty() || pattern.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Identities that are known.
const IDENTITIES: [u32; 3] = [HOST, WORLD, REMOTE_NODE];
