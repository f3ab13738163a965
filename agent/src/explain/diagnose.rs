//! What is probably wrong: Services that lead nowhere, policies that do not do what they seem to.

use std::collections::BTreeSet;

use super::frontends;
use super::world::World;
use super::{EndpointAnswer, Explanation, Flow, Note, PlaceKind, Translation, wording};
use crate::model::{Direction, Peer, Pod, Protocol, Service, ServicePort};

/// Why a Service port has no endpoint that takes connections.
pub(super) fn no_endpoint(
    world: &World<'_>,
    service: &Service,
    port: &ServicePort,
    translation: &Translation,
) -> String {
    let v4 = translation.address.is_ipv4();
    let family = if v4 { "IPv4" } else { "IPv6" };
    let endpoints = &translation.endpoints;
    if endpoints.iter().any(|endpoint| endpoint.port.is_some()) {
        let states: Vec<_> = endpoints.iter().map(state).collect();
        return format!(
            "{} endpoint{}, none takes connections: {}",
            endpoints.len(),
            if endpoints.len() == 1 { "" } else { "s" },
            states.join(", ")
        );
    }
    let named_target = port.target_port.parse::<u16>().is_err();
    if service.selector.is_empty() {
        return if endpoints.is_empty() {
            format!(
                "the Service has no selector, and no EndpointSlice lists an {family} endpoint for it"
            )
        } else {
            missing_slice_port(world, service, port)
        };
    }
    let selector = labels(&service.selector);
    let selected: Vec<&Pod> = world
        .snapshot
        .services
        .get(&service.name)
        .map(|service| world.selected(service).collect())
        .unwrap_or_default();
    if selected.is_empty() {
        return format!(
            "its selector {selector} matches no pod in namespace {}{}",
            service.name.namespace,
            nearest_pod(world, service)
        );
    }
    if !selected
        .iter()
        .any(|pod| pod.ips.iter().any(|ip| ip.is_ipv4() == v4))
    {
        return format!(
            "none of the {} pods that its selector {selector} matches has an {family} address",
            selected.len()
        );
    }
    let lacks_name = |pod: &&Pod| pod.named_port(&port.target_port, port.protocol).is_none();
    if named_target && selected.iter().all(lacks_name) {
        return format!(
            "targetPort {:?} is no {} port of the pods behind it; {}",
            port.target_port,
            port.protocol,
            declared(&selected, port.protocol)
        );
    }
    if endpoints.is_empty() {
        format!(
            "its selector {selector} matches {} pods, but no EndpointSlice lists them yet",
            selected.len()
        )
    } else {
        missing_slice_port(world, service, port)
    }
}

fn missing_slice_port(world: &World<'_>, service: &Service, port: &ServicePort) -> String {
    let there: BTreeSet<String> = world
        .snapshot
        .slices
        .values()
        .filter(|slice| slice.service == service.name)
        .flat_map(|slice| &slice.ports)
        .map(|p| format!("{:?} {}/{}", p.name, p.port, p.protocol))
        .collect();
    let there = if there.is_empty() {
        "they have no ports".to_owned()
    } else {
        let there: Vec<_> = there.into_iter().collect();
        format!("they have {}", there.join(", "))
    };
    format!(
        "its EndpointSlices have no {} port named {:?} like the Service port; {there}",
        port.protocol, port.name
    )
}

fn state(endpoint: &EndpointAnswer) -> String {
    let who = match &endpoint.pod {
        Some(pod) => pod.to_string(),
        None => endpoint.address.to_string(),
    };
    match &endpoint.excluded {
        Some(why) => format!("{who} {why}"),
        None => who,
    }
}

/// The pod of the Service's namespace that most of the selector matches.
fn nearest_pod(world: &World<'_>, service: &Service) -> String {
    let misses = |pod: &Pod| -> Vec<String> {
        service
            .selector
            .iter()
            .filter(|(key, value)| pod.labels.get(*key) != Some(value))
            .map(|(key, value)| match pod.labels.get(key) {
                Some(other) => format!("{key}={other} instead of {key}={value}"),
                None => format!("no label {key}"),
            })
            .collect()
    };
    // A pod that has the key is nearer than one that lacks it.
    let distance = |misses: &[String]| {
        let lacking = misses.iter().filter(|miss| miss.starts_with("no ")).count();
        (misses.len(), lacking)
    };
    world
        .snapshot
        .pods
        .values()
        .filter(|pod| pod.name.namespace == service.name.namespace && !pod.terminal)
        .map(|pod| (&pod.name, misses(pod)))
        .min_by_key(|(_, misses)| distance(misses))
        .map(|(name, misses)| format!("; nearest is pod {name}: {}", misses.join(", ")))
        .unwrap_or_default()
}

/// Remarks on the answer as a whole.
pub(super) fn notes(world: &World<'_>, explanation: &Explanation) -> Vec<Note> {
    let mut notes = BTreeSet::new();
    for translation in &explanation.translations {
        notes.extend(translation.warning.clone().map(Note::Warning));
    }
    if explanation.translations.is_empty() {
        for flow in &explanation.flows {
            notes.extend(undeclared(world, explanation.protocol, flow));
        }
    }
    notes.extend(virtual_blocks(world, explanation));
    for flow in &explanation.flows {
        notes.extend(host_network_subjects(world, flow));
        notes.extend(frontends::seen(explanation, flow));
    }
    if explanation.translations.is_empty() {
        for flow in &explanation.flows {
            notes.extend(frontends::missed(world, explanation, flow));
        }
    }
    let none_judged =
        |flow: &Flow| flow.source.kind != PlaceKind::Pod && flow.destination.kind != PlaceKind::Pod;
    if !explanation.flows.is_empty() && explanation.flows.iter().all(none_judged) {
        notes.insert(Note::Hint(
            "neither end is a pod of the pod network: no NetworkPolicy applies".to_owned(),
        ));
    }
    notes.into_iter().collect()
}

