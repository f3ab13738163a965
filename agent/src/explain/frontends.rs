//! Remarks on the addresses of Services: what a connection that missed one was probably meant for, and whom policies see.

use std::net::SocketAddr;

use super::target::choices;
use super::world::World;
use super::{Explanation, Flow, Note, PlaceKind, SideOutcome};
use crate::compile::Claim;

/// Why a connection to a Service's or a node's address is not that Service's.
pub(super) fn missed(world: &World<'_>, explanation: &Explanation, flow: &Flow) -> Option<Note> {
    let (address, port) = (flow.destination.address, flow.port);
    let protocol = explanation.protocol;
    if let Some(service) = world.exposure.naming(address).next() {
        let node = &world.snapshot.node_name;
        let services = world.exposure.naming(address);
        let frontends = services.flat_map(|service| world.exposure.of(node, service));
        let there = frontends.filter(|(exposed, _)| exposed.address == address);
        let ports = there.filter_map(|(exposed, _)| {
            let port = exposed.port?;
            Some((port.name.as_str(), exposed.number, port.protocol))
        });
        let ports = choices(ports);
        return Some(Note::Warning(format!(
            "{address} is an address of Service {}, but port {port}/{protocol} there is no Service's{ports}; the connection is for whoever has the address",
            service.name
        )));
    }
    if flow.destination.kind != PlaceKind::Node {
        return None;
    }
    // Every process of the node may listen; that some Service has the number shows what was meant.
    let mut services = world.exposure.with_node_port(port);
    let service = services.find(|service| {
        let mut ports = service.ports.iter();
        ports.any(|it| it.node_port == Some(port) && it.protocol == protocol)
    })?;
    let node = flow.destination.node.as_deref().unwrap_or_default();
    let served: Vec<_> = world
        .exposure
        .of(node, service)
        .into_iter()
        .filter(|(exposed, _)| exposed.claim == Claim::NodePort && exposed.number == port)
        .map(|(exposed, _)| SocketAddr::new(exposed.address, exposed.number).to_string())
        .collect();
    let served = match &served[..] {
        [] => "no address".to_owned(),
        _ => served.join(", "),
    };
    Some(Note::Warning(format!(
        "node port {port}/{protocol} of Service {} is served on node {node} at {served}, not at {address} (--nodeport-addresses): the connection is for the node itself",
        service.name
    )))
}

/// Whom the policies of the destination see, where that is not who opened the connection, or may not be.
pub(super) fn seen(explanation: &Explanation, flow: &Flow) -> Option<Note> {
    let judged = matches!(
        flow.ingress.outcome,
        SideOutcome::Allowed | SideOutcome::Denied
    );
    let pod = flow.destination.pod.as_ref().filter(|_| judged)?;
    let client = flow.source.address;
    if let Some(node) = &flow.seen_as {
        let name = node.node.as_deref().unwrap_or_default();
        let local = explanation
            .translations
            .iter()
            .all(|it| it.kind == Claim::ClusterIp);
        let remedy = if local {
            ""
        } else {
            "; with externalTrafficPolicy Local they see the client"
        };
        return Some(Note::Hint(format!(
            "the connection comes in by node {name} and pod {pod} is on another: its policies see the node's address {} (on a tunnel, that of the tunnel device) in place of {client}{remedy}",
            node.address
        )));
    }
    let hop = flow.hop.as_ref()?;
    let node = hop.place.node.as_deref().unwrap_or_default();
    let home = flow.source.node.as_deref().unwrap_or_default();
    (flow.source.kind == PlaceKind::Pod).then(|| {
        Note::Hint(format!(
            "where the pod network masquerades what pods send to nodes, node {node} and the policies of pod {pod} see an address of node {home} in place of {client}"
        ))
    })
}
