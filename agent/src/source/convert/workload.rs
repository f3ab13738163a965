//! v1 Pod, Namespace and Node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::address::parse_ip;
use super::fields::{self, dual_stack};
use super::{Conversion, Converted};
use crate::model::{ContainerPort, Kind, Namespace, Node, Object, Pod, Protocol};
use crate::source::Fault;

/// Label that says in which zone a node is (well-known label).
const ZONE: &str = "topology.kubernetes.io/zone";
/// Annotation of the object that stands for a static pod (well-known annotation).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotations by which pods ask to be scraped (a convention of Prometheus' example configuration).
const SCRAPE: &str = "prometheus.io/scrape";
const SCRAPE_PORT: &str = "prometheus.io/port";
/// Taint of a node that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Converts a Pod. One that is not scheduled yet is not ours.
pub fn pod(object: api::Pod) -> Conversion {
    let name = fields::namespaced(Kind::Pod, &object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let Some(node) = spec.node_name.filter(|node| !node.is_empty()) else {
        return Ok(None);
    };
    let status = object.status.unwrap_or_default();
    let texts: Vec<_> = match status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.into_iter().map(|ip| ip.ip).collect(),
        _ => Vec::from_iter(status.pod_ip),
    };
    let (ips, mut flaws) = dual_stack("status.podIPs", &texts);

    let init = spec.init_containers.unwrap_or_default();
    let sidecars = indexed("spec.initContainers", init)
        .filter(|(_, container)| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = Vec::new();
    for (field, container) in indexed("spec.containers", spec.containers).chain(sidecars) {
        let declared = container.ports.unwrap_or_default();
        for (field, port) in indexed(&format!("{field}.ports"), declared) {
            match container_port(port, &field) {
                Ok(port) => ports.push(port),
                Err(flaw) => flaws.push(flaw),
            }
        }
    }

    let metadata = object.metadata;
    let mut annotations = metadata.annotations.unwrap_or_default();
    Ok(Some(Converted {
        object: Object::Pod(Pod {
            uid: metadata
                .uid
                .filter(|uid| !uid.is_empty())
                .unwrap_or_else(|| name.to_string()),
            scraped: scraped(&annotations, &ports),
            mirrors: annotations.remove(MIRROR),
            labels: metadata.labels.unwrap_or_default(),
            ips,
            host_network: spec.host_network.unwrap_or(false),
            terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            node,
            ports,
            created: metadata
                .creation_timestamp
                .map_or(0, |time| time.0.as_second()),
            name,
        }),
        flaws,
    }))
}

/// Where a pod is scraped that asks for it: at the port that it names, else at the first that it declares.
fn scraped(annotations: &BTreeMap<String, String>, ports: &[ContainerPort]) -> Option<u16> {
    if annotations.get(SCRAPE).map(String::as_str) != Some("true") {
        return None;
    }
    match annotations.get(SCRAPE_PORT) {
        Some(port) => port.parse().ok().filter(|port| *port != 0),
        None => {
            let mut tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            tcp.next().map(|port| port.port)
        }
    }
}

fn indexed<T>(field: &str, items: Vec<T>) -> impl Iterator<Item = (String, T)> {
    items
        .into_iter()
        .enumerate()
        .map(move |(index, item)| (format!("{field}[{index}]"), item))
}

fn container_port(port: api::ContainerPort, field: &str) -> Result<ContainerPort, Fault> {
    Ok(ContainerPort {
        port: fields::port(port.container_port)
            .map_err(|problem| Fault::new(format!("{field}.containerPort"), problem))?,
        protocol: fields::protocol(port.protocol.as_deref())
            .map_err(|problem| Fault::new(format!("{field}.protocol"), problem))?,
        name: port.name.unwrap_or_default(),
    })
}

/// Converts a Namespace.
pub fn namespace(object: api::Namespace) -> Conversion {
    let name = fields::cluster(Kind::Namespace, &object.metadata)?.name;
    let labels = object.metadata.labels.unwrap_or_default();
    let namespace = Namespace::new(name, labels);
    Ok(Some(Converted::whole(Object::Namespace(namespace))))
}

/// The first address of each family.
fn primary(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut first: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if first
            .iter()
            .all(|known| known.is_ipv4() != address.is_ipv4())
        {
            first.push(address);
        }
    }
    first
}

/// Converts a Node. Its host names are left out.
pub fn node(object: api::Node) -> Conversion {
    let name = fields::cluster(Kind::Node, &object.metadata)?.name;
    let zone = fields::label(&object.metadata, ZONE)
        .unwrap_or_default()
        .to_owned();
    let taints = object.spec.into_iter().flat_map(|spec| spec.taints);
    let leaving = object.metadata.deletion_timestamp.is_some()
        || taints.flatten().any(|taint| taint.key == TO_BE_DELETED);
    let mut flaws = Vec::new();
    let mut addresses = Vec::new();
    let mut internal = Vec::new();
    let mut external = Vec::new();
    let status = object.status.unwrap_or_default();
    for (field, entry) in indexed("status.addresses", status.addresses.unwrap_or_default()) {
        let parsed = parse_ip(&entry.address);
        if let Ok(address) = parsed {
            match entry.type_.as_str() {
                "InternalIP" => internal.push(address),
                "ExternalIP" => external.push(address),
                _ => {}
            }
        }
        match parsed {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(problem) if matches!(entry.type_.as_str(), "InternalIP" | "ExternalIP") => {
                flaws.push(Fault::new(field, problem));
            }
            Err(_) => {}
        }
    }
    Ok(Some(Converted {
        object: Object::Node(Node {
            name,
            labels: object.metadata.labels.unwrap_or_default(),
            addresses,
            primary: primary(internal.into_iter().chain(external)),
            zone,
            leaving,
        }),
        flaws,
    }))
}
