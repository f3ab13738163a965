//! What a Service makes of a connection to one of its frontends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_common::reason::Reason;

use super::diagnose;
use super::target::{choices, service_ports};
use super::world::World;
use super::{EndpointAnswer, Translation, Verdict};
use crate::compile::{Backend, Claim, Client, Clients, Exposed, may_be_endpoint};
use crate::model::{Protocol, ServicePort, TrafficPolicy};

/// A frontend as a client names it.
pub(super) struct Frontend<'f, 'a> {
    pub(super) exposed: &'f Exposed<'a>,
    /// The node that it is on.
    pub(super) node: &'f str,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// What a client gets; and the verdict, if it gets nowhere.
pub(super) fn for_client(
    world: &World<'_>,
    frontend: &Frontend<'_, '_>,
    client: Client,
) -> (Option<Verdict>, Translation) {
    let exposed = frontend.exposed;
    let mut translation = translate(world, frontend, client.side());
    let found = exposed
        .admit(client)
        .and_then(|()| exposed.backends(client.side()));
    let verdict = found.err().map(|reason| match reason {
        Reason::SourceRange => Verdict::SourceRange,
        Reason::NoServicePort => Verdict::NoServicePort,
        Reason::NoLocalEndpoint => Verdict::NoLocalEndpoint,
        _ => Verdict::NoEndpoint,
    });
    if verdict == Some(Verdict::SourceRange) {
        translation.problem = Some(not_admitted(world, frontend, client));
    }
    (verdict, translation)
}

fn not_admitted(world: &World<'_>, frontend: &Frontend<'_, '_>, client: Client) -> String {
    let who = match client {
        Client::Pod(address) | Client::Outside(address) => address.to_string(),
        Client::Node => {
            let v4 = frontend.exposed.address.is_ipv4();
            let own = world.node_spot(frontend.node, v4);
            let own = own.map(|own| format!(" {}", own.place.address));
            format!(
                "the address{} of node {}",
                own.unwrap_or_default(),
                frontend.node
            )
        }
    };
    let ranges: Vec<_> = frontend
        .exposed
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    format!(
        "none of loadBalancerSourceRanges ({}) holds {who}: dropped, reason {}",
        ranges.join(", "),
        Reason::SourceRange.name()
    )
}

/// What clients on one side of the node get, if they are let in.
fn translate(world: &World<'_>, frontend: &Frontend<'_, '_>, clients: Clients) -> Translation {
    let &Frontend {
        exposed,
        node,
        port: number,
        protocol,
    } = frontend;
    let policy = exposed.policy(clients);
    let alike = exposed.policy(Clients::Inside) == exposed.policy(Clients::Outside);
    let mut translation = Translation {
        service: exposed.service.name.clone(),
        kind: exposed.claim,
        address: exposed.address,
        port: number,
        protocol,
        port_name: String::new(),
        target_port: None,
        node: node.to_owned(),
        clients: (!alike).then_some(clients),
        source_ranges: exposed.ranges.clone(),
        only_node: None,
        endpoints: Vec::new(),
        problem: None,
        warning: None,
    };
    let Some(port) = exposed.port else {
        let ports = choices(service_ports(exposed.service));
        translation.problem = Some(format!(
            "the Service has no {protocol} port {number}{ports}"
        ));
        return translation;
    };
    let policy_name = match exposed.claim {
        Claim::ClusterIp => "internalTrafficPolicy",
        Claim::LoadBalancer | Claim::ExternalIp | Claim::NodePort => "externalTrafficPolicy",
    };
    let local = (policy == TrafficPolicy::Local).then_some(policy_name);
    let found = exposed.backends(clients);
    translation.port_name.clone_from(&port.name);
    translation.target_port = Some(port.target_port.clone());
    translation.only_node = local.map(|_| node.to_owned());
    translation.endpoints = endpoints(world, frontend, port, local, found.unwrap_or_default());
    translation.problem = match (found, local) {
        (Ok(_), _) => None,
        (Err(Reason::NoLocalEndpoint), Some(policy)) => Some(format!(
            "{policy} is Local and node {node} has no endpoint that takes connections"
        )),
        (Err(_), _) => Some(diagnose::no_endpoint(
            world,
            exposed.service,
            port,
            &translation,
        )),
    };
    translation.warning = diagnose::wrong_target_port(world, &translation);
    translation
}

/// All endpoints of the address's family; those that are not in the set with the reason. `local` is the policy that is Local.
fn endpoints(
    world: &World<'_>,
    frontend: &Frontend<'_, '_>,
    port: &ServicePort,
    local: Option<&str>,
    set: &[Backend],
) -> Vec<EndpointAnswer> {
    let &Frontend { exposed, node, .. } = frontend;
    let mut endpoints = Vec::new();
    for slice in world.exposure.slices(&exposed.service.name) {
        let mut numbers: Vec<_> = slice
            .ports
            .iter()
            .filter(|p| p.name == port.name && p.protocol == port.protocol)
            .map(|p| Some(p.port))
            .collect();
        if numbers.is_empty() {
            numbers.push(None);
        }
        let missing = format!(
            "EndpointSlice {} has no {} port named {:?}",
            slice.name.name, port.protocol, port.name
        );
        for endpoint in &slice.endpoints {
            let address = endpoint.address.to_canonical();
            if address.is_ipv4() != exposed.address.is_ipv4() {
                continue;
            }
            endpoints.extend(numbers.iter().map(|&number| EndpointAnswer {
                address,
                port: number,
                pod: endpoint.pod.clone(),
                node: endpoint.node.clone(),
                ready: endpoint.ready,
                serving: endpoint.serving,
                terminating: endpoint.terminating,
                excluded: number.is_none().then(|| missing.clone()),
            }));
        }
    }
    // Of several entries for one address and port the running pod's counts, before the terminating one whose address it got.
    endpoints.sort_by_key(|e| {
        let elsewhere = e.node.as_deref() != Some(node);
        let rank = (e.terminating, !e.ready, !e.serving, elsewhere);
        (e.address, e.port, rank)
    });
    let set: BTreeSet<(IpAddr, u16)> = set.iter().map(|it| (it.address, it.port)).collect();
    let mut listed = BTreeSet::new();
    for endpoint in &mut endpoints {
        let Some(port) = endpoint.port else {
            continue;
        };
        let place = (endpoint.address, port);
        endpoint.excluded = if !may_be_endpoint(endpoint.address) {
            Some("loopback and link-local addresses are no endpoints".to_owned())
        } else if !listed.insert(place) {
            Some("the same address and port is listed above".to_owned())
        } else if set.contains(&place) {
            None
        } else {
            Some(why_not(endpoint, node, local))
        };
    }
    endpoints
}

/// Why an endpoint is not in the set of a node.
fn why_not(endpoint: &EndpointAnswer, node: &str, local: Option<&str>) -> String {
    match local {
        Some(policy) if endpoint.node.as_deref() != Some(node) => {
            format!("not on node {node} ({policy} Local)")
        }
        _ if endpoint.ready => format!("its hints mean it for others than node {node}"),
        _ if endpoint.terminating => "terminating".to_owned(),
        _ => "not ready".to_owned(),
    }
}

/// Every frontend of every Service on the snapshot's node, one by one for clients inside and outside where they get different endpoints.
pub(super) fn all(world: &World<'_>) -> Vec<Translation> {
    let node = &world.snapshot.node_name;
    let mut translations = Vec::new();
    for service in world.snapshot.services.values() {
        let mut frontends = world.exposure.of(node, service);
        frontends.sort_by_key(|(exposed, _)| (exposed.claim, exposed.address, exposed.number));
        for (exposed, other) in &frontends {
            let Some(port) = exposed.port else {
                continue;
            };
            let frontend = Frontend {
                exposed,
                node,
                port: exposed.number,
                protocol: port.protocol,
            };
            for clients in [Clients::Inside, Clients::Outside] {
                let mut translation = translate(world, &frontend, clients);
                if let Some(other) = other {
                    translation.endpoints.clear();
                    translation.problem =
                        Some(format!("Service {other} has that address and port"));
                }
                let alike = translation.clients.is_none();
                translations.push(translation);
                if alike {
                    break;
                }
            }
        }
    }
    translations
}
