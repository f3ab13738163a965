//! Filters, by the fields of a request.

use crate::flows::tests::{ended, event, record};
use crate::flows::{Outcome, Record};
use crate::hubble::filter::Filters;
use crate::hubble::proto::flow::flow_filter::Experimental;
use crate::hubble::proto::flow::{
    EventTypeFilter, FlowFilter, HttpHeader, NetworkInterface, TcpFlags, Workload,
};
use crate::model::ObjectName;

use super::given;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// From pod shop/client of Deployment client by Service shop/web to pod shop/server: a drop, or an end.
fn flows() -> [Record; 2] {
    [record(&event()), ended()].map(|mut record| {
        record.source.workload = Some(ObjectName::new("shop", "deploy/client"));
        record
    })
}

/// Whether a filter wants the drop, and the end.
fn wants(filter: FlowFilter) -> Result<[bool; 2], String> {
    let filters = Filters::new(vec![filter], Vec::new()).map_err(|error| error.to_string())?;
    Ok(flows().map(|record| filters.want(&given(&record))))
}

/// A filter with one field.
macro_rules! with {
    ($($field:ident: $value:expr),*) => {
        FlowFilter { $($field: $value,)* ..FlowFilter::default() }
    };
}

#[test]
fn each_field_judges_what_it_names() {
    let (both, neither) = ([true, true], [false, false]);
    let event = |r#type, sub_type: Option<i32>| EventTypeFilter {
        r#type,
        match_sub_type: sub_type.is_some(),
        sub_type: sub_type.unwrap_or_default(),
    };
    let workload = |kind: &str, name: &str| Workload {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    for (filter, expected) in [
        (with!(), both),
        (with!(source_ip: texts(&["10.0.0.1"])), both),
        (with!(source_ip: texts(&["10.0.0.2", "10.0.0.0/24"])), both),
        (with!(source_ip: texts(&["fd00::/8"])), neither),
        (with!(destination_ip: texts(&["10.0.0.2"])), both),
        // The Service's address is not where the packet goes.
        (with!(destination_ip: texts(&["10.0.0.96"])), neither),
        (with!(source_pod: texts(&["shop/"])), both),
        (with!(source_pod: texts(&["shop/cli"])), both),
        (with!(source_pod: texts(&["/client"])), both),
        (with!(source_pod: texts(&["client"])), neither),
        (
            with!(destination_pod: texts(&["shop/client", "shop/server"])),
            both,
        ),
        (
            with!(source_pod: texts(&["shop/"]), destination_pod: texts(&["x/"])),
            neither,
        ),
        (
            with!(source_label: texts(&["k8s:io.kubernetes.pod.namespace=shop"])),
            both,
        ),
        (with!(source_label: texts(&["reserved:world"])), neither),
        (with!(destination_label: texts(&["app=x", "!app"])), both),
        (with!(destination_service: texts(&["shop/web"])), both),
        (with!(destination_service: texts(&["shop/other"])), neither),
        (with!(source_service: texts(&["shop/web"])), neither),
        (with!(source_workload: vec![workload("", "client")]), both),
        (
            with!(source_workload: vec![workload("Deployment", "")]),
            both,
        ),
        (
            with!(source_workload: vec![workload("Job", "client")]),
            neither,
        ),
        (
            with!(destination_workload: vec![workload("", "client")]),
            neither,
        ),
        (with!(traffic_direction: vec![1]), [true, false]),
        (with!(traffic_direction: vec![2]), [false, true]),
        (with!(verdict: vec![1]), [false, true]),
        (with!(verdict: vec![2, 3]), [true, false]),
        (with!(drop_reason_desc: vec![133]), [true, false]),
        (with!(event_type: vec![event(1, None)]), [true, false]),
        (with!(event_type: vec![event(1, Some(132))]), neither),
        (with!(event_type: vec![event(4, Some(5))]), [false, true]),
        (with!(protocol: texts(&["TCP"])), both),
        (with!(protocol: texts(&["udp", "sctp", "icmp"])), neither),
        (with!(source_port: texts(&["40000"])), both),
        (with!(destination_port: texts(&["80"])), neither),
        (with!(destination_port: texts(&["80", "8080"])), both),
        (with!(reply: vec![false]), both),
        (with!(reply: vec![true]), neither),
        (with!(source_identity: vec![2]), neither),
        (with!(destination_identity: vec![1, 6]), neither),
        (with!(node_name: texts(&["n1"])), both),
        (with!(node_name: texts(&["default/n*"])), both),
        (with!(node_name: texts(&["n2", "x*"])), neither),
        (with!(ip_version: vec![1]), both),
        (with!(ip_version: vec![2]), neither),
    ] {
        let shown = format!("{filter:?}");
        assert_eq!(wants(filter), Ok(expected), "{shown}");
    }
}

