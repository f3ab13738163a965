mod filters;
mod streams;

use weir_common::abi::Event;

use super::flow::flow;
use super::mask::Mask;
use super::proto::flow::{Flow, IpVersion, TraceReason, TrafficDirection, Verdict, layer4};
use crate::admin::Provider;
use crate::admin::tests::provider;
use crate::flows::tests::{ended, event, record};
use crate::flows::{Outcome, Owner, Record};
use crate::model::ObjectName;

/// What a client gets of a record.
fn given(record: &Record) -> Flow {
    flow(record, &provider().snapshot())
}

/// The first packet of a connection that was let through.
fn forwarded() -> Record {
    let mut record = record(&event());
    record.verdict = Outcome::Forwarded;
    record.reason = "not_isolated".to_owned();
    record.denied_by = Vec::new();
    record
}

#[test]
fn a_drop_says_who_whom_and_which_policies() {
    let mut dropped = record(&event());
    dropped.source.workload = Some(ObjectName::new("shop", "deploy/client"));
    let flow = given(&dropped);
    assert_eq!(
        (flow.verdict(), flow.traffic_direction()),
        (Verdict::Dropped, TrafficDirection::Ingress)
    );
    let event = flow.event_type.unwrap();
    assert_eq!((event.r#type, event.sub_type), (1, 133));
    assert_eq!(flow.drop_reason_desc().as_str_name(), "POLICY_DENIED");
    let source = flow.source.as_ref().unwrap();
    assert_eq!((&*source.namespace, &*source.pod_name), ("shop", "client"));
    let workload = &source.workloads[0];
    assert_eq!((&*workload.kind, &*workload.name), ("Deployment", "client"));
    // The endpoint, and the Service that it was addressed to.
    let destination = flow.destination.as_ref().unwrap();
    assert_eq!(destination.pod_name, "server");
    let service = flow.destination_service.as_ref().unwrap();
    assert_eq!((&*service.namespace, &*service.name), ("shop", "web"));
    let ip = flow.ip.as_ref().unwrap();
    assert_eq!((&*ip.source, &*ip.destination), ("10.0.0.1", "10.0.0.2"));
    assert_eq!(ip.ip_version(), IpVersion::IPv4);
    let Some(layer4::Protocol::Tcp(tcp)) = &flow.l4.as_ref().unwrap().protocol else {
        panic!("{:?}", flow.l4);
    };
    assert_eq!((tcp.source_port, tcp.destination_port), (40_000, 8080));
    assert_eq!(tcp.flags, None, "they are not recorded");
    let denied = &flow.ingress_denied_by[0];
    assert_eq!(
        (&*denied.namespace, &*denied.name, &*denied.kind),
        ("shop", "deny", "NetworkPolicy")
    );
    assert!(flow.egress_denied_by.is_empty() && flow.ingress_allowed_by.is_empty());
    assert_eq!((&*flow.node_name, flow.is_reply), ("n1", Some(false)));
    let time = flow.time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1_767_323_040, 0));
}

