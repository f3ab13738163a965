//! Conditions on one end of a flow.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::selector::{labels, selector};
use super::{FilterError, IDENTITIES, any};
use crate::hubble::proto::flow::{Endpoint, Flow, Service, Workload, layer4};
use crate::model::Selector;

/// What a filter says of an end, with the names of its fields.
pub(super) struct End {
    pub(super) ips: (&'static str, Vec<String>),
    pub(super) pods: (&'static str, Vec<String>),
    pub(super) labels: (&'static str, Vec<String>),
    pub(super) services: (&'static str, Vec<String>),
    pub(super) workloads: Vec<Workload>,
    pub(super) ports: (&'static str, Vec<String>),
    pub(super) identities: (&'static str, Vec<u32>),
}

/// The same, understood.
#[derive(Debug)]
pub(super) struct EndFilter {
    ips: Vec<IpNetwork>,
    pods: Vec<Name>,
    labels: Vec<Selector>,
    services: Vec<Name>,
    workloads: Vec<Workload>,
    ports: Vec<u32>,
    identities: Vec<u32>,
}

/// `NAMESPACE/PREFIX`; either may be empty for any, and without a namespace it is `default`.
#[derive(Debug)]
struct Name {
    namespace: String,
    prefix: String,
}

impl Name {
    fn parse(field: &'static str, text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::unreadable(field, text, "a name is missing"));
        }
        let (namespace, prefix) = text.split_once('/').unwrap_or(("default", text));
        Ok(Self {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn is(&self, namespace: &str, name: &str) -> bool {
        let is_any = namespace.is_empty() && name.is_empty();
        let of_namespace = self.namespace.is_empty() || self.namespace == namespace;
        !is_any && of_namespace && name.starts_with(&self.prefix)
    }
}

/// An end of a flow.
pub(super) struct OfFlow<'f> {
    ip: Option<IpAddr>,
    endpoint: Option<&'f Endpoint>,
    service: Option<&'f Service>,
    port: Option<u32>,
}

pub(super) fn source(flow: &Flow) -> OfFlow<'_> {
    OfFlow {
        ip: flow.ip.as_ref().and_then(|ip| ip.source.parse().ok()),
        endpoint: flow.source.as_ref(),
        service: flow.source_service.as_ref(),
        port: ports(flow).map(|[source, _]| source),
    }
}

pub(super) fn destination(flow: &Flow) -> OfFlow<'_> {
    OfFlow {
        ip: flow.ip.as_ref().and_then(|ip| ip.destination.parse().ok()),
        endpoint: flow.destination.as_ref(),
        service: flow.destination_service.as_ref(),
        port: ports(flow).map(|[_, destination]| destination),
    }
}

fn ports(flow: &Flow) -> Option<[u32; 2]> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(it) => Some([it.source_port, it.destination_port]),
        layer4::Protocol::Udp(it) => Some([it.source_port, it.destination_port]),
        layer4::Protocol::Sctp(it) => Some([it.source_port, it.destination_port]),
        _ => None,
    }
}

impl EndFilter {
    pub(super) fn new(end: End) -> Result<Self, FilterError> {
        let (field, identities) = end.identities;
        if let Some(other) = identities.iter().find(|it| !IDENTITIES.contains(it)) {
            let known = "Weir has no identities but 1 (host), 2 (world) and 6 (remote-node)";
            return Err(FilterError::unreadable(field, &other.to_string(), known));
        }
        Ok(Self {
            ips: each(end.ips, |field, text| {
                let block: Result<IpNetwork, _> = text.parse();
                block.map_err(|error| FilterError::unreadable(field, text, error))
            })?,
            pods: each(end.pods, Name::parse)?,
            labels: each(end.labels, |field, text| {
                selector(text).map_err(|error| FilterError::unreadable(field, text, error))
            })?,
            services: each(end.services, Name::parse)?,
            workloads: end.workloads,
            ports: each(end.ports, |field, text| {
                let port: Result<u16, _> = text.parse();
                let port = port.map_err(|error| FilterError::unreadable(field, text, error))?;
                Ok(port.into())
            })?,
            identities,
        })
    }

    pub(super) fn matches(&self, end: &OfFlow<'_>) -> bool {
        let endpoint = end.endpoint.cloned().unwrap_or_default();
        let (namespace, pod) = (&endpoint.namespace, &endpoint.pod_name);
        let is_workload = |wanted: &Workload| {
            let mut all = endpoint.workloads.iter();
            all.any(|it| {
                (wanted.name.is_empty() || wanted.name == it.name)
                    && (wanted.kind.is_empty() || wanted.kind == it.kind)
            })
        };
        any(&self.ips, |block| {
            end.ip.is_some_and(|ip| block.contains(ip))
        }) && any(&self.pods, |name| name.is(namespace, pod))
            && any(&self.labels, |it| it.matches(&labels(&endpoint.labels)))
            && any(&self.services, |name| {
                let service = end.service;
                service.is_some_and(|it| name.is(&it.namespace, &it.name))
            })
            && any(&self.workloads, is_workload)
            && any(&self.ports, |port| Some(*port) == end.port)
            && any(&self.identities, |it| *it == endpoint.identity)
    }
}

fn each<T>(
    (field, texts): (&'static str, Vec<String>),
    read: impl Fn(&'static str, &str) -> Result<T, FilterError>,
) -> Result<Vec<T>, FilterError> {
    texts.iter().map(|text| read(field, text)).collect()
}
