//! Fields that several kinds share.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::parse_ip;
use crate::model::{Kind, ObjectName, Protocol};
use crate::source::{Fault, Problem, Rejection};

/// Namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Name of an object of a namespaced kind.
pub(super) fn namespaced(kind: Kind, metadata: &ObjectMeta) -> Result<ObjectName, Rejection> {
    let namespace = metadata
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or(DEFAULT_NAMESPACE);
    named(kind, ObjectName::new(namespace, name(metadata)))
}

/// Name of an object of a cluster-scoped kind.
pub(super) fn cluster(kind: Kind, metadata: &ObjectMeta) -> Result<ObjectName, Rejection> {
    named(kind, ObjectName::cluster(name(metadata)))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn named(kind: Kind, name: ObjectName) -> Result<ObjectName, Rejection> {
    if name.name.is_empty() {
        return Err(Fault::new("metadata.name", Problem::NoName).of(kind, &name));
    }
    Ok(name)
}

/// Whether the object carries a label, whatever its value.
pub(super) fn has_label(metadata: &ObjectMeta, key: &str) -> bool {
    label(metadata, key).is_some()
}

/// Value of a label.
pub(super) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A protocol; TCP if not given.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, Problem> {
    match text.unwrap_or_default() {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(Problem::Protocol(other.to_owned())),
    }
}

/// A port number.
pub(super) fn port(number: i32) -> Result<u16, Problem> {
    u16::try_from(number)
        .ok()
        .filter(|&port| port != 0)
        .ok_or(Problem::Port(number))
}

/// Addresses of at most one per family; what cannot be used comes as faults.
pub(super) fn dual_stack(field: &str, texts: &[String]) -> (Vec<IpAddr>, Vec<Fault>) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut faults = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let problem = match parse_ip(text) {
            Ok(address) if addresses.contains(&address) => continue,
            Ok(address)
                if addresses
                    .iter()
                    .any(|known| known.is_ipv4() == address.is_ipv4()) =>
            {
                Problem::SecondOfFamily(address)
            }
            Ok(address) => {
                addresses.push(address);
                continue;
            }
            Err(problem) => problem,
        };
        faults.push(Fault::new(format!("{field}[{index}]"), problem));
    }
    (addresses, faults)
}
