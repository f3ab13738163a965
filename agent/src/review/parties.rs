//! Who can talk to whom: pods, nodes and addresses outside, put together where no policy tells them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::End;
use super::ports::Cuts;
use super::regions::Regions;
use super::workload::spoken;
use super::worlds::Worlds;
use crate::explain::{Spot, World};
use crate::model::{
    ClusterRule, Direction, ObjectName, Peer, Pod, Policy, Protocol, Rule, Snapshot, Tier,
};

/// The world before, and the one after.
pub(super) type Both<T> = [T; 2];

/// Both worlds, and all parties of them.
pub(super) struct Ground<'a> {
    pub(super) worlds: &'a Both<World<'a>>,
    pub(super) of: &'a Worlds,
    pub(super) parties: Vec<Party>,
}

/// Those that no policy tells apart, neither before nor after.
#[derive(Clone, Debug)]
pub(super) enum Party {
    /// Pods. A verdict about one is a verdict about all.
    Pods(Class),
    /// Addresses of nodes, each with the node's name.
    Nodes(Vec<(IpAddr, String)>),
    /// Addresses outside the cluster, and one of them.
    Outside(End, IpAddr),
}

impl Party {
    /// The pods that it is, if it is pods.
    pub(super) fn class(&self) -> Option<&Class> {
        match self {
            Self::Pods(class) => Some(class),
            Self::Nodes(_) | Self::Outside(..) => None,
        }
    }
}

/// Pods that no policy tells apart.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// The pods, at least one.
    pub(super) pods: Vec<ObjectName>,
    /// What policies say of them, by direction.
    pub(super) rules: BTreeMap<Direction, Said>,
    /// Whether the pods and their namespaces are the same before and after.
    pub(super) stable: bool,
}

/// What all policies say of a class in one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// Whether it is the same before and after.
    pub(super) same: bool,
    /// Where the rules cut ports.
    pub(super) cuts: Cuts,
}

/// A policy with a say in a direction.
#[derive(PartialEq)]
enum Voice<'a> {
    Policy(&'a Policy),
    Tier(Tier, u16, &'a ObjectName, &'a [ClusterRule]),
}

/// All that policies can see of a pod in one world.
type Seen = (
    // Policies that select it.
    BTreeSet<ObjectName>,
    // Peers that it is.
    BTreeSet<usize>,
    // Named ports.
    BTreeSet<(Protocol, String, u16)>,
    // Regions of its addresses, by family.
    Both<Option<usize>>,
);

impl<'a> Ground<'a> {
    pub(super) fn new(of: &'a Worlds, worlds: &'a Both<World<'a>>) -> Self {
        let regions = Regions::of(worlds);
        let terms = Terms::of(worlds);
        let mut parties = pod_classes(worlds, &regions, &terms);
        parties.extend(node_classes(worlds, &regions, &terms));
        let outside = regions.free(worlds).map(|(region, address)| {
            let (cidr, except) = (region.cidr, region.except.clone());
            Party::Outside(End::Outside { cidr, except }, address)
        });
        let families: BTreeSet<bool> = families(of);
        parties.extend(outside.filter(|party| match party {
            Party::Outside(_, address) => families.contains(&address.is_ipv4()),
            Party::Pods(_) | Party::Nodes(_) => true,
        }));
        Self {
            worlds,
            of,
            parties,
        }
    }

    /// The classes of pods.
    pub(super) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.parties.iter().filter_map(Party::class)
    }

    /// What a report calls the pods of a class.
    pub(super) fn ends_of(&self, class: &Class) -> Vec<End> {
        let mut workloads: BTreeMap<ObjectName, usize> = BTreeMap::new();
        for name in &class.pods {
            if let Some(pod) = self.of.after.pods.get(name) {
                *workloads.entry(spoken(pod)).or_default() += 1;
            }
        }
        let ends = workloads.into_iter().map(|(name, pods)| End::Pods {
            namespace: name.namespace,
            workload: name.name,
            pods,
        });
        ends.collect()
    }
}

/// The families of which there are addresses of pods.
fn families(of: &Worlds) -> BTreeSet<bool> {
    let pods = of.after.pods.values().filter(|pod| pod.owns_addresses());
    pods.flat_map(|pod| pod.ips.iter().map(IpAddr::is_ipv4))
        .collect()
}

/// Peers by label of all rules, each with the namespace of its policy, and the names that rules have for ports.
struct Terms {
    peers: Vec<(String, Peer)>,
    names: BTreeSet<(Protocol, String)>,
}

impl Terms {
    fn of(worlds: &Both<World<'_>>) -> Self {
        let mut peers: Vec<(String, Peer)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut cuts = Cuts::default();
        for world in worlds {
            for (namespace, rule) in spoken_rules(world.snapshot) {
                cuts.add(rule);
                for peer in &rule.peers {
                    let term = (namespace.to_owned(), peer.clone());
                    // Regions tell of blocks.
                    if !matches!(peer, Peer::Block { .. }) && seen.insert(term.clone()) {
                        peers.push(term);
                    }
                }
            }
        }
        let names = cuts
            .names()
            .map(|(protocol, name)| (protocol, name.to_owned()));
        Self {
            peers,
            names: names.collect(),
        }
    }

    fn met_by(&self, world: &World<'_>, spot: &Spot<'_>) -> BTreeSet<usize> {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(_, (namespace, peer))| world.peer_matches(peer, namespace, spot))
            .map(|(index, _)| index)
            .collect()
    }
}

