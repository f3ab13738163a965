//! One policy: whom it is for, and whom its rules name as things are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::wording;
use super::world::World;
use crate::model::{
    Action, Direction, Labels, Node, ObjectName, Peer, Pod, Rule, Selector, Snapshot, Tier,
};

/// A policy and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyDetails {
    /// Its tier.
    pub tier: Tier,
    /// Its priority within the tier; `None` for a NetworkPolicy.
    pub priority: Option<u16>,
    /// The policy.
    pub policy: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// The pods that it is for, in words.
    pub subject: String,
    /// Those that there are.
    pub pods: Vec<ObjectName>,
    /// Its rules for connections to them; `None` if it says nothing about these.
    pub ingress: Option<Vec<RuleDetails>>,
    /// Its rules for connections from them; `None` if it says nothing about these.
    pub egress: Option<Vec<RuleDetails>>,
}

/// A rule and whom it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleDetails {
    /// What becomes of what matches; `None` in a NetworkPolicy, whose rules only allow.
    pub action: Option<Action>,
    /// Its name, empty if it has none.
    pub name: String,
    /// The other ends that it names; a rule without peers has one, who is everybody.
    pub peers: Vec<PeerDetails>,
    /// The ports, in words.
    pub ports: Vec<String>,
}

impl RuleDetails {
    /// Whether it matches nothing as things are.
    #[must_use]
    pub fn matches_nobody(&self) -> bool {
        self.peers.iter().all(|peer| peer.is_nobody)
    }
}

/// A peer of a rule and who it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDetails {
    /// The peer in words.
    pub peer: String,
    /// Whether no connection can match it: a selector that finds neither pods nor nodes.
    pub is_nobody: bool,
    /// Namespaces that a namespaceSelector finds; `None` where there is no such selector.
    pub namespaces: Option<Vec<String>>,
    /// Pods that it is.
    pub pods: Vec<ObjectName>,
    /// Nodes, of which it is at least one address.
    pub nodes: Vec<String>,
}

/// What a policy comes to; `None` if it is not there. NetworkPolicies have a namespace, ClusterNetworkPolicies have none.
#[must_use]
pub fn policy_details(snapshot: &Snapshot, name: &ObjectName) -> Option<PolicyDetails> {
    details_in(&World::new(snapshot), name)
}

/// The same, in a world that is there already.
pub(crate) fn details_in(world: &World<'_>, name: &ObjectName) -> Option<PolicyDetails> {
    let snapshot = world.snapshot;
    let rule = |rule: &Rule| RuleDetails {
        action: None,
        name: String::new(),
        peers: peers(world, rule, &name.namespace),
        ports: ports(rule),
    };
    let pods = |selects: &dyn Fn(&Pod) -> bool| {
        let pods = snapshot.pods.values();
        let selected = pods.filter(|pod| pod.owns_addresses() && selects(pod));
        selected.map(|pod| pod.name.clone()).collect()
    };
    if let Some(policy) = snapshot.cluster_policies.get(&name.name)
        && name.namespace.is_empty()
    {
        let rules = |direction| {
            let rules = policy.rules(direction).iter().map(|it| RuleDetails {
                action: Some(it.action),
                name: it.name.clone(),
                ..rule(&it.matches)
            });
            Some(rules.collect()).filter(|rules: &Vec<_>| !rules.is_empty())
        };
        return Some(PolicyDetails {
            tier: policy.tier,
            priority: Some(policy.priority),
            policy: policy.name.clone(),
            labels: policy.labels.clone(),
            subject: subject(Some(&policy.namespaces), &policy.pods),
            pods: pods(&|pod| {
                policy.selects(world.namespace_labels(&pod.name.namespace), &pod.labels)
            }),
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
        });
    }
    let policy = snapshot.policies.get(name)?;
    let rules = |direction| {
        let rules = policy.rules(direction)?.iter();
        Some(rules.map(rule).collect())
    };
    Some(PolicyDetails {
        tier: Tier::NetworkPolicy,
        priority: None,
        policy: policy.name.clone(),
        labels: policy.labels.clone(),
        subject: subject(None, &policy.pod_selector),
        pods: pods(&|pod| {
            pod.name.namespace == name.namespace && policy.pod_selector.matches(&pod.labels)
        }),
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
    })
}

/// The pods that a policy is for, in words; `None` stands for its own namespace.
pub(crate) fn subject(namespaces: Option<&Selector>, pods: &Selector) -> String {
    wording::peer(Some(&Peer::Pods {
        namespaces: namespaces.cloned(),
        pods: Some(pods.clone()),
    }))
}

fn ports(rule: &Rule) -> Vec<String> {
    if rule.ports.is_empty() {
        return vec![wording::port(None)];
    }
    let ports = rule.ports.iter();
    ports.map(|port| wording::port(Some(port))).collect()
}

fn peers(world: &World<'_>, rule: &Rule, namespace: &str) -> Vec<PeerDetails> {
    if rule.peers.is_empty() {
        return vec![PeerDetails {
            peer: wording::peer(None),
            is_nobody: false,
            namespaces: None,
            pods: Vec::new(),
            nodes: Vec::new(),
        }];
    }
    let peers = rule.peers.iter();
    peers.map(|it| peer(world, it, namespace)).collect()
}

fn peer(world: &World<'_>, peer: &Peer, namespace: &str) -> PeerDetails {
    let matches = |address: &IpAddr| {
        let spot = world.spot(address.to_canonical());
        world.peer_matches(peer, namespace, &spot)
    };
    let owned = |pod: &Pod, address: &IpAddr| {
        let spot = world.spot(address.to_canonical());
        spot.pod.is_some_and(|owner| owner.name == pod.name)
    };
    let pods = world.snapshot.pods.values().filter(|pod| {
        let mut own = pod.ips.iter().filter(|address| owned(pod, address));
        own.any(matches)
    });
    let pods: Vec<_> = pods.map(|pod| pod.name.clone()).collect();
    let of_node = |node: &&std::sync::Arc<Node>| node.addresses.iter().any(matches);
    let nodes = world.snapshot.nodes.values().filter(of_node);
    let nodes: BTreeSet<_> = nodes.map(|node| node.name.clone()).collect();
    let namespaces = match peer {
        Peer::Pods {
            namespaces: Some(selector),
            ..
        } => {
            let all = world.snapshot.namespaces.values();
            let found = all.filter(|it| selector.matches(&it.labels));
            Some(found.map(|it| it.name.clone()).collect())
        }
        _ => None,
    };
    PeerDetails {
        peer: wording::peer(Some(peer)),
        // Somebody outside may have any address.
        is_nobody: !matches!(peer, Peer::Block { .. }) && pods.is_empty() && nodes.is_empty(),
        namespaces,
        pods,
        nodes: nodes.into_iter().collect(),
    }
}
