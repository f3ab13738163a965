//! Lookups that default-deny cuts off, the first thing that breaks, and the rule that brings them back.

use std::collections::BTreeSet;

use super::fix::{Drafts, isolating_selectors, namespace_named, one_port, peer_of};
use super::target::Target;
use super::world::{Spot, World};
use super::{
    Explanation, Fix, Flow, Note, PlaceKind, PortName, Question, Side, SideOutcome, Subject, Trace,
};
use crate::model::{Direction, Labels, Peer, PolicyPort, Protocol, Selector, Service};

/// The port of DNS Services and of servers that are asked directly (RFC 1035); pods behind a Service may listen on another.
const PORT: u16 = 53;
/// Label of the DNS pods that kubeadm and most distributions install.
pub(crate) const LABEL: (&str, &str) = ("k8s-app", "kube-dns");

/// Whether the question is a lookup: to port 53, or to the port of a pod that a DNS Service leads to.
pub(super) fn is_lookup(world: &World<'_>, target: &Target<'_>, explanation: &Explanation) -> bool {
    target.protocol != Protocol::Sctp
        && (target.port == PORT
            || explanation
                .flows
                .iter()
                .any(|flow| server_ports(world, flow).contains(&flow.port)))
}

/// The ports on which DNS Services reach the destination of a flow.
fn server_ports(world: &World<'_>, flow: &Flow) -> BTreeSet<u16> {
    world
        .snapshot
        .services
        .values()
        .filter(|service| is_dns(service))
        .flat_map(|service| endpoint_ports(world, service, flow.destination.address))
        .collect()
}

/// The ports on which a Service's DNS reaches an address.
fn endpoint_ports(
    world: &World<'_>,
    service: &Service,
    address: std::net::IpAddr,
) -> BTreeSet<u16> {
    let names: Vec<_> = service
        .ports
        .iter()
        .filter(|port| port.port == PORT)
        .map(|port| (&port.name, port.protocol))
        .collect();
    world
        .snapshot
        .slices
        .values()
        .filter(|slice| slice.service == service.name)
        .filter(|slice| slice.endpoints.iter().any(|e| e.address == address))
        .flat_map(|slice| &slice.ports)
        .filter(|port| names.contains(&(&port.name, port.protocol)))
        .map(|port| port.port)
        .collect()
}

fn is_dns(service: &Service) -> bool {
    service
        .ports
        .iter()
        .any(|port| port.port == PORT && port.protocol == Protocol::Udp)
}

/// Whether the cluster's resolv.conf names this Service, as far as can be told: only the kubelet knows for sure.
pub(crate) fn is_cluster_dns(service: &Service) -> bool {
    let labelled = service.selector.get(LABEL.0).map(String::as_str) == Some(LABEL.1);
    let home = ["kube-system", "openshift-dns"].contains(&service.name.namespace.as_str());
    is_dns(service) && (labelled || home)
}

/// Policies that bring lookups back, over UDP and over TCP (which truncated answers fall back to).
pub(super) fn fixes(world: &World<'_>, explanation: &Explanation) -> Vec<Fix> {
    let mut drafts = Drafts::default();
    let selector = server_selector(world, explanation);
    for flow in &explanation.flows {
        let ports = lookup_ports(world, flow);
        if flow.egress.outcome == SideOutcome::Denied
            && let Some(source) = &flow.source.pod
            && let Some(subject) = widest(isolating_selectors(world, &flow.egress))
        {
            let key = (source.namespace.clone(), Direction::Egress, subject);
            let (aim, port) = flow.egress_peer();
            let peer = peer_of(world, &source.namespace, aim, selector);
            let ports = if flow.hop.is_some() {
                either(port).into()
            } else {
                ports.clone()
            };
            drafts.allow(key, peer, ports);
        }
        if flow.ingress.outcome == SideOutcome::Denied
            && let Some(server) = &flow.destination.pod
            && let Some(subject) = widest(isolating_selectors(world, &flow.ingress))
        {
            let key = (server.namespace.clone(), Direction::Ingress, subject);
            drafts.allow(key, client(world, flow, &server.namespace), ports);
        }
    }
    drafts.write(world, |(namespace, direction, _)| match direction {
        Direction::Egress => "allow-dns".to_owned(),
        Direction::Ingress => format!(
            "allow-dns-from-{}",
            explanation.source.split('/').next().unwrap_or(namespace)
        ),
    })
}

