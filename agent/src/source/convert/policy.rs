//! networking.k8s.io/v1 NetworkPolicy.

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::address::parse_cidr;
use super::{Conversion, Converted, fields};
use crate::model::{
    Kind, Object, Operator, Peer, Policy, PolicyPort, PortMatch, Requirement, Rule, Selector,
};
use crate::source::{Fault, Problem};

/// Converts a NetworkPolicy.
///
/// A peer or port that cannot be used allows nothing, and is told; the pods stay isolated. Only where it is not known which pods
/// are meant, or in which direction, is the whole policy of no use.
pub fn network_policy(object: api::NetworkPolicy) -> Conversion {
    let name = fields::namespaced(Kind::NetworkPolicy, &object.metadata)?;
    let reject = |fault: Fault| fault.of(Kind::NetworkPolicy, &name);

    let spec = object.spec.unwrap_or_default();
    let pod_selector =
        selector(spec.pod_selector.unwrap_or_default(), "spec.podSelector").map_err(reject)?;
    let ingress = spec
        .ingress
        .unwrap_or_default()
        .into_iter()
        .map(|rule| (rule.from, rule.ports));
    let egress = spec
        .egress
        .unwrap_or_default()
        .into_iter()
        .map(|rule| (rule.to, rule.ports));
    let has_egress = egress.len() > 0;
    let mut flaws = Vec::new();
    let ingress = rules(ingress, "spec.ingress", "from", &mut flaws);
    let egress = rules(egress, "spec.egress", "to", &mut flaws);
    let (isolates_ingress, isolates_egress) =
        policy_types(spec.policy_types.unwrap_or_default(), has_egress).map_err(reject)?;

    let object = Object::Policy(Policy {
        uid: object.metadata.uid.unwrap_or_default(),
        labels: object.metadata.labels.unwrap_or_default(),
        pod_selector,
        ingress: isolates_ingress.then_some(ingress),
        egress: isolates_egress.then_some(egress),
        name,
    });
    Ok(Some(Converted { object, flaws }))
}

/// Whether ingress and egress are isolated. Without policyTypes, ingress is, and egress if there are rules for it.
fn policy_types(types: Vec<String>, has_egress: bool) -> Result<(bool, bool), Fault> {
    if types.is_empty() {
        return Ok((true, has_egress));
    }
    let mut isolates = (false, false);
    for (index, policy_type) in types.into_iter().enumerate() {
        match policy_type.as_str() {
            "Ingress" => isolates.0 = true,
            "Egress" => isolates.1 = true,
            _ => {
                let field = format!("spec.policyTypes[{index}]");
                return Err(Fault::new(field, Problem::PolicyType(policy_type)));
            }
        }
    }
    Ok(isolates)
}

type ApiRule = (
    Option<Vec<api::NetworkPolicyPeer>>,
    Option<Vec<api::NetworkPolicyPort>>,
);

fn rules(
    rules: impl Iterator<Item = ApiRule>,
    field: &str,
    peers_field: &str,
    flaws: &mut Vec<Fault>,
) -> Vec<Rule> {
    rules
        .enumerate()
        .map(|(rule, (peers, ports))| {
            let at = format!("{field}[{rule}]");
            let peers = usable(peers, &format!("{at}.{peers_field}"), peer, flaws);
            let ports = usable(ports, &format!("{at}.ports"), port, flaws);
            peers.zip(ports)
        })
        // A rule of no use keeps its place: rules are known by their index.
        .map(|usable| match usable {
            Some((peers, ports)) => Rule { peers, ports },
            None => Rule::nobody(),
        })
        .collect()
}

/// The items that can be used. An empty list stands for everything, so that one of which nothing remains is `None`.
fn usable<Item, Converted>(
    items: Option<Vec<Item>>,
    field: &str,
    convert: impl Fn(Item, &str) -> Result<Converted, Fault>,
    flaws: &mut Vec<Fault>,
) -> Option<Vec<Converted>> {
    let items = items.unwrap_or_default();
    let wanted = items.len();
    let mut converted = Vec::with_capacity(wanted);
    for (index, item) in items.into_iter().enumerate() {
        match convert(item, &format!("{field}[{index}]")) {
            Ok(item) => converted.push(item),
            Err(flaw) => flaws.push(flaw),
        }
    }
    (wanted == 0 || !converted.is_empty()).then_some(converted)
}

