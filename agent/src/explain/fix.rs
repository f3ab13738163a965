//! The smallest policies that allow what is denied, as YAML ready to apply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::world::World;
use super::{Explanation, Fix, Place, Side, SideOutcome, wording};
use crate::model::{
    Direction, Labels, ObjectName, Operator, Peer, Pod, PolicyPort, PortMatch, Protocol,
    Requirement, Selector,
};

/// Labels that say what a pod is, best first; the others tell copies and versions apart.
const IDENTITY: [&str; 8] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "k8s-app",
    "app",
    "component",
    "role",
    "name",
];

/// Labels that controllers put on single pods or versions.
const VOLATILE: [&str; 6] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "apps.kubernetes.io/pod-index",
];

/// A policy to be: peers by the ports that they need.
#[derive(Default)]
pub(super) struct Draft {
    rules: BTreeMap<BTreeSet<PolicyPort>, BTreeSet<Peer>>,
}

/// What tells drafts apart: namespace, direction, selected pods.
pub(super) type DraftKey = (String, Direction, Selector);

/// Drafts in the making.
#[derive(Default)]
pub(super) struct Drafts(BTreeMap<DraftKey, Draft>);

impl Drafts {
    pub(super) fn allow(&mut self, key: DraftKey, peer: Peer, ports: BTreeSet<PolicyPort>) {
        let draft = self.0.entry(key).or_default();
        draft.rules.entry(ports).or_default().insert(peer);
    }

    /// Writes the policies down, each under a name that no policy has: applying it must not replace another.
    pub(super) fn write(self, world: &World<'_>, name: impl Fn(&DraftKey) -> String) -> Vec<Fix> {
        let mut taken = BTreeSet::new();
        let mut fixes = Vec::new();
        for (key, draft) in self.0 {
            let base = ObjectName::new(&key.0, resource_name(&name(&key)));
            let mut name = base.clone();
            let mut number = 2;
            while world.snapshot.policies.contains_key(&name) || !taken.insert(name.clone()) {
                name.name = format!("{}-{number}", base.name);
                number += 1;
            }
            fixes.push(Fix {
                title: title(&key, &draft),
                yaml: draft.yaml(&name, key.1, &key.2),
            });
        }
        fixes
    }
}

fn title((namespace, direction, subject): &DraftKey, draft: &Draft) -> String {
    let subject = if subject.requirements.is_empty() {
        "all pods".to_owned()
    } else {
        format!("pods {}", wording::selector(subject))
    };
    let word = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let rules: Vec<_> = draft
        .rules
        .iter()
        .map(|(ports, peers)| {
            let peers: Vec<_> = peers.iter().map(|peer| wording::peer(Some(peer))).collect();
            let ports: Vec<_> = ports.iter().map(|port| wording::port(Some(port))).collect();
            format!("{word} {} on {}", peers.join(" or "), ports.join(", "))
        })
        .collect();
    format!(
        "{} of {subject} in namespace {namespace}: {}",
        direction.as_str(),
        rules.join("; ")
    )
}

/// Policies for every denied side of every flow.
pub(super) fn fixes(world: &World<'_>, explanation: &Explanation) -> Vec<Fix> {
    let mut drafts = Drafts::default();
    for flow in &explanation.flows {
        let (aim, port) = flow.egress_peer();
        let sides = [
            (&flow.egress, &flow.source, aim, port),
            (
                &flow.ingress,
                &flow.destination,
                flow.ingress_peer(),
                flow.port,
            ),
        ];
        for (side, subject, peer, port) in sides {
            if let Some(key) = denied_subject(world, side, subject) {
                let peer = peer_of(world, &key.0, peer, None);
                let ports = BTreeSet::from([one_port(explanation.protocol, port)]);
                drafts.allow(key, peer, ports);
            }
        }
    }
    let short = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
    drafts.write(world, |(_, direction, _)| {
        let port = explanation.port;
        match direction {
            Direction::Egress => format!("allow-to-{}-{port}", short(&explanation.destination)),
            Direction::Ingress => format!("allow-from-{}-{port}", short(&explanation.source)),
        }
    })
}

/// The pods that a policy for a denied side is to select; `None` if the side is not denied.
///
/// By what the pod is, unless that selects pods that nothing isolates so far: the new policy would isolate them. Then as
/// narrow a selector as the isolating policies have.
fn denied_subject(world: &World<'_>, side: &Side, subject: &Place) -> Option<DraftKey> {
    if side.outcome != SideOutcome::Denied {
        return None;
    }
    let name = subject.pod.as_ref()?;
    let pod = world.snapshot.pods.get(name)?;
    let identity = identity(&pod.labels);
    let isolated = |pod: &Pod| {
        world
            .policies_of(world.snapshot.pods[&pod.name].as_ref())
            .any(|policy| policy.rules(side.direction).is_some())
    };
    let harmless = world
        .snapshot
        .pods
        .values()
        .filter(|pod| pod.owns_addresses() && pod.name.namespace == name.namespace)
        .filter(|pod| identity.matches(&pod.labels))
        .all(|pod| isolated(pod));
    let selector = if harmless {
        identity
    } else {
        isolating_selectors(world, side)
            .max_by_key(|selector| selector.requirements.len())?
            .clone()
    };
    Some((name.namespace.clone(), side.direction, selector))
}

/// The pod selectors of the policies that isolate a side.
pub(super) fn isolating_selectors<'w>(
    world: &'w World<'_>,
    side: &'w Side,
) -> impl Iterator<Item = &'w Selector> {
    side.isolated_by
        .iter()
        .filter_map(|isolation| world.snapshot.policies.get(&isolation.policy))
        .map(|policy| &policy.pod_selector)
}

