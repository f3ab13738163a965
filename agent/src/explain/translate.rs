//! From the destination of a question to the addresses and ports that packets really go to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::diagnose;
use super::world::{Spot, World, named_ports};
use super::{EndpointAnswer, ExplainError, PortName, Question, Subject, Translation, Verdict};
use crate::compile::reachable;
use crate::model::{ContainerPort, Pod, Protocol, Service, ServicePort, TrafficPolicy};

/// Where a connection is addressed to.
pub(super) struct Target<'a> {
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) kind: TargetKind<'a>,
}

pub(super) enum TargetKind<'a> {
    /// Virtual addresses; `port` is `None` if the Service has no such port.
    Service {
        service: &'a Service,
        addresses: Vec<IpAddr>,
        port: Option<&'a ServicePort>,
    },
    /// Real addresses.
    Spots(Vec<Spot<'a>>),
    /// An address of a ServiceCIDR that no Service has.
    Nobody(IpAddr),
}

/// What one source address gets to at one destination address.
pub(super) struct Reached<'a> {
    /// A verdict that the Service gives by itself.
    pub(super) verdict: Option<Verdict>,
    pub(super) destinations: Vec<Spot<'a>>,
    pub(super) translation: Option<Translation>,
}

impl<'a> Target<'a> {
    pub(super) fn find(world: &World<'a>, question: &Question) -> Result<Self, ExplainError> {
        match &question.destination {
            Subject::Service(name) => {
                let service = world.service(name)?;
                Self::service(service, service.cluster_ips.clone(), question)
            }
            Subject::Pod(name) => {
                let pod = world.pod(name)?;
                Self::pod(pod, world.pod_spots(name)?, question)
            }
            Subject::Address(address) => {
                if let Some(service) = world.virtual_ip(*address) {
                    return Self::service(service, vec![*address], question);
                }
                let spot = world.spot(*address);
                if world.is_nobodys(*address) {
                    let kind = TargetKind::Nobody(*address);
                    return Ok(Self {
                        kind,
                        ..Self::declared(&[], vec![spot], question)?
                    });
                }
                match spot.pod {
                    Some(pod) => Self::pod(pod, vec![spot], question),
                    None => Self::declared(&[], vec![spot], question),
                }
            }
        }
    }

    fn service(
        service: &'a Service,
        addresses: Vec<IpAddr>,
        question: &Question,
    ) -> Result<Self, ExplainError> {
        let of_protocol =
            |port: &&ServicePort| question.protocol.is_none_or(|p| p == port.protocol);
        let mut ports: Vec<&ServicePort> = service
            .ports
            .iter()
            .filter(of_protocol)
            .filter(|port| match &question.port {
                None => true,
                Some(PortName::Number(number)) => port.port == *number,
                Some(PortName::Name(name)) => port.name == *name,
            })
            .collect();
        if ports.len() > 1 && question.protocol.is_none() {
            ports.retain(|port| port.protocol == Protocol::Tcp);
        }
        let kind = |port| TargetKind::Service {
            service,
            addresses,
            port,
        };
        let default = question.protocol.unwrap_or(Protocol::Tcp);
        match (&ports[..], &question.port) {
            ([port], _) => Ok(Self {
                protocol: port.protocol,
                port: port.port,
                kind: kind(Some(port)),
            }),
            (_, Some(PortName::Number(number))) => Ok(Self {
                protocol: default,
                port: *number,
                kind: kind(None),
            }),
            (_, Some(PortName::Name(name))) => Err(ExplainError::PortUnknown {
                destination: question.destination.to_string(),
                port: name.clone(),
                protocol: default,
                choices: choices(service_ports(service)),
            }),
            (_, None) => Err(ExplainError::PortNeeded {
                destination: question.destination.to_string(),
                choices: choices(service_ports(service)),
            }),
        }
    }

    fn pod(pod: &'a Pod, spots: Vec<Spot<'a>>, question: &Question) -> Result<Self, ExplainError> {
        Self::declared(&pod.ports, spots, question)
    }

