//! The addresses and the port that a question is about.

use std::collections::BTreeSet;

use super::world::{Spot, World};
use super::{ExplainError, PortName, Question, Subject};
use crate::model::{Pod, Protocol, Service, ServicePort};

/// How many ports an error lists.
const CHOICES: usize = 10;

/// Where a connection is addressed to.
pub(super) struct Target<'a> {
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// The addresses, at that port.
    pub(super) spots: Vec<Spot<'a>>,
}

/// A port that the destination is known to have.
type Port<'p> = (&'p str, u16, Protocol);

impl<'a> Target<'a> {
    pub(super) fn find(world: &World<'a>, question: &Question) -> Result<Self, ExplainError> {
        let (spots, (protocol, port)) = match &question.destination {
            Subject::Service(name) => {
                let service = world.service(name)?;
                let addresses = service.cluster_ips.iter();
                let spots = addresses.map(|address| world.spot(*address)).collect();
                let ports: Vec<_> = service_ports(service).collect();
                (spots, port_of_services(question, &ports)?)
            }
            Subject::Pod(name) => {
                let spots = world.pod_spots(name)?;
                (spots, port_of_pod(question, Some(world.pod(name)?))?)
            }
            Subject::Workload(name) => {
                let spots = world.workload_spots(name)?;
                // Its pods are of one template.
                let pod = spots.iter().find_map(|spot| spot.pod);
                let port = port_of_pod(question, pod)?;
                (spots, port)
            }
            Subject::Address(address) => {
                let spot = world.spot(*address);
                let port = port_of_address(world, question, &spot)?;
                (vec![spot], port)
            }
            Subject::Node(name) => {
                let spots = world.node_spots(name)?;
                let port = port_of_address(world, question, &spots[0])?;
                (spots, port)
            }
        };
        let spots = spots.into_iter().map(|spot: Spot<'_>| spot.at(port));
        Ok(Self {
            protocol,
            port,
            spots: spots.collect(),
        })
    }
}

/// Of Services that have the address, else of the pod that has it.
fn port_of_address(
    world: &World<'_>,
    question: &Question,
    spot: &Spot<'_>,
) -> Result<(Protocol, u16), ExplainError> {
    let address = spot.place.address;
    let services = world.exposure.naming(address);
    let mut ports: Vec<_> = services.flat_map(service_ports).collect();
    if let Some(PortName::Number(number)) = question.port
        && world.node_of(address).is_some()
    {
        let services = world.exposure.with_node_port(number);
        ports.extend(services.flat_map(node_ports));
    }
    if ports.is_empty() {
        port_of_pod(question, spot.pod)
    } else {
        port_of_services(question, &ports)
    }
}

/// A number tells the protocol, too, if Services have it for one only.
fn port_of_services(
    question: &Question,
    ports: &[Port<'_>],
) -> Result<(Protocol, u16), ExplainError> {
    let mut matching: BTreeSet<_> = matching(question, ports).collect();
    if matching.len() > 1 && question.protocol.is_none() {
        matching.retain(|(protocol, _)| *protocol == Protocol::Tcp);
    }
    match (matching.first(), &question.port) {
        (Some(one), _) if matching.len() == 1 => Ok(*one),
        (_, Some(PortName::Number(number))) => Ok((question.protocol.unwrap_or_default(), *number)),
        (_, Some(PortName::Name(name))) => Err(unknown(question, name, ports)),
        (_, None) => Err(needed(question, ports)),
    }
}

/// Containers may listen on other ports than those that they declare: a number is of the usual protocol, whatever is declared.
fn port_of_pod(question: &Question, pod: Option<&Pod>) -> Result<(Protocol, u16), ExplainError> {
    let default = question.protocol.unwrap_or_default();
    if let Some(PortName::Number(number)) = question.port {
        return Ok((default, number));
    }
    let declared = pod.into_iter().flat_map(|pod| &pod.ports);
    let ports: Vec<Port<'_>> = declared
        .map(|port| (port.name.as_str(), port.port, port.protocol))
        .collect();
    let matching: BTreeSet<_> = matching(question, &ports).collect();
    let mut usual = matching.iter().filter(|(protocol, _)| *protocol == default);
    match (matching.first(), &question.port) {
        (Some(one), _) if matching.len() == 1 => Ok(*one),
        (None, Some(PortName::Name(name))) => Err(unknown(question, name, &ports)),
        _ => match (usual.next(), usual.next()) {
            (Some(one), None) => Ok(*one),
            _ => Err(needed(question, &ports)),
        },
    }
}

fn matching(question: &Question, ports: &[Port<'_>]) -> impl Iterator<Item = (Protocol, u16)> {
    let matching = ports.iter().filter(|(name, number, protocol)| {
        question.protocol.is_none_or(|asked| asked == *protocol)
            && match &question.port {
                None => true,
                Some(PortName::Number(asked)) => asked == number,
                Some(PortName::Name(asked)) => asked == name,
            }
    });
    matching.map(|(_, number, protocol)| (*protocol, *number))
}

fn unknown(question: &Question, name: &str, ports: &[Port<'_>]) -> ExplainError {
    ExplainError::PortUnknown {
        destination: question.destination.to_string(),
        port: name.to_owned(),
        protocol: question.protocol.unwrap_or_default(),
        choices: choices(ports.iter().copied()),
    }
}

fn needed(question: &Question, ports: &[Port<'_>]) -> ExplainError {
    ExplainError::PortNeeded {
        destination: question.destination.to_string(),
        choices: choices(ports.iter().copied()),
    }
}

pub(super) fn service_ports(service: &Service) -> impl Iterator<Item = Port<'_>> {
    service.ports.iter().map(|port| named(port, port.port))
}

fn node_ports(service: &Service) -> impl Iterator<Item = Port<'_>> {
    let ports = service.ports.iter();
    ports.filter_map(|port| Some(named(port, port.node_port?)))
}

fn named(port: &ServicePort, number: u16) -> Port<'_> {
    (&port.name, number, port.protocol)
}

/// `; there is 80/TCP (http), 443/TCP (https)`, or nothing.
pub(super) fn choices<'p>(ports: impl Iterator<Item = Port<'p>>) -> String {
    let mut ports: Vec<_> = ports
        .map(|(name, port, protocol)| match name {
            "" => format!("{port}/{protocol}"),
            _ => format!("{port}/{protocol} ({name})"),
        })
        .collect();
    if ports.is_empty() {
        return String::new();
    }
    if let Some(more) = ports.len().checked_sub(CHOICES).filter(|more| *more > 0) {
        ports.truncate(CHOICES);
        ports.push(format!("and {more} more"));
    }
    format!("; there is {}", ports.join(", "))
}