/// A peer that names this place in a policy of `namespace`; by `selector` if it is a pod that this selects.
pub(super) fn peer_of(
    world: &World<'_>,
    namespace: &str,
    place: &Place,
    selector: Option<&Labels>,
) -> Peer {
    let owner = world.spot(place.address).pod;
    let Some(pod) = owner else {
        return block(place.address);
    };
    let pods = match selector {
        Some(labels) if labels.iter().all(|(k, v)| pod.labels.get(k) == Some(v)) => exact(labels),
        _ => identity(&pod.labels),
    };
    let namespaces =
        (pod.name.namespace != namespace).then(|| namespace_named(&pod.name.namespace));
    Peer::Pods {
        // A podSelector of nothing says nothing beside a namespaceSelector; alone it must be there.
        pods: (namespaces.is_none() || !pods.requirements.is_empty()).then_some(pods),
        namespaces,
    }
}

/// The API server labels every namespace with its name.
pub(super) fn namespace_named(name: &str) -> Selector {
    Selector {
        requirements: vec![equals("kubernetes.io/metadata.name", name)],
    }
}

fn block(address: IpAddr) -> Peer {
    Peer::Block {
        cidr: IpNetwork::from(address),
        except: Vec::new(),
    }
}

/// One port.
pub(super) fn one_port(protocol: Protocol, port: u16) -> PolicyPort {
    PolicyPort {
        protocol,
        port: PortMatch::Range(port, port),
    }
}

/// A selector of the labels that say what a pod is; of all lasting ones if none of the usual ones is there.
fn identity(labels: &Labels) -> Selector {
    let usual: Labels = labels
        .iter()
        .filter(|(key, _)| IDENTITY.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !usual.is_empty() {
        return exact(&usual);
    }
    let lasting: Labels = labels
        .iter()
        .filter(|(key, _)| !VOLATILE.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    exact(&lasting)
}

fn exact(labels: &Labels) -> Selector {
    Selector {
        requirements: labels
            .iter()
            .map(|(key, value)| equals(key, value))
            .collect(),
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement {
        key: key.to_owned(),
        operator: Operator::In([value.to_owned()].into()),
    }
}

/// Something that the API takes as a name (RFC 1123 label).
fn resource_name(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(60)
        .collect();
    name.trim_matches('-').to_ascii_lowercase()
}

impl Draft {
    fn yaml(&self, name: &ObjectName, direction: Direction, subject: &Selector) -> String {
        let (rules_key, peers_key, policy_type) = match direction {
            Direction::Egress => ("egress", "to", "Egress"),
            Direction::Ingress => ("ingress", "from", "Ingress"),
        };
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|(ports, peers)| {
                json!({
                    peers_key: peers.iter().map(peer_value).collect::<Vec<_>>(),
                    "ports": ports.iter().map(port_value).collect::<Vec<_>>(),
                })
            })
            .collect();
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "namespace": name.namespace, "name": name.name },
            "spec": {
                "podSelector": selector_value(subject),
                "policyTypes": [policy_type],
                rules_key: rules,
            },
        });
        serde_saphyr::to_string(&policy).expect("plain maps, lists and strings")
    }
}

fn peer_value(peer: &Peer) -> Value {
    let mut value = serde_json::Map::new();
    match peer {
        Peer::Pods { namespaces, pods } => {
            if let Some(selector) = namespaces {
                value.insert("namespaceSelector".to_owned(), selector_value(selector));
            }
            if let Some(selector) = pods {
                value.insert("podSelector".to_owned(), selector_value(selector));
            }
        }
        Peer::Block { cidr, except } => {
            let mut inner = json!({ "cidr": cidr });
            if !except.is_empty() {
                inner["except"] = json!(except);
            }
            value.insert("ipBlock".to_owned(), inner);
        }
        // No fix has such a peer, which is a ClusterNetworkPolicy's alone.
        Peer::Nodes(nodes) => {
            value.insert("nodes".to_owned(), selector_value(nodes));
        }
    }
    Value::Object(value)
}

fn port_value(port: &PolicyPort) -> Value {
    let mut value = json!({ "protocol": port.protocol });
    match &port.port {
        PortMatch::All => {}
        PortMatch::Range(first, last) => {
            value["port"] = json!(first);
            if first != last {
                value["endPort"] = json!(last);
            }
        }
        PortMatch::Named(name) => value["port"] = json!(name),
    }
    value
}

fn selector_value(selector: &Selector) -> Value {
    let mut labels = serde_json::Map::new();
    let mut expressions = Vec::new();
    for Requirement { key, operator } in &selector.requirements {
        match operator {
            // Two values demanded of one key cannot both stand in a map.
            Operator::In(values) if values.len() == 1 && !labels.contains_key(key) => {
                labels.insert(key.clone(), json!(values.first()));
            }
            Operator::In(values) => {
                expressions.push(json!({ "key": key, "operator": "In", "values": values }));
            }
            Operator::NotIn(values) => {
                expressions.push(json!({ "key": key, "operator": "NotIn", "values": values }));
            }
            Operator::Exists => expressions.push(json!({ "key": key, "operator": "Exists" })),
            Operator::DoesNotExist => {
                expressions.push(json!({ "key": key, "operator": "DoesNotExist" }));
            }
        }
    }
    let mut value = serde_json::Map::new();
    if !labels.is_empty() {
        value.insert("matchLabels".to_owned(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        value.insert("matchExpressions".to_owned(), Value::Array(expressions));
    }
    Value::Object(value)
}