    /// A port of a real address, of whose ports these are declared.
    fn declared(
        ports: &[ContainerPort],
        spots: Vec<Spot<'a>>,
        question: &Question,
    ) -> Result<Self, ExplainError> {
        let default = question.protocol.unwrap_or(Protocol::Tcp);
        let destination = || question.destination.to_string();
        let declared = || choices(ports.iter().map(|p| (p.name.as_str(), p.port, p.protocol)));
        let matching: BTreeSet<(Protocol, u16)> = ports
            .iter()
            .filter(|port| question.protocol.is_none_or(|p| p == port.protocol))
            .filter(|port| match &question.port {
                Some(PortName::Name(name)) => port.name == *name,
                Some(PortName::Number(_)) => false,
                None => true,
            })
            .map(|port| (port.protocol, port.port))
            .collect();
        let of_default = matching.iter().filter(|(protocol, _)| *protocol == default);
        let (protocol, port) = match (&question.port, matching.len()) {
            (Some(PortName::Number(number)), _) => (default, *number),
            (Some(PortName::Name(name)), 0) => {
                return Err(ExplainError::PortUnknown {
                    destination: destination(),
                    port: name.clone(),
                    protocol: default,
                    choices: declared(),
                });
            }
            (_, 1) => *matching.first().expect("one"),
            _ => match of_default.collect::<Vec<_>>()[..] {
                [one] => *one,
                _ => {
                    return Err(ExplainError::PortNeeded {
                        destination: destination(),
                        choices: declared(),
                    });
                }
            },
        };
        let spots = spots.into_iter().map(|spot| spot.at(port)).collect();
        Ok(Self {
            protocol,
            port,
            kind: TargetKind::Spots(spots),
        })
    }

    /// Where a connection from this address ends up, for each destination address of its family.
    pub(super) fn reach(&self, world: &World<'a>, source: &Spot<'a>) -> Vec<Reached<'a>> {
        let alike = |address: IpAddr| address.is_ipv4() == source.place.address.is_ipv4();
        match &self.kind {
            TargetKind::Spots(spots) => spots
                .iter()
                .filter(|spot| alike(spot.place.address))
                .map(|spot| Reached {
                    verdict: None,
                    destinations: vec![spot.clone()],
                    translation: None,
                })
                .collect(),
            TargetKind::Nobody(address) if alike(*address) => vec![Reached {
                verdict: Some(Verdict::NoService),
                destinations: Vec::new(),
                translation: None,
            }],
            TargetKind::Nobody(_) => Vec::new(),
            TargetKind::Service {
                service,
                addresses,
                port,
            } => addresses
                .iter()
                .filter(|address| alike(**address))
                .map(|&address| {
                    let node = source.place.node.as_deref();
                    let node = node.unwrap_or(&world.snapshot.node_name);
                    match port {
                        Some(port) => Self::translated(world, service, port, address, node),
                        None => self.no_port(service, address),
                    }
                })
                .collect(),
        }
    }

    fn no_port(&self, service: &Service, cluster_ip: IpAddr) -> Reached<'a> {
        let ports = choices(service_ports(service));
        Reached {
            verdict: Some(Verdict::NoServicePort),
            destinations: Vec::new(),
            translation: Some(Translation {
                service: service.name.clone(),
                cluster_ip,
                port: self.port,
                protocol: self.protocol,
                port_name: String::new(),
                target_port: None,
                only_node: None,
                endpoints: Vec::new(),
                problem: Some(format!(
                    "the Service has no {} port {}{ports}",
                    self.protocol, self.port
                )),
                warning: None,
            }),
        }
    }

    fn translated(
        world: &World<'a>,
        service: &'a Service,
        port: &ServicePort,
        cluster_ip: IpAddr,
        node: &str,
    ) -> Reached<'a> {
        let mut translation = translate(world, service, port, cluster_ip, node);
        let destinations: Vec<_> = translation
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.excluded.is_none())
            .filter_map(|endpoint| {
                let mut spot = world.spot(endpoint.address);
                if spot.place.pod.is_none() {
                    spot.place.pod.clone_from(&endpoint.pod);
                }
                endpoint.port.map(|port| spot.at(port))
            })
            .collect();
        let mut verdict = None;
        if destinations.is_empty() {
            let elsewhere = translation.only_node.is_some()
                && translation
                    .endpoints
                    .iter()
                    .any(|e| e.port.is_some() && (e.ready || e.serving && e.terminating));
            verdict = Some(if elsewhere {
                Verdict::NoLocalEndpoint
            } else {
                Verdict::NoEndpoint
            });
            translation.problem = Some(if elsewhere {
                format!(
                    "internalTrafficPolicy is Local and node {node} has no endpoint that takes connections"
                )
            } else {
                diagnose::no_endpoint(world, service, port, &translation)
            });
        }
        Reached {
            verdict,
            destinations,
            translation: Some(translation),
        }
    }
}