#[test]
fn a_first_packet_is_new_and_an_end_tells_what_there_was() {
    let new = given(&forwarded());
    assert_eq!(new.trace_reason(), TraceReason::New);
    assert_eq!(
        (new.verdict(), new.event_type.unwrap().r#type),
        (Verdict::Forwarded, 4)
    );
    assert!(new.ingress_denied_by.is_empty());
    let end = given(&ended());
    assert_eq!(end.trace_reason(), TraceReason::Established);
    assert_eq!(end.traffic_direction(), TrafficDirection::Egress);
    // Seen from its opener, but each end's rule is where it decided.
    assert_eq!(end.ingress_allowed_by[0].name, "allow");
    assert!(end.egress_allowed_by.is_empty());
    let Some(layer4::Protocol::Tcp(tcp)) = &end.l4.as_ref().unwrap().protocol else {
        panic!("{:?}", end.l4);
    };
    let flags = tcp.flags.unwrap();
    assert!(flags.syn && flags.ack && flags.psh && flags.fin && !flags.rst);
    #[allow(deprecated, reason = "clients print it")]
    let summary = end.summary;
    assert_eq!(
        summary,
        "TCP closed; sent 5 packets, 500 bytes; received 4 packets, 4000 bytes"
    );
}

#[test]
fn a_rejection_is_a_drop_and_the_direction_of_odd_packets_is_not_known() {
    let mut rejected = record(&event());
    rejected.verdict = Outcome::Rejected;
    rejected.reason = "no_endpoint".to_owned();
    rejected.denied_by = Vec::new();
    let flow = given(&rejected);
    assert_eq!(flow.verdict(), Verdict::Dropped);
    assert_eq!(
        flow.drop_reason_desc().as_str_name(),
        "SERVICE_BACKEND_NOT_FOUND"
    );
    assert_eq!(flow.is_reply, None);
    rejected.reason = "of_a_later_version".to_owned();
    assert_eq!(
        given(&rejected).drop_reason_desc().as_str_name(),
        "DROP_REASON_UNKNOWN"
    );
}

#[test]
fn who_is_no_pod_has_a_reserved_identity() {
    for (owner, identity, label) in [
        (Some(Owner::Node("n1".to_owned())), 1, "reserved:host"),
        (
            Some(Owner::Node("n2".to_owned())),
            6,
            "reserved:remote-node",
        ),
        (None, 2, "reserved:world"),
    ] {
        let mut record = forwarded();
        record.source.owner = owner;
        let source = given(&record).source.unwrap();
        assert_eq!(
            (source.identity, &*source.labels),
            (identity, &[label.to_owned()][..])
        );
    }
}

#[test]
fn pods_have_their_labels_and_namespace() {
    let mut record = forwarded();
    record.source.owner = Some(Owner::Pod(ObjectName::new("shop", "front")));
    let labels = given(&record).source.unwrap().labels;
    let namespace = "k8s:io.kubernetes.pod.namespace=shop".to_owned();
    assert!(labels.contains(&namespace), "{labels:?}");
    assert!(
        labels.iter().all(|label| label.starts_with("k8s:")),
        "{labels:?}"
    );
}

#[test]
fn other_protocols_have_no_ports() {
    for (number, name) in [(1, "ICMPv4"), (58, "ICMPv6"), (132, "SCTP"), (17, "UDP")] {
        let flow = given(&record(&Event {
            protocol: number,
            ..event()
        }));
        let shown = format!("{:?}", flow.l4.unwrap().protocol.unwrap()).to_lowercase();
        assert!(shown.starts_with(&name.to_lowercase()), "{shown}");
    }
    assert_eq!(
        given(&record(&Event {
            protocol: 47,
            ..event()
        }))
        .l4,
        None
    );
}

fn mask(paths: &[&str]) -> Result<Mask, String> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Mask::new(Some(prost_types::FieldMask { paths })).map_err(|error| error.to_string())
}

#[test]
fn a_mask_leaves_what_it_names() {
    let whole = given(&record(&event()));
    assert_eq!(Mask::new(None).unwrap().apply(whole.clone()), whole);
    assert_eq!(mask(&[]).unwrap().apply(whole.clone()), whole);
    let some = mask(&["verdict", "source.pod_name", "IP.source", "destination"]);
    let some = some.unwrap().apply(whole.clone());
    let source = some.source.clone().unwrap();
    assert_eq!((&*source.pod_name, &*source.namespace), ("client", ""));
    assert_eq!(some.destination, whole.destination);
    assert_eq!(some.ip, whole.ip);
    assert_eq!(
        (some.verdict, some.time, &*some.node_name),
        (whole.verdict, None, "")
    );
    assert!(some.ingress_denied_by.is_empty());
    for path in ["nonsense", "source.nonsense", "", "destination."] {
        let error = mask(&[path]).unwrap_err();
        assert_eq!(error, format!("field_mask: a flow has no {path:?}"));
    }
}

/// The default of the client, and every field: a mask of all is none.
#[test]
fn no_field_that_is_given_can_be_asked_for_in_vain() {
    let default = [
        "time",
        "verdict",
        "ethernet",
        "IP",
        "l4",
        "source.identity",
        "source.namespace",
        "source.pod_name",
        "destination.identity",
        "destination.namespace",
        "destination.pod_name",
        "Type",
        "node_name",
        "l7",
        "event_type",
        "source_service",
        "destination_service",
        "is_reply",
        "Summary",
        "ip_trace_id",
        "traffic_direction",
        "policy_match_type",
        "ingress_allowed_by",
        "ingress_denied_by",
        "egress_allowed_by",
        "egress_denied_by",
    ];
    mask(&default).unwrap();
    for record in [record(&event()), forwarded(), ended()] {
        let whole = given(&record);
        let all = mask(&super::mask::FLOW).unwrap();
        assert_eq!(all.apply(whole.clone()), whole);
    }
}