/// A targetPort that no container of any endpoint's pod declares.
pub(super) fn wrong_target_port(world: &World<'_>, translation: &Translation) -> Option<String> {
    let protocol = translation.protocol;
    let mut pods = Vec::new();
    let mut ports = BTreeSet::new();
    for endpoint in &translation.endpoints {
        let pod = endpoint.pod.as_ref();
        if let Some(pod) = pod.and_then(|pod| world.snapshot.pods.get(pod))
            && let Some(port) = endpoint.port
        {
            let declares = |p: u16| {
                pod.ports
                    .iter()
                    .any(|d| d.port == p && d.protocol == protocol)
            };
            if pod.ports.is_empty() || declares(port) {
                return None;
            }
            pods.push(&**pod);
            ports.insert(port);
        }
    }
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    (!pods.is_empty()).then(|| {
        format!(
            "wrong targetPort? Service {} leads to port {}/{protocol}, but {}",
            translation.service,
            ports.join(", "),
            declared(&pods, protocol)
        )
    })
}

fn undeclared(world: &World<'_>, protocol: Protocol, flow: &Flow) -> Option<Note> {
    let pod = world.snapshot.pods.get(flow.destination.pod.as_ref()?)?;
    let declares = |port: u16| {
        pod.ports
            .iter()
            .any(|declared| declared.port == port && declared.protocol == protocol)
    };
    (!pod.ports.is_empty() && !declares(flow.port)).then(|| {
        Note::Hint(format!(
            "pod {} does not declare port {}/{protocol}: {}",
            pod.name,
            flow.port,
            declared(&[pod], protocol)
        ))
    })
}

/// `pods declare 8080, 9090` of a protocol, or of the others if there is none.
fn declared(pods: &[&Pod], protocol: Protocol) -> String {
    let list = |wanted: &dyn Fn(Protocol) -> bool| -> Vec<String> {
        let ports: BTreeSet<_> = pods
            .iter()
            .flat_map(|pod| &pod.ports)
            .filter(|port| wanted(port.protocol))
            .map(|port| (port.port, port.protocol, port.name.as_str()))
            .collect();
        ports
            .into_iter()
            .map(|(port, protocol, name)| match name {
                "" => format!("{port}/{protocol}"),
                _ => format!("{port}/{protocol} ({name})"),
            })
            .collect()
    };
    let same = list(&|p| p == protocol);
    let ports = if same.is_empty() {
        list(&|_| true)
    } else {
        same
    };
    let who = match pods {
        [pod] => format!("pod {} declares", pod.name),
        _ => "the pods declare".to_owned(),
    };
    if ports.is_empty() {
        format!("{who} no ports")
    } else {
        format!("{who} {}", ports.join(", "))
    }
}

/// ipBlocks that were written for a virtual address: they never match, because policies see the endpoint behind it. Only what goes
/// to another node's port first is seen on its way there.
fn virtual_blocks(world: &World<'_>, explanation: &Explanation) -> BTreeSet<Note> {
    let mut notes = BTreeSet::new();
    for translation in &explanation.translations {
        for flow in explanation.flows.iter().filter(|flow| flow.hop.is_none()) {
            for isolation in &flow.egress.isolated_by {
                let Some(policy) = world.snapshot.policies.get(&isolation.policy) else {
                    continue;
                };
                let rules = policy.rules(Direction::Egress).unwrap_or_default();
                for peer in rules.iter().flat_map(|rule| &rule.peers) {
                    if let Peer::Block { cidr, .. } = peer
                        && cidr.contains(translation.address)
                        && !cidr.contains(flow.destination.address)
                        && cidr.is_ipv4() == flow.destination.address.is_ipv4()
                    {
                        notes.insert(Note::Warning(format!(
                            "ipBlock {} of policy {} covers the virtual address {} of Service {}, which allows nothing: policies see the endpoint behind it",
                            wording::peer(Some(peer)),
                            policy.name,
                            translation.address,
                            translation.service
                        )));
                    }
                }
            }
        }
    }
    notes
}

/// Policies that select a host-network pod by its labels, to no effect.
fn host_network_subjects(world: &World<'_>, flow: &Flow) -> Vec<Note> {
    let ends = [
        (&flow.source, Direction::Egress),
        (&flow.destination, Direction::Ingress),
    ];
    let mut notes = Vec::new();
    for (place, direction) in ends {
        if let (PlaceKind::Node, Some(name)) = (place.kind, &place.pod)
            && let Some(pod) = world.snapshot.pods.get(name)
        {
            for policy in world.policies_of(pod) {
                if policy.rules(direction).is_some() {
                    notes.push(Note::Warning(format!(
                        "policy {} selects pod {name}, which uses the host network: policies never apply to it",
                        policy.name
                    )));
                }
            }
        }
    }
    notes
}

fn labels(selector: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}
