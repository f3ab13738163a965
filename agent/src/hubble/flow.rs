//! Flow records as Hubble has them.

use std::net::IpAddr;

use jiff::Timestamp;

use super::proto::flow::{
    CiliumEventType, DropReason, Emitter, Endpoint, Flow, FlowType, IcmPv4, IcmPv6, Ip, IpVersion,
    Layer4, Policy, Sctp, Service, Tcp, TcpFlags, TraceObservationPoint, TraceReason,
    TrafficDirection, Udp, Verdict, Workload, layer4,
};
use super::reason::drop_reason;
use crate::flows::{Ended, Outcome, Owner, Peer, Record, TcpFlag};
use crate::model::{Direction, ObjectName, Snapshot, Tier};

/// Types of events, numbers of the monitor that Hubble was made for.
pub(super) const DROP: i32 = 1;
pub(super) const TRACE: i32 = 4;
/// Identities that are reserved; pods have none here.
pub(super) const HOST: u32 = 1;
pub(super) const WORLD: u32 = 2;
pub(super) const REMOTE_NODE: u32 = 6;
/// Subtypes of traces: where a packet leaves for its pod, and where it comes from one.
const TO_POD: i32 = 0;
const FROM_POD: i32 = 5;

/// A record; labels of pods are those of now.
pub(super) fn flow(record: &Record, snapshot: &Snapshot) -> Flow {
    let backend = record.backend.as_ref().unwrap_or(&record.destination);
    let refused = record.verdict.is_refusal();
    // Of a reason that this version does not know, it knows no more than that.
    let reason = refused.then(|| drop_reason(&record.reason).unwrap_or(DropReason::Unknown));
    let is_ingress = record.direction == Direction::Ingress;
    let (event, point) = match (reason, is_ingress) {
        (Some(reason), _) => ((DROP, reason as i32), TraceObservationPoint::UnknownPoint),
        (None, true) => ((TRACE, TO_POD), TraceObservationPoint::ToEndpoint),
        (None, false) => ((TRACE, FROM_POD), TraceObservationPoint::FromEndpoint),
    };
    let service = match &record.destination.owner {
        Some(Owner::Service(name)) => Some(name),
        _ => None,
    };
    let policies = Policies::of(record);
    let mut flow = Flow {
        time: Some(timestamp(record.time)),
        emitter: Some(Emitter {
            name: "weir".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        ip: Some(ip(record.source.address, backend.address)),
        l4: layer4(record, backend),
        source: Some(endpoint(&record.source, snapshot)),
        destination: Some(endpoint(backend, snapshot)),
        node_name: record.node.clone(),
        event_type: Some(CiliumEventType {
            r#type: event.0,
            sub_type: event.1,
        }),
        destination_service: service.map(|service| Service {
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        }),
        // What was refused may be of any packet of a flow, but for what only first ones are judged by.
        is_reply: (!refused || record.reason == "policy_denied").then_some(false),
        egress_allowed_by: policies.allowed[0].clone(),
        ingress_allowed_by: policies.allowed[1].clone(),
        egress_denied_by: policies.denied[0].clone(),
        ingress_denied_by: policies.denied[1].clone(),
        ..Flow::default()
    };
    flow.set_type(FlowType::L3L4);
    flow.set_verdict(match record.verdict {
        Outcome::Forwarded | Outcome::Ended => Verdict::Forwarded,
        // A rejection is an answer, which Hubble has no word for.
        Outcome::Dropped | Outcome::Rejected => Verdict::Dropped,
    });
    flow.set_traffic_direction(if is_ingress {
        TrafficDirection::Ingress
    } else {
        TrafficDirection::Egress
    });
    flow.set_trace_observation_point(point);
    match (reason, &record.ended) {
        (Some(reason), _) => flow.set_drop_reason_desc(reason),
        (None, None) => flow.set_trace_reason(TraceReason::New),
        (None, Some(_)) => flow.set_trace_reason(TraceReason::Established),
    }
    with_what_clients_still_read(flow, record, reason)
}

/// Clients print the summary, and some read the number of a drop.
#[allow(deprecated, reason = "no other field has it")]
fn with_what_clients_still_read(
    mut flow: Flow,
    record: &Record,
    reason: Option<DropReason>,
) -> Flow {
    flow.drop_reason = reason.map_or(0, |reason| reason as u32);
    flow.summary = match &record.ended {
        Some(ended) => summary(record, ended),
        None => record.protocol.clone(),
    };
    flow
}

fn summary(record: &Record, ended: &Ended) -> String {
    format!(
        "{} {}; sent {} packets, {} bytes; received {} packets, {} bytes",
        record.protocol,
        record.reason,
        ended.sent.packets,
        ended.sent.bytes,
        ended.received.packets,
        ended.received.bytes
    )
}

/// A time as protobuf has it.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Seconds count down before 1970, nanoseconds never.
    let nanoseconds = time.as_nanosecond();
    let second = 1_000_000_000;
    prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(second) as i64,
        nanos: nanoseconds.rem_euclid(second) as i32,
    }
}

