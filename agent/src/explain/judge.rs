//! What the policies of both ends say about one connection.

use std::net::IpAddr;

use super::miss::{self, Judged};
use super::world::{Spot, World};
use super::{
    Flow, Hop, Isolation, PlaceKind, RuleMatch, Side, SideOutcome, TierMatch, Verdict, wording,
};
use crate::model::{
    Action, Direction, ObjectName, Peer, Pod, Policy, PolicyPort, PortMatch, Protocol, Rule, Tier,
};

/// A connection after translation.
pub(crate) struct Connection<'w, 'a> {
    pub(super) source: &'w Spot<'a>,
    pub(super) destination: &'w Spot<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// What it was addressed to, if a Service.
    pub(super) via: Option<Via>,
    /// Who opened it, if the source is a node that sends on in its own name.
    pub(super) client: Option<IpAddr>,
}

impl<'w, 'a> Connection<'w, 'a> {
    /// One that is addressed to its destination itself, by its source itself.
    pub(crate) const fn direct(
        source: &'w Spot<'a>,
        destination: &'w Spot<'a>,
        protocol: Protocol,
        port: u16,
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            port,
            via: None,
            client: None,
        }
    }
}

/// A connection with all that stands between its ends.
pub(super) struct Path<'w, 'a> {
    pub(super) source: &'w Spot<'a>,
    /// See [`Flow::hop`].
    pub(super) hop: Option<&'w Spot<'a>>,
    /// See [`Flow::seen_as`].
    pub(super) seen_as: Option<&'w Spot<'a>>,
    pub(super) destination: &'w Spot<'a>,
    pub(super) protocol: Protocol,
    pub(super) via: Option<Via>,
}

/// The virtual side of a translated connection.
#[derive(Clone, Copy)]
pub(super) struct Via {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// How many near misses a denial names.
const NEAREST: usize = 5;

/// Judges both sides: the connection needs both.
pub(super) fn flow<'a>(world: &World<'a>, path: &Path<'_, 'a>) -> Flow {
    let &Path {
        source,
        hop,
        seen_as,
        ..
    } = path;
    let aim = hop.unwrap_or(path.destination);
    let leaving = Connection {
        source,
        destination: aim,
        protocol: path.protocol,
        port: aim.port,
        via: path.via.filter(|_| hop.is_none()),
        client: None,
    };
    let arriving = Connection {
        source: seen_as.unwrap_or(source),
        destination: path.destination,
        protocol: path.protocol,
        port: path.destination.port,
        via: path.via,
        client: seen_as.map(|_| source.place.address),
    };
    let egress = side(world, &leaving, Direction::Egress);
    let ingress = side(world, &arriving, Direction::Ingress);
    let passes = egress.outcome.passes() && ingress.outcome.passes();
    Flow {
        source: source.place.clone(),
        destination: path.destination.place.clone(),
        port: path.destination.port,
        hop: hop.map(|hop| Hop {
            place: hop.place.clone(),
            port: hop.port,
        }),
        seen_as: seen_as.map(|spot| spot.place.clone()),
        verdict: if passes {
            Verdict::Allowed
        } else {
            Verdict::Denied
        },
        egress,
        ingress,
    }
}

/// What the policies of one end say.
pub(crate) fn side<'a>(
    world: &World<'a>,
    connection: &Connection<'_, 'a>,
    direction: Direction,
) -> Side {
    let (subject, peer) = match direction {
        Direction::Egress => (connection.source, connection.destination),
        Direction::Ingress => (connection.destination, connection.source),
    };
    let mut answer = Side {
        direction,
        outcome: SideOutcome::NotSelectable,
        tiers: Vec::new(),
        isolated_by: Vec::new(),
        allowed_by: Vec::new(),
        nearest: Vec::new(),
    };
    let Some(pod) = subject.pod else {
        return answer;
    };
    let isolating: Vec<(&Policy, &[Rule])> = world
        .policies_of(pod)
        .filter_map(|policy| Some((policy, policy.rules(direction)?)))
        .collect();
    answer.isolated_by = isolating
        .iter()
        .map(|(policy, rules)| Isolation {
            policy: policy.name.clone(),
            rules: rules.len(),
        })
        .collect();
    let own_node = direction == Direction::Ingress
        && peer.place.kind == PlaceKind::Node
        && peer.place.node.as_deref() == Some(pod.node.as_str());
    if peer.pod.is_some_and(|other| other.name == pod.name) {
        answer.outcome = SideOutcome::Itself;
        return answer;
    }
    if own_node {
        answer.outcome = SideOutcome::OwnNode;
        return answer;
    }
    let end = End {
        world,
        connection,
        pod,
        peer,
    };
    let decided = end.tier(Tier::Admin, &mut answer)
        || end.network_policies(&isolating, &mut answer)
        || end.tier(Tier::Baseline, &mut answer);
    if !decided {
        answer.outcome = SideOutcome::NotIsolated;
    }
    answer.nearest.sort_by_key(|near| near.misses.len());
    answer.nearest.truncate(NEAREST);
    answer
}