/// The endpoints of a Service port in the family of one of its addresses, for clients on `node`.
///
/// Ready endpoints take connections; if there is none, those that still serve while terminating do (KEP-1669).
fn translate(
    world: &World<'_>,
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    node: &str,
) -> Translation {
    let local = service.internal_traffic_policy == TrafficPolicy::Local;
    let mut endpoints = Vec::new();
    for slice in world.snapshot.slices.values() {
        if slice.service != service.name {
            continue;
        }
        let mut numbers: Vec<_> = slice
            .ports
            .iter()
            .filter(|p| p.name == port.name && p.protocol == port.protocol)
            .map(|p| Some(p.port))
            .collect();
        if numbers.is_empty() {
            numbers.push(None);
        }
        for endpoint in &slice.endpoints {
            if endpoint.address.is_ipv4() != cluster_ip.is_ipv4() {
                continue;
            }
            let elsewhere = local && endpoint.node.as_deref() != Some(node);
            endpoints.extend(numbers.iter().map(|&number| EndpointAnswer {
                address: endpoint.address,
                port: number,
                pod: endpoint.pod.clone(),
                node: endpoint.node.clone(),
                ready: endpoint.ready,
                serving: endpoint.serving,
                terminating: endpoint.terminating,
                excluded: if number.is_none() {
                    Some(format!(
                        "EndpointSlice {} has no {} port named {:?}",
                        slice.name.name, port.protocol, port.name
                    ))
                } else if is_node_internal(endpoint.address) {
                    Some("loopback and link-local addresses are no endpoints".to_owned())
                } else if elsewhere {
                    Some(format!("not on node {node} (internalTrafficPolicy Local)"))
                } else {
                    None
                },
            }));
        }
    }
    choose(&mut endpoints);
    let near = reachable(world.snapshot, service, port, cluster_ip, node);
    for endpoint in endpoints.iter_mut().filter(|e| e.excluded.is_none()) {
        if !endpoint
            .port
            .is_some_and(|port| near.contains(&(endpoint.address, port)))
        {
            endpoint.excluded = Some(format!("its hints mean it for others than node {node}"));
        }
    }
    let mut translation = Translation {
        service: service.name.clone(),
        cluster_ip,
        port: port.port,
        protocol: port.protocol,
        port_name: port.name.clone(),
        target_port: Some(port.target_port.clone()),
        only_node: local.then(|| node.to_owned()),
        endpoints,
        problem: None,
        warning: None,
    };
    translation.warning = diagnose::wrong_target_port(world, &translation);
    translation
}

/// Excludes those of the eligible endpoints that get no connections.
fn choose(endpoints: &mut [EndpointAnswer]) {
    // Of several entries for one address and port the running pod's counts, before the terminating one whose address it got.
    endpoints.sort_by_key(|e| {
        let rank = (e.excluded.is_some(), e.terminating, !e.ready, !e.serving);
        (e.address, e.port, rank)
    });
    let mut taken = BTreeSet::new();
    for endpoint in &mut *endpoints {
        if endpoint.excluded.is_none() && !taken.insert((endpoint.address, endpoint.port)) {
            endpoint.excluded = Some("the same address and port is listed above".to_owned());
        }
    }
    let any_ready = endpoints.iter().any(|e| e.excluded.is_none() && e.ready);
    for endpoint in endpoints.iter_mut().filter(|e| e.excluded.is_none()) {
        let usable = endpoint.ready || !any_ready && endpoint.serving && endpoint.terminating;
        if !usable {
            let why = if endpoint.terminating {
                "terminating"
            } else {
                "not ready"
            };
            endpoint.excluded = Some(why.to_owned());
        }
    }
}

/// Addresses that would lead into the node itself; the API forbids them (CVE-2021-25737).
fn is_node_internal(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_unspecified()
}

/// Every address and port of every Service for clients on the snapshot's node.
pub(super) fn all(world: &World<'_>) -> Vec<Translation> {
    let mut translations = Vec::new();
    for service in world.snapshot.services.values() {
        for port in &service.ports {
            for &address in &service.cluster_ips {
                let node = &world.snapshot.node_name;
                let reached = Target::translated(world, service, port, address, node);
                translations.extend(reached.translation);
            }
        }
    }
    translations
}

fn service_ports(service: &Service) -> impl Iterator<Item = (&str, u16, Protocol)> {
    service
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.port, port.protocol))
}

/// `; there is 80/TCP (http), 443/TCP (https)`, or nothing.
fn choices<'p>(ports: impl Iterator<Item = (&'p str, u16, Protocol)>) -> String {
    let ports: Vec<_> = ports
        .map(|(name, port, protocol)| match name {
            "" => format!("{port}/{protocol}"),
            _ => format!("{port}/{protocol} ({name})"),
        })
        .collect();
    if ports.is_empty() {
        String::new()
    } else {
        format!("; there is {}", ports.join(", "))
    }
}

/// Whether a pod has a port of this name with this number.
pub(super) fn names_port(pod: &Pod, name: &str, protocol: Protocol, port: u16) -> bool {
    named_ports(pod, name, protocol).any(|number| number == port)
}
