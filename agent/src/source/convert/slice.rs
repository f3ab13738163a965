//! discovery.k8s.io/v1 EndpointSlice.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::parse_ip;
use super::fields::{self, has_label, label};
use super::service::{HEADLESS, PROXY_NAME};
use super::{Conversion, Converted};
use crate::model::{Endpoint, EndpointSlice, Hints, Kind, Object, ObjectName, SlicePort, Trigger};
use crate::source::{Fault, Problem};

/// Names the Service of a slice (well-known label).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// When what a slice was last written for happened, in RFC 3339 (well-known annotation).
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Converts an EndpointSlice. Slices of headless Services, of no Service and of another proxy are not ours.
pub fn endpoint_slice(object: api::EndpointSlice) -> Conversion {
    let name = fields::namespaced(Kind::EndpointSlice, &object.metadata)?;
    if has_label(&object.metadata, PROXY_NAME) || has_label(&object.metadata, HEADLESS) {
        return Ok(None);
    }
    let Some(service) = label(&object.metadata, SERVICE_NAME).filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    let service = ObjectName::new(&name.namespace, service);
    let reject = |fault: Fault| fault.of(Kind::EndpointSlice, &name);

    let problem = match object.address_type.as_str() {
        "IPv4" | "IPv6" => None,
        "FQDN" => Some(Problem::Fqdn),
        other => Some(Problem::AddressType(other.to_owned())),
    };
    if let Some(problem) = problem {
        return Err(reject(Fault::new("addressType", problem)));
    }
    let ports = ports(object.ports.unwrap_or_default()).map_err(reject)?;

    let mut flaws = Vec::new();
    let mut endpoints = Vec::new();
    for (index, endpoint) in object.endpoints.into_iter().enumerate() {
        // Only the first address counts (text of Endpoint.addresses).
        let Some(text) = endpoint.addresses.first() else {
            continue;
        };
        match address(text, &object.address_type) {
            Ok(address) => endpoints.push(self::endpoint(endpoint, address, &name.namespace)),
            Err(problem) => flaws.push(Fault::new(
                format!("endpoints[{index}].addresses[0]"),
                problem,
            )),
        }
    }
    Ok(Some(Converted {
        object: Object::EndpointSlice(EndpointSlice {
            name,
            service,
            endpoints,
            ports,
            trigger: trigger(&object.metadata, object.address_type == "IPv4"),
        }),
        flaws,
    }))
}

/// Only measured by: one that cannot be read is none.
fn trigger(metadata: &ObjectMeta, v4: bool) -> Option<Trigger> {
    let text = metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    let at = text.parse::<Timestamp>().ok()?.into();
    Some(Trigger { at, v4 })
}

fn address(text: &str, address_type: &str) -> Result<IpAddr, Problem> {
    let address = parse_ip(text)?;
    if address.is_ipv4() == (address_type == "IPv4") {
        Ok(address)
    } else {
        Err(Problem::Family {
            address,
            address_type: address_type.to_owned(),
        })
    }
}

fn endpoint(endpoint: api::Endpoint, address: IpAddr, namespace: &str) -> Endpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let pod = endpoint
        .target_ref
        .filter(|target| target.kind.as_deref() == Some("Pod"))
        .and_then(|target| {
            let namespace = target.namespace.unwrap_or_else(|| namespace.to_owned());
            Some(ObjectName::new(namespace, target.name?))
        });
    Endpoint {
        address,
        // Defaults as in the text of EndpointConditions.
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name,
        pod,
        hints: endpoint.hints.and_then(hints),
    }
}

/// Hints that name somebody; an empty list is none (text of EndpointHints).
fn hints(hints: api::EndpointHints) -> Option<Box<Hints>> {
    let zones = hints.for_zones.unwrap_or_default();
    let nodes = hints.for_nodes.unwrap_or_default();
    let hints = Hints {
        zones: zones.into_iter().map(|zone| zone.name).collect(),
        nodes: nodes.into_iter().map(|node| node.name).collect(),
    };
    (hints != Hints::default()).then(|| Box::new(hints))
}

fn ports(ports: Vec<api::EndpointPort>) -> Result<Vec<SlicePort>, Fault> {
    let mut names = BTreeSet::new();
    let mut converted = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let fault = |field: &str, problem| Fault::new(format!("ports[{index}].{field}"), problem);
        // No number means "all ports", which no Service port can be matched with.
        let Some(number) = port.port.filter(|&number| number != 0) else {
            continue;
        };
        let port = SlicePort {
            port: fields::port(number).map_err(|problem| fault("port", problem))?,
            protocol: fields::protocol(port.protocol.as_deref())
                .map_err(|problem| fault("protocol", problem))?,
            name: port.name.unwrap_or_default(),
        };
        if !names.insert(port.name.clone()) {
            return Err(fault("name", Problem::DuplicatePortName(port.name)));
        }
        converted.push(port);
    }
    Ok(converted)
}
