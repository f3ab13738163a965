//! policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.

use super::address::parse_cidr;
use super::policy::selector;
use super::{Conversion, Converted, fields};
use crate::model::{
    Action, ClusterPolicy, ClusterRule, Direction, Kind, Object, Peer, PolicyPort, PortMatch,
    Protocol, Rule, Selector, Tier,
};
use crate::source::policy_api as api;
use crate::source::{Fault, Problem};

/// The greatest priority that the API takes.
const LAST_PRIORITY: i32 = 1000;

/// Converts a ClusterNetworkPolicy.
///
/// A rule of which a part cannot be used fails closed, as the API's text has it, and is told: one that accepts matches nothing, and any
/// other denies everything. Only where it is not known which pods are meant, or when the policy is asked, is the whole of no use.
pub fn cluster_network_policy(object: api::ClusterNetworkPolicy) -> Conversion {
    const KIND: Kind = Kind::ClusterNetworkPolicy;
    let name = fields::cluster(KIND, &object.metadata)?;
    let reject = |fault: Fault| fault.of(KIND, &name);

    let spec = object.spec;
    let fault = |field: &str, problem| Fault::new(field, problem);
    let tier = match spec.tier.as_str() {
        "Admin" => Tier::Admin,
        "Baseline" => Tier::Baseline,
        _ => return Err(reject(fault("spec.tier", Problem::Tier(spec.tier)))),
    };
    let priority = u16::try_from(spec.priority)
        .ok()
        .filter(|_| spec.priority <= LAST_PRIORITY)
        .ok_or_else(|| reject(fault("spec.priority", Problem::Priority(spec.priority))))?;
    let (namespaces, pods) = subject(spec.subject, "spec.subject").map_err(reject)?;
    let mut flaws = Vec::new();
    let ingress = rules(Direction::Ingress, spec.ingress, &mut flaws);
    let egress = rules(Direction::Egress, spec.egress, &mut flaws);

    let object = Object::ClusterPolicy(ClusterPolicy {
        uid: object.metadata.uid.unwrap_or_default(),
        labels: object.metadata.labels.unwrap_or_default(),
        tier,
        priority,
        namespaces,
        pods,
        ingress,
        egress,
        name,
    });
    Ok(Some(Converted { object, flaws }))
}

/// Namespaces and pods of a subject.
fn subject(subject: api::Peer, field: &str) -> Result<(Selector, Selector), Fault> {
    known(&subject.unknown, field)?;
    match subject {
        api::Peer {
            namespaces: Some(namespaces),
            pods: None,
            nodes: None,
            networks: None,
            domain_names: None,
            ..
        } => Ok((
            selector(namespaces, &format!("{field}.namespaces"))?,
            Selector::default(),
        )),
        api::Peer {
            namespaces: None,
            pods: Some(pods),
            nodes: None,
            networks: None,
            domain_names: None,
            ..
        } => namespaced_pod(pods, &format!("{field}.pods")),
        _ => Err(Fault::new(field, Problem::NotOne("namespaces and pods"))),
    }
}

fn rules(
    direction: Direction,
    rules: Option<Vec<api::Rule>>,
    flaws: &mut Vec<Fault>,
) -> Vec<ClusterRule> {
    let rules = rules.unwrap_or_default().into_iter().enumerate();
    rules
        .map(|(index, rule)| {
            let field = format!("spec.{}[{index}]", direction.as_str());
            let name = rule.name.clone();
            let accepts = rule.action == "Accept";
            match usable(direction, rule, &field) {
                Ok((action, matches)) => ClusterRule {
                    name,
                    action,
                    matches,
                },
                Err(flaw) => {
                    flaws.push(closed(flaw, accepts));
                    fail_closed(name, accepts)
                }
            }
        })
        .collect()
}

/// What stands in for a rule that cannot be used.
fn fail_closed(name: String, accepts: bool) -> ClusterRule {
    let (action, matches) = if accepts {
        (Action::Accept, Rule::nobody())
    } else {
        (Action::Deny, Rule::default())
    };
    ClusterRule {
        name,
        action,
        matches,
    }
}

fn closed(flaw: Fault, accepts: bool) -> Fault {
    let problem = Problem::FailsClosed {
        problem: flaw.problem,
        effect: if accepts {
            "accepts nothing"
        } else {
            "denies everything"
        },
    };
    Fault::new(flaw.field, problem)
}

fn usable(direction: Direction, rule: api::Rule, field: &str) -> Result<(Action, Rule), Fault> {
    known(&rule.unknown, field)?;
    let action = match rule.action.as_str() {
        "Accept" => Action::Accept,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        _ => {
            let problem = Problem::Action(rule.action);
            return Err(Fault::new(format!("{field}.action"), problem));
        }
    };
    let ((peers, peers_field), (others, others_field)) = match direction {
        Direction::Ingress => ((rule.from, "from"), (rule.to, "to")),
        Direction::Egress => ((rule.to, "to"), (rule.from, "from")),
    };
    if others.is_some() {
        let problem = Problem::UnknownField(others_field.to_owned());
        return Err(Fault::new(field, problem));
    }
    let peers = each(peers, &format!("{field}.{peers_field}"), |item, field| {
        peer(direction, item, field)
    })?;
    if peers.is_empty() {
        let field = format!("{field}.{peers_field}");
        return Err(Fault::new(field, Problem::NoPeers));
    }
    let ports = each(rule.protocols, &format!("{field}.protocols"), protocol)?;
    Ok((action, Rule { peers, ports }))
}