/// A connection at the end that policies are asked about.
struct End<'w, 'a> {
    world: &'w World<'a>,
    connection: &'w Connection<'w, 'a>,
    pod: &'a Pod,
    peer: &'w Spot<'a>,
}

impl<'w, 'a> End<'w, 'a> {
    fn judged(&self, policy: &'a ObjectName) -> Judged<'w, 'w, 'a> {
        Judged {
            world: self.world,
            connection: self.connection,
            policy,
            peer: self.peer,
        }
    }

    /// Asks a tier of ClusterNetworkPolicies; whether it decides.
    fn tier(&self, tier: Tier, answer: &mut Side) -> bool {
        let mut missed = Vec::new();
        for policy in self.world.tier_of(tier, self.pod) {
            let judged = self.judged(&policy.name);
            for (index, rule) in policy.rules(answer.direction).iter().enumerate() {
                let Some((peer, port)) = judged.matches(&rule.matches) else {
                    if rule.action == Action::Accept {
                        missed.push(miss::nearest(&judged, index, &rule.matches));
                    }
                    continue;
                };
                answer.tiers.push(TierMatch {
                    tier,
                    action: rule.action,
                    name: rule.name.clone(),
                    rule: judged.found(index, peer, port),
                });
                match rule.action {
                    Action::Accept => answer.outcome = SideOutcome::Allowed,
                    Action::Deny => {
                        answer.outcome = SideOutcome::DeniedByRule;
                        // What would have accepted it before.
                        answer.nearest = missed;
                    }
                    Action::Pass => return false,
                }
                return true;
            }
        }
        false
    }

    /// Asks the NetworkPolicies that isolate the pod; they decide if there are any.
    fn network_policies(&self, isolating: &[(&'a Policy, &'a [Rule])], answer: &mut Side) -> bool {
        answer.outcome = SideOutcome::Denied;
        for &(policy, rules) in isolating {
            let judged = self.judged(&policy.name);
            for (index, rule) in rules.iter().enumerate() {
                if let Some((peer, port)) = judged.matches(rule) {
                    answer.outcome = SideOutcome::Allowed;
                    answer.allowed_by.push(judged.found(index, peer, port));
                } else {
                    answer.nearest.push(miss::nearest(&judged, index, rule));
                }
            }
        }
        if answer.outcome == SideOutcome::Allowed {
            answer.nearest.clear();
        }
        !isolating.is_empty()
    }
}

impl Judged<'_, '_, '_> {
    /// A rule of the policy that matches by this peer and port.
    fn found(&self, index: usize, peer: Option<&Peer>, port: Option<&PolicyPort>) -> RuleMatch {
        RuleMatch {
            policy: self.policy.clone(),
            index,
            peer: wording::peer(peer),
            port: wording::port(port),
        }
    }

    /// The peer and port (`None` for "every") by which a rule matches the connection.
    fn matches<'r>(&self, rule: &'r Rule) -> Option<(Option<&'r Peer>, Option<&'r PolicyPort>)> {
        let peer = if rule.peers.is_empty() {
            None
        } else {
            Some(rule.peers.iter().find(|peer| self.peer_matches(peer))?)
        };
        let port = if rule.ports.is_empty() {
            None
        } else {
            Some(rule.ports.iter().find(|port| self.port_matches(port))?)
        };
        Some((peer, port))
    }

    pub(super) fn peer_matches(&self, peer: &Peer) -> bool {
        self.world
            .peer_matches(peer, &self.policy.namespace, self.peer)
    }

    pub(super) fn port_matches(&self, port: &PolicyPort) -> bool {
        let Connection {
            protocol,
            port: number,
            destination,
            ..
        } = *self.connection;
        port.protocol == protocol
            && match &port.port {
                PortMatch::All => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&number),
                PortMatch::Named(name) => destination
                    .pod
                    .is_some_and(|pod| pod.named_port(name, protocol) == Some(number)),
            }
    }
}