/// Every pod of the source's namespace looks names up, not only the one asked about.
fn client(world: &World<'_>, flow: &Flow, servers: &str) -> Peer {
    match (&flow.source.pod, flow.source.kind) {
        _ if flow.seen_as.is_some() => peer_of(world, servers, flow.ingress_peer(), None),
        (Some(source), PlaceKind::Pod) if source.namespace == servers => Peer::Pods {
            namespaces: None,
            pods: Some(Selector::default()),
        },
        (Some(source), PlaceKind::Pod) => Peer::Pods {
            namespaces: Some(namespace_named(&source.namespace)),
            pods: None,
        },
        _ => peer_of(world, servers, &flow.source, None),
    }
}

/// Lookups concern every pod that the isolating policies select, so the widest selector; it isolates no further pod.
fn widest<'w>(selectors: impl Iterator<Item = &'w Selector>) -> Option<Selector> {
    selectors
        .min_by_key(|selector| selector.requirements.len())
        .cloned()
}

/// The selector of the Service that was asked for or that leads to the pods asked for.
fn server_selector<'w>(world: &'w World<'_>, explanation: &Explanation) -> Option<&'w Labels> {
    let asked = explanation.translations.first();
    if let Some(service) = asked.and_then(|asked| world.snapshot.services.get(&asked.service)) {
        return Some(&service.selector).filter(|selector| !selector.is_empty());
    }
    let addresses: BTreeSet<_> = explanation
        .flows
        .iter()
        .map(|flow| flow.destination.address)
        .collect();
    world
        .snapshot
        .services
        .values()
        .filter(|service| is_dns(service) && !service.selector.is_empty())
        .find(|service| {
            addresses
                .iter()
                .any(|&address| !endpoint_ports(world, service, address).is_empty())
        })
        .map(|service| &service.selector)
}

/// The port judged, and those on which DNS Services reach the same server by the other protocol.
fn lookup_ports(world: &World<'_>, flow: &Flow) -> BTreeSet<PolicyPort> {
    let mut numbers = server_ports(world, flow);
    numbers.insert(flow.port);
    numbers.into_iter().flat_map(either).collect()
}

fn either(port: u16) -> [PolicyPort; 2] {
    [Protocol::Udp, Protocol::Tcp].map(|protocol| one_port(protocol, port))
}

/// Who denies what a side denies.
fn denied_by(side: &Side) -> String {
    if side.outcome == SideOutcome::DeniedByRule {
        let rule = side.tiers.last();
        return rule.map_or_else(String::new, |last| format!("by {}", last.rule.policy));
    }
    let policies = side.isolated_by.iter();
    let policies: Vec<_> = policies
        .map(|isolation| isolation.policy.to_string())
        .collect();
    format!("isolated by {}", policies.join(", "))
}

/// Says so when the source cannot look names up either: it would fail before the connection asked about.
pub(super) fn hint<'a>(
    world: &World<'a>,
    sources: &[Spot<'a>],
    explanation: &Explanation,
) -> Option<Note> {
    let services = world.snapshot.services.values();
    for service in services.filter(|service| is_cluster_dns(service)) {
        let question = Question {
            source: Subject::Service(service.name.clone()),
            destination: Subject::Service(service.name.clone()),
            port: Some(PortName::Number(PORT)),
            protocol: Some(Protocol::Udp),
        };
        let target = Target::find(world, &question).ok()?;
        let trace = Trace::of(world, sources, &target);
        let denied = |flow: &Flow| !flow.egress.outcome.passes();
        if !trace.flows.is_empty() && trace.flows.iter().all(denied) {
            let by: BTreeSet<_> = trace
                .flows
                .iter()
                .map(|flow| denied_by(&flow.egress))
                .collect();
            let by: Vec<_> = by.into_iter().collect();
            return Some(Note::Warning(format!(
                "name lookups of {0} are denied ({1}); for the missing rule: weir explain {0} {2}:{PORT}/UDP",
                explanation.source,
                by.join(", "),
                question.destination
            )));
        }
    }
    None
}