fn peer(peer: api::NetworkPolicyPeer, field: &str) -> Result<Peer, Fault> {
    match (peer.ip_block, peer.namespace_selector, peer.pod_selector) {
        (None, None, None) => Err(Fault::new(field, Problem::EmptyPeer)),
        (Some(block), None, None) => ip_block(block, &format!("{field}.ipBlock")),
        (Some(_), _, _) => Err(Fault::new(field, Problem::MixedPeer)),
        (None, namespaces, pods) => Ok(Peer::Pods {
            namespaces: namespaces
                .map(|item| selector(item, &format!("{field}.namespaceSelector")))
                .transpose()?,
            pods: pods
                .map(|item| selector(item, &format!("{field}.podSelector")))
                .transpose()?,
        }),
    }
}

fn ip_block(block: api::IPBlock, field: &str) -> Result<Peer, Fault> {
    let cidr =
        parse_cidr(&block.cidr).map_err(|problem| Fault::new(format!("{field}.cidr"), problem))?;
    let except = block.except.unwrap_or_default();
    let except = except
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let fault = |problem| Fault::new(format!("{field}.except[{index}]"), problem);
            let except = parse_cidr(text).map_err(fault)?;
            let same_family = except.is_ipv4() == cidr.is_ipv4();
            if same_family && except.prefix() > cidr.prefix() && cidr.contains(except.ip()) {
                Ok(except)
            } else {
                Err(fault(Problem::Except { except, cidr }))
            }
        })
        .collect::<Result<_, Fault>>()?;
    Ok(Peer::Block { cidr, except })
}

fn port(port: api::NetworkPolicyPort, field: &str) -> Result<PolicyPort, Fault> {
    let fault = |part: &str, problem| Fault::new(format!("{field}.{part}"), problem);
    let protocol =
        fields::protocol(port.protocol.as_deref()).map_err(|problem| fault("protocol", problem))?;
    let first = match port.port {
        Some(IntOrString::Int(number)) => {
            fields::port(number).map_err(|problem| fault("port", problem))?
        }
        _ if port.end_port.is_some() => {
            return Err(fault("endPort", Problem::EndWithoutNumber));
        }
        Some(IntOrString::String(name)) if name.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
            return Ok(PolicyPort {
                protocol,
                port: PortMatch::Named(name),
            });
        }
        Some(IntOrString::String(name)) => return Err(fault("port", Problem::PortName(name))),
        None => {
            return Ok(PolicyPort {
                protocol,
                port: PortMatch::All,
            });
        }
    };
    let last = match port.end_port {
        None => first,
        Some(number) => fields::port(number).map_err(|problem| fault("endPort", problem))?,
    };
    if last < first {
        let problem = Problem::EndBeforePort {
            end: last,
            port: first,
        };
        return Err(fault("endPort", problem));
    }
    Ok(PolicyPort {
        protocol,
        port: PortMatch::Range(first, last),
    })
}

pub(super) fn selector(selector: LabelSelector, field: &str) -> Result<Selector, Fault> {
    let labels = selector.match_labels.unwrap_or_default().into_iter();
    let mut requirements: Vec<_> = labels
        .map(|(key, value)| Requirement {
            key,
            operator: Operator::In([value].into()),
        })
        .collect();
    let expressions = selector.match_expressions.unwrap_or_default();
    for (index, expression) in expressions.into_iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        requirements.push(requirement(expression, &field)?);
    }
    requirements.sort();
    requirements.dedup();
    Ok(Selector { requirements })
}

fn requirement(expression: LabelSelectorRequirement, field: &str) -> Result<Requirement, Fault> {
    let name = expression.operator;
    let values = expression.values.unwrap_or_default();
    let problem = match (name.as_str(), values.is_empty()) {
        ("In" | "NotIn", true) => Some(Problem::NoValues(name.clone())),
        ("Exists" | "DoesNotExist", false) => Some(Problem::Values(name.clone())),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(Fault::new(format!("{field}.values"), problem));
    }
    let values = values.into_iter().collect();
    let operator = match name.as_str() {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => {
            let field = format!("{field}.operator");
            return Err(Fault::new(field, Problem::Operator(name)));
        }
    };
    Ok(Requirement {
        key: expression.key,
        operator,
    })
}