/// Everything that the items of a list stand for.
fn each<Item, Converted>(
    items: Option<Vec<Item>>,
    field: &str,
    convert: impl Fn(Item, &str) -> Result<Vec<Converted>, Fault>,
) -> Result<Vec<Converted>, Fault> {
    let mut converted = Vec::new();
    for (index, item) in items.unwrap_or_default().into_iter().enumerate() {
        converted.extend(convert(item, &format!("{field}[{index}]"))?);
    }
    Ok(converted)
}

fn known(unknown: &api::Unknown, field: &str) -> Result<(), Fault> {
    match unknown.keys().next() {
        Some(name) => Err(Fault::new(field, Problem::UnknownField(name.clone()))),
        None => Ok(()),
    }
}

fn namespaced_pod(pods: api::NamespacedPod, field: &str) -> Result<(Selector, Selector), Fault> {
    known(&pods.unknown, field)?;
    Ok((
        selector(
            pods.namespace_selector,
            &format!("{field}.namespaceSelector"),
        )?,
        selector(pods.pod_selector, &format!("{field}.podSelector"))?,
    ))
}

fn peer(direction: Direction, peer: api::Peer, field: &str) -> Result<Vec<Peer>, Fault> {
    if direction == Direction::Ingress {
        let (namespaces, pods) = subject(peer, field)?;
        return Ok(vec![of_pods(namespaces, pods)]);
    }
    known(&peer.unknown, field)?;
    let one = match peer {
        api::Peer {
            nodes: Some(nodes),
            namespaces: None,
            pods: None,
            networks: None,
            domain_names: None,
            ..
        } => {
            return Ok(vec![Peer::Nodes(selector(
                nodes,
                &format!("{field}.nodes"),
            )?)]);
        }
        api::Peer {
            networks: Some(networks),
            namespaces: None,
            pods: None,
            nodes: None,
            domain_names: None,
            ..
        } if !networks.is_empty() => {
            return each(Some(networks), &format!("{field}.networks"), network);
        }
        api::Peer {
            domain_names: Some(_),
            ..
        } => {
            return Err(Fault::new(
                format!("{field}.domainNames"),
                Problem::DomainNames,
            ));
        }
        peer => peer,
    };
    subject(one, field)
        .map(|(namespaces, pods)| vec![of_pods(namespaces, pods)])
        .map_err(|fault| match *fault.problem {
            Problem::NotOne(_) => Fault::new(
                fault.field,
                Problem::NotOne("namespaces, pods, nodes and networks"),
            ),
            _ => fault,
        })
}

fn of_pods(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods {
        namespaces: Some(namespaces),
        pods: Some(pods),
    }
}

fn network(text: String, field: &str) -> Result<Vec<Peer>, Fault> {
    let cidr = parse_cidr(&text).map_err(|problem| Fault::new(field, problem))?;
    let except = Vec::new();
    Ok(vec![Peer::Block { cidr, except }])
}

fn protocol(wanted: api::Protocol, field: &str) -> Result<Vec<PolicyPort>, Fault> {
    known(&wanted.unknown, field)?;
    let of = |protocol, transport, name: &str| {
        let port = transport_port(transport, &format!("{field}.{name}"))?;
        Ok(vec![PolicyPort { protocol, port }])
    };
    match (
        wanted.tcp,
        wanted.udp,
        wanted.sctp,
        wanted.destination_named_port,
    ) {
        (Some(tcp), None, None, None) => of(Protocol::Tcp, tcp, "tcp"),
        (None, Some(udp), None, None) => of(Protocol::Udp, udp, "udp"),
        (None, None, Some(sctp), None) => of(Protocol::Sctp, sctp, "sctp"),
        // A pod may give one name to ports of several protocols, and then all are meant.
        (None, None, None, Some(name)) => Ok(Protocol::ALL
            .map(|protocol| PolicyPort {
                protocol,
                port: PortMatch::Named(name.clone()),
            })
            .to_vec()),
        _ => Err(Fault::new(
            field,
            Problem::NotOne("tcp, udp, sctp and destinationNamedPort"),
        )),
    }
}

fn transport_port(transport: api::Transport, field: &str) -> Result<PortMatch, Fault> {
    known(&transport.unknown, field)?;
    let field = format!("{field}.destinationPort");
    let Some(port) = transport.destination_port else {
        return Err(Fault::new(field, Problem::NotOne("number and range")));
    };
    known(&port.unknown, &field)?;
    let number = |number, part: &str| {
        fields::port(number).map_err(|problem| Fault::new(format!("{field}.{part}"), problem))
    };
    match (port.number, port.range) {
        (Some(port), None) => {
            let port = number(port, "number")?;
            Ok(PortMatch::Range(port, port))
        }
        (None, Some(range)) => {
            let (port, end) = (
                number(range.start, "range.start")?,
                number(range.end, "range.end")?,
            );
            if end < port {
                let problem = Problem::EndBeforePort { end, port };
                return Err(Fault::new(format!("{field}.range"), problem));
            }
            Ok(PortMatch::Range(port, end))
        }
        _ => Err(Fault::new(field, Problem::NotOne("number and range"))),
    }
}