/// Every rule with the namespace of its policy; of a cluster's there is none.
fn spoken_rules(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Rule)> {
    let policies = snapshot.policies.values();
    let own = policies.flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        rules.map(|rule| (policy.name.namespace.as_str(), rule))
    });
    let tiers = snapshot.cluster_policies.values();
    let tiers = tiers.flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
    own.chain(tiers.map(|rule| ("", &rule.matches)))
}

fn pod_classes(worlds: &Both<World<'_>>, regions: &Regions, terms: &Terms) -> Vec<Party> {
    let mut classes: BTreeMap<Both<Seen>, Vec<ObjectName>> = BTreeMap::new();
    let [before, after] = worlds;
    for pod in after.snapshot.pods.values() {
        let Some(was) = before.snapshot.pods.get(&pod.name) else {
            continue;
        };
        if let (Some(was), Some(is)) = (
            seen(before, was, regions, terms),
            seen(after, pod, regions, terms),
        ) {
            classes.entry([was, is]).or_default().push(pod.name.clone());
        }
    }
    let classes = classes.into_values().map(|pods| {
        let stable = pods.iter().all(|name| is_stable(worlds, name));
        let said = |direction| (direction, said(worlds, &pods[0], direction));
        let rules = [Direction::Ingress, Direction::Egress].map(said).into();
        Party::Pods(Class {
            rules,
            stable,
            pods,
        })
    });
    classes.collect()
}

/// All that policies can see of a pod; `None` if it has no address of its own.
fn seen(world: &World<'_>, pod: &Pod, regions: &Regions, terms: &Terms) -> Option<Seen> {
    let own = |v4: bool| {
        let spots = pod.ips.iter().filter(|ip| ip.is_ipv4() == v4);
        let mut spots = spots.map(|ip| world.spot(ip.to_canonical()));
        spots.find(|spot| spot.pod.is_some_and(|owner| owner.name == pod.name))
    };
    let spots = [own(true), own(false)];
    let spot = spots.iter().flatten().next()?;
    let owner = spot.pod?;
    let policies = world.policies_of(owner).map(|policy| policy.name.clone());
    let tiers = [Tier::Admin, Tier::Baseline].into_iter();
    let tiers = tiers.flat_map(|tier| world.tier_of(tier, owner));
    let ports = terms.names.iter().filter_map(|(protocol, name)| {
        Some((*protocol, name.clone(), pod.named_port(name, *protocol)?))
    });
    Some((
        policies
            .chain(tiers.map(|policy| policy.name.clone()))
            .collect(),
        terms.met_by(world, spot),
        ports.collect(),
        spots
            .each_ref()
            .map(|spot| regions.at(spot.as_ref()?.place.address)),
    ))
}

fn is_stable(worlds: &Both<World<'_>>, name: &ObjectName) -> bool {
    let [before, after] = worlds;
    let pod = |world: &World<'_>| world.snapshot.pods.get(name).cloned();
    pod(before) == pod(after)
        && before.namespace_labels(&name.namespace) == after.namespace_labels(&name.namespace)
}

fn said(worlds: &Both<World<'_>>, name: &ObjectName, direction: Direction) -> Said {
    let mut cuts = Cuts::default();
    let voices = worlds
        .each_ref()
        .map(|world| voices(world, name, direction));
    for voice in voices.iter().flatten() {
        match voice {
            Voice::Policy(policy) => {
                let rules = policy.rules(direction).unwrap_or_default();
                rules.iter().for_each(|rule| cuts.add(rule));
            }
            Voice::Tier(_, _, _, rules) => rules.iter().for_each(|rule| cuts.add(&rule.matches)),
        }
    }
    Said {
        same: voices[0] == voices[1],
        cuts,
    }
}

fn voices<'a>(world: &World<'a>, name: &ObjectName, direction: Direction) -> Vec<Voice<'a>> {
    let Some(pod) = world.snapshot.pods.get(name) else {
        return Vec::new();
    };
    let policies = world.policies_of(pod);
    let policies = policies.filter(|policy| policy.rules(direction).is_some());
    let tiers = [Tier::Admin, Tier::Baseline].into_iter();
    let tiers = tiers
        .flat_map(|tier| world.tier_of(tier, pod))
        .map(|policy| {
            let rules = policy.rules(direction);
            Voice::Tier(policy.tier, policy.priority, &policy.name, rules)
        });
    policies.map(Voice::Policy).chain(tiers).collect()
}

fn node_classes(worlds: &Both<World<'_>>, regions: &Regions, terms: &Terms) -> Vec<Party> {
    let mut classes: BTreeMap<_, Vec<(IpAddr, String)>> = BTreeMap::new();
    let [before, after] = worlds;
    for (address, node) in after.node_addresses() {
        let spots = worlds.each_ref().map(|world| world.spot(address));
        let node_there =
            |spot: &Spot<'_>| spot.pod.is_none() && spot.place.node.as_deref() == Some(node);
        if !spots.iter().all(node_there) {
            continue;
        }
        let [was, is] = &spots;
        let key = (
            regions.at(address),
            terms.met_by(before, was),
            terms.met_by(after, is),
        );
        classes
            .entry(key)
            .or_default()
            .push((address, node.to_owned()));
    }
    classes.into_values().map(Party::Nodes).collect()
}