fn ip(source: IpAddr, destination: IpAddr) -> Ip {
    let mut ip = Ip {
        source: source.to_string(),
        destination: destination.to_string(),
        ..Ip::default()
    };
    ip.set_ip_version(if source.is_ipv4() {
        IpVersion::IPv4
    } else {
        IpVersion::IPv6
    });
    ip
}

fn layer4(record: &Record, backend: &Peer) -> Option<Layer4> {
    let (source_port, destination_port) = (record.source.port.into(), backend.port.into());
    let protocol = match &*record.protocol {
        "TCP" => layer4::Protocol::Tcp(Tcp {
            source_port,
            destination_port,
            flags: record.ended.as_ref().map(|it| flags(&it.sent.tcp_flags)),
        }),
        "UDP" => layer4::Protocol::Udp(Udp {
            source_port,
            destination_port,
        }),
        "SCTP" => layer4::Protocol::Sctp(Sctp {
            source_port,
            destination_port,
            ..Sctp::default()
        }),
        // Which message it was is not recorded.
        "ICMP" => layer4::Protocol::IcmPv4(IcmPv4::default()),
        "ICMPv6" => layer4::Protocol::IcmPv6(IcmPv6::default()),
        _ => return None,
    };
    Some(Layer4 {
        protocol: Some(protocol),
    })
}

fn flags(seen: &[TcpFlag]) -> TcpFlags {
    let mut flags = TcpFlags::default();
    for flag in seen {
        let set = match flag {
            TcpFlag::Fin => &mut flags.fin,
            TcpFlag::Syn => &mut flags.syn,
            TcpFlag::Rst => &mut flags.rst,
            TcpFlag::Psh => &mut flags.psh,
            TcpFlag::Ack => &mut flags.ack,
            TcpFlag::Urg => &mut flags.urg,
        };
        *set = true;
    }
    flags
}

fn endpoint(peer: &Peer, snapshot: &Snapshot) -> Endpoint {
    let reserved = |identity, name: &str| Endpoint {
        identity,
        labels: vec![format!("reserved:{name}")],
        ..Endpoint::default()
    };
    match &peer.owner {
        Some(Owner::Pod(pod)) => Endpoint {
            namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            labels: labels(pod, snapshot),
            workloads: peer.workload.as_ref().map(workload).into_iter().collect(),
            ..Endpoint::default()
        },
        Some(Owner::Node(node)) if *node == snapshot.node_name => reserved(HOST, "host"),
        Some(Owner::Node(_)) => reserved(REMOTE_NODE, "remote-node"),
        // What is no endpoint of a Service was for the Service itself.
        Some(Owner::Service(service)) => Endpoint {
            namespace: service.namespace.clone(),
            ..Endpoint::default()
        },
        None => reserved(WORLD, "world"),
    }
}

fn labels(pod: &ObjectName, snapshot: &Snapshot) -> Vec<String> {
    let namespace = format!("k8s:io.kubernetes.pod.namespace={}", pod.namespace);
    let own = snapshot.pods.get(pod).into_iter();
    let own = own.flat_map(|pod| pod.labels.iter());
    let own = own.map(|(key, value)| format!("k8s:{key}={value}"));
    own.chain([namespace]).collect()
}

/// The workload `NAMESPACE/KIND/NAME` of a record.
fn workload(workload: &ObjectName) -> Workload {
    let (kind, name) = workload.name.split_once('/').unwrap_or_default();
    Workload {
        name: name.to_owned(),
        kind: kind_of(kind).to_owned(),
    }
}

/// The kind that a short name stands for.
fn kind_of(short: &str) -> &str {
    match short {
        "deploy" => "Deployment",
        "sts" => "StatefulSet",
        "ds" => "DaemonSet",
        "job" => "Job",
        "cronjob" => "CronJob",
        "rs" => "ReplicaSet",
        other => other,
    }
}

/// Policies that decided, for egress and for ingress.
#[derive(Default)]
struct Policies {
    allowed: [Vec<Policy>; 2],
    denied: [Vec<Policy>; 2],
}

impl Policies {
    fn of(record: &Record) -> Self {
        let mut policies = Self::default();
        let side = |direction| usize::from(direction == Direction::Ingress);
        for (direction, rule) in record.rules() {
            let of = if record.verdict.is_refusal() {
                &mut policies.denied
            } else {
                &mut policies.allowed
            };
            of[side(direction)].push(policy(&rule.policy, rule.tier));
        }
        let denied = &mut policies.denied[side(record.direction)];
        denied.extend(
            record
                .denied_by
                .iter()
                .map(|name| policy(name, Tier::NetworkPolicy)),
        );
        policies
    }
}

fn policy(name: &ObjectName, tier: Tier) -> Policy {
    let kind = match tier {
        Tier::NetworkPolicy => "NetworkPolicy",
        Tier::Admin | Tier::Baseline => "ClusterNetworkPolicy",
    };
    Policy {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        kind: kind.to_owned(),
        ..Policy::default()
    }
}