#[test]
fn what_cannot_be_judged_is_refused_by_its_name() {
    let text = || texts(&["x"]);
    let header = HttpHeader {
        key: "a".to_owned(),
        value: "b".to_owned(),
    };
    let experimental = Experimental {
        cel_expression: text(),
    };
    for (filter, field) in [
        (with!(uuid: text()), "uuid"),
        (with!(source_ip_xlated: text()), "source_ip_xlated"),
        (with!(source_fqdn: text()), "source_fqdn"),
        (with!(destination_fqdn: text()), "destination_fqdn"),
        (with!(source_cluster_name: text()), "source_cluster_name"),
        (
            with!(destination_cluster_name: text()),
            "destination_cluster_name",
        ),
        (
            with!(interface: vec![NetworkInterface::default()]),
            "interface",
        ),
        (with!(http_status_code: text()), "http_status_code"),
        (with!(dns_query: text()), "dns_query"),
        (with!(http_method: text()), "http_method"),
        (with!(http_path: text()), "http_path"),
        (with!(http_url: text()), "http_url"),
        (with!(http_header: vec![header]), "http_header"),
        (with!(tcp_flags: vec![TcpFlags::default()]), "tcp_flags"),
        (with!(node_labels: text()), "node_labels"),
        (with!(trace_id: text()), "trace_id"),
        (with!(ip_trace_id: vec![1]), "ip_trace_id"),
        (with!(encrypted: vec![true]), "encrypted"),
        (
            with!(experimental: Some(experimental)),
            "experimental.cel_expression",
        ),
    ] {
        let why = wants(filter).unwrap_err();
        assert!(
            why.starts_with(&format!("filter {field}: Weir's flows do not")),
            "{why}"
        );
    }
}

#[test]
fn what_means_nothing_is_refused_with_its_value() {
    for (filter, shown) in [
        (
            with!(source_ip: texts(&["10.0.0.300"])),
            "filter source_ip: cannot read \"10.0.0.300\"",
        ),
        (
            with!(source_pod: texts(&[""])),
            "filter source_pod: cannot read \"\": a name is missing",
        ),
        (
            with!(source_label: texts(&["a in (b"])),
            "filter source_label: cannot read \"a in (b\"",
        ),
        (
            with!(destination_port: texts(&["http"])),
            "filter destination_port: cannot read \"http\"",
        ),
        (
            with!(destination_port: texts(&["65536"])),
            "filter destination_port",
        ),
        (
            with!(protocol: texts(&["http"])),
            "filter protocol: cannot read \"http\"",
        ),
        (
            with!(verdict: vec![99]),
            "filter verdict: cannot read \"99\": no such value",
        ),
        (
            with!(source_identity: vec![1234]),
            "filter source_identity: cannot read \"1234\"",
        ),
    ] {
        let why = wants(filter).unwrap_err();
        assert!(why.starts_with(shown), "{why}");
    }
}

#[test]
fn any_of_some_and_none_of_others() {
    let tcp = || with!(protocol: texts(&["tcp"]));
    let udp = || with!(protocol: texts(&["udp"]));
    let drops = || with!(verdict: vec![2]);
    for (wanted, unwanted, expected) in [
        (vec![], vec![], [true, true]),
        (vec![udp(), tcp()], vec![], [true, true]),
        (vec![udp(), drops()], vec![], [true, false]),
        (vec![], vec![drops()], [false, true]),
        (vec![tcp()], vec![udp(), drops()], [false, true]),
    ] {
        let filters = Filters::new(wanted, unwanted).unwrap();
        assert_eq!(
            flows().map(|record| filters.want(&given(&record))),
            expected
        );
    }
    let [mut rejected, _] = flows();
    rejected.verdict = Outcome::Rejected;
    assert!(
        Filters::new(vec![drops()], Vec::new())
            .unwrap()
            .want(&given(&rejected))
    );
}
