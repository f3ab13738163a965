//! What a node holds about the connections of an explanation, and what it has seen of them: where the objects say one thing and the
//! node does another, this is how it comes out.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weir_common::abi::{
    BACKEND_ACTIVE, EndpointKey, Flow as Tracked, FlowKey, FrontendKey, ROW_OPEN, RULE_NOT_ISOLATED,
};

use super::lists::{FlowRow, flow_rows};
use crate::compile::Clients;
use crate::explain::{Explanation, Flow, Side, Translation};
use crate::flows::{Outcome, Record};
use crate::model::{Direction, ObjectName, Protocol, Snapshot, rule_id};
use crate::plan::MemoryMaps;

/// Drops that are told of one by one, the newest; all that are kept are counted.
const NEWEST: usize = 3;

/// Answer of `/v1/evidence`: of one node, about its own pods and its own translation of Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The node.
    pub node: String,
    /// Generation of the maps that its programs read.
    pub generation: u64,
    /// What the maps say about each pod of the node that policies judge.
    pub verdicts: Vec<HeldVerdict>,
    /// Where the maps lead what is addressed to a Service.
    pub frontends: Vec<HeldFrontend>,
    /// How many records are kept of packets of these connections that were dropped or answered with a refusal.
    pub drops: usize,
    /// The last of them, newest first.
    pub last_drops: Vec<Record>,
    /// Connections that are tracked.
    pub connections: usize,
    /// Their packets, from who opened them and back.
    pub packets: [u64; 2],
}

impl Evidence {
    /// Whether the maps say what the objects say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let verdicts = self.verdicts.iter().all(HeldVerdict::agrees);
        verdicts && self.frontends.iter().all(HeldFrontend::agrees)
    }
}

/// What the maps say about a new connection at one of its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVerdict {
    /// The pod that is judged.
    pub pod: ObjectName,
    /// Seen from the pod.
    pub direction: Direction,
    /// The other end.
    pub peer: IpAddr,
    /// Port that is connected to.
    pub port: u16,
    /// Whether the objects let it pass.
    pub intended: bool,
    /// What the maps say.
    pub held: Held,
}

impl HeldVerdict {
    /// Whether the maps say what the objects say.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        match self.held {
            Held::Unknown => false,
            Held::Open | Held::Allowed(_) => self.intended,
            Held::Denied => !self.intended,
        }
    }
}

/// A verdict of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "by", rename_all = "kebab-case")]
pub enum Held {
    /// They do not have the pod: its traffic is not judged.
    Unknown,
    /// No policy decides.
    Open,
    /// A rule allows it: its policy and its position there; `None` for a rule that the objects do not have.
    Allowed(Option<(ObjectName, usize)>),
    /// It is denied.
    Denied,
}

/// Where the maps lead a connection to an address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldFrontend {
    /// The Service.
    pub service: ObjectName,
    /// Its address and port.
    pub frontend: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Backends that follow from the objects.
    pub intended: BTreeSet<SocketAddr>,
    /// Those that the maps have for new connections; `None` where they do not have the frontend.
    pub held: Option<BTreeSet<SocketAddr>>,
}

impl HeldFrontend {
    /// Whether the maps say what the objects say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        match &self.held {
            Some(held) => *held == self.intended,
            None => self.intended.is_empty(),
        }
    }
}

/// What a node has to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'n> {
    /// Its objects.
    pub(super) snapshot: &'n Snapshot,
    /// What its programs read.
    pub(super) maps: &'n MemoryMaps,
    /// Generation of these.
    pub(super) generation: u64,
    /// The flow records that it keeps, oldest first.
    pub(super) records: &'n [Record],
    /// Connections that it tracks.
    pub(super) tracked: &'n [(FlowKey, Tracked)],
}

impl Node<'_> {
    /// What this node knows of the connections of an explanation, whose source has these addresses.
    pub(super) fn evidence(
        &self,
        explanation: &Explanation,
        sources: BTreeSet<IpAddr>,
    ) -> Evidence {
        let protocol = explanation.protocol;
        let flows = explanation.flows.iter();
        let seen = Seen::of(explanation, sources);
        let drops = self.records.iter().rev();
        let drops = drops.filter(|it| it.verdict != Outcome::Forwarded && seen.has(it));
        let connections: Vec<_> = flow_rows(self.tracked)
            .into_iter()
            .filter(|row| row.protocol == protocol.number())
            .filter(|row| {
                let destination = (row.destination, row.destination_port);
                seen.sources.contains(&row.source) && seen.destinations.contains(&destination)
            })
            .collect();
        let of_side = |side: fn(&FlowRow) -> u64| connections.iter().map(side).sum();
        Evidence {
            node: self.snapshot.node_name.clone(),
            generation: self.generation,
            verdicts: flows
                .flat_map(|flow| self.verdicts(flow, protocol))
                .collect(),
            frontends: self.frontends(&explanation.translations),
            drops: drops.clone().count(),
            last_drops: drops.take(NEWEST).cloned().collect(),
            connections: connections.len(),
            packets: [of_side(|row| row.packets[0]), of_side(|row| row.packets[1])],
        }
    }

    /// Both ends of a connection, as far as they are pods of this node that policies judge.
    fn verdicts(&self, flow: &Flow, protocol: Protocol) -> impl Iterator<Item = HeldVerdict> {
        let (egress_peer, egress_port) = flow.egress_peer();
        let egress = (&flow.source, &flow.egress, egress_peer, egress_port);
        let ingress_peer = flow.ingress_peer();
        let ingress = (&flow.destination, &flow.ingress, ingress_peer, flow.port);
        let ends = [egress, ingress].into_iter();
        let judged = ends.filter(|(place, side, ..)| {
            place.node.as_ref() == Some(&self.snapshot.node_name) && !side.outcome.is_exempt()
        });
        judged.filter_map(move |(place, side, peer, port)| {
            Some(HeldVerdict {
                pod: place.pod.clone()?,
                direction: side.direction,
                peer: peer.address,
                port,
                intended: side.outcome.passes(),
                held: self.held(place.address, side, peer.address, protocol, port),
            })
        })
    }

    fn held(&self, pod: IpAddr, side: &Side, peer: IpAddr, protocol: Protocol, port: u16) -> Held {
        let Some(rows) = self.maps.rows(&EndpointKey::address(pod.into())) else {
            return Held::Unknown;
        };
        let row = match side.direction {
            Direction::Ingress => rows.ingress,
            Direction::Egress => rows.egress,
        };
        if row == ROW_OPEN {
            return Held::Open;
        }
        match self.maps.allowing_rule(row, peer, protocol.number(), port) {
            None => Held::Denied,
            Some(RULE_NOT_ISOLATED) => Held::Open,
            Some(id) => Held::Allowed(self.rule(id, side)),
        }
    }

    /// The rule with an id, of those that the objects have for this side.
    fn rule(&self, id: u32, side: &Side) -> Option<(ObjectName, usize)> {
        let tiers = side.tiers.iter().map(|tier| &tier.rule);
        let mut rules = side.allowed_by.iter().chain(tiers);
        let rule = rules.find(|rule| {
            let policy = self.snapshot.policies.get(&rule.policy);
            let uid = policy.map(|policy| &policy.uid).or_else(|| {
                let policy = self.snapshot.cluster_policies.get(&rule.policy.name);
                policy.map(|policy| &policy.uid)
            });
            let id_of = |uid: &String| rule_id(&rule.policy, uid, side.direction, rule.index, 0);
            uid.map(id_of) == Some(id)
        })?;
        Some((rule.policy.clone(), rule.index))
    }

    /// What Services' frontends lead to, of those that this node translates.
    fn frontends(&self, translations: &[Translation]) -> Vec<HeldFrontend> {
        let own = translations
            .iter()
            .filter(|translation| translation.node == self.snapshot.node_name);
        own.map(|translation| {
            let endpoints = translation.endpoints.iter();
            let usable = endpoints.filter(|endpoint| endpoint.excluded.is_none());
            HeldFrontend {
                service: translation.service.clone(),
                frontend: SocketAddr::new(translation.address, translation.port),
                protocol: translation.protocol,
                intended: usable
                    .filter_map(|it| Some(SocketAddr::new(it.address, it.port?)))
                    .collect(),
                held: self.backends(translation),
            }
        })
        .collect()
    }

    /// Backends that new connections get.
    fn backends(&self, translation: &Translation) -> Option<BTreeSet<SocketAddr>> {
        let frontend = self.maps.frontend(&FrontendKey {
            address: translation.address.into(),
            port: translation.port,
            protocol: translation.protocol.number(),
            reserved: 0,
        })?;
        let (base, count) = match translation.clients {
            Some(Clients::Outside) => (frontend.external_base, frontend.external_count),
            Some(Clients::Inside) | None => (frontend.internal_base, frontend.internal_count),
        };
        let slots = self.maps.slots(base, count).unwrap_or_default();
        let active = slots.into_iter().filter(|slot| {
            let state = self.maps.backend(slot.backend);
            state.fingerprint == slot.fingerprint && state.state == BACKEND_ACTIVE
        });
        Some(
            active
                .map(|slot| SocketAddr::new(slot.address.into(), slot.port))
                .collect(),
        )
    }
}

/// How packets of an explanation's connections look, wherever they are seen.
struct Seen {
    protocol: String,
    sources: BTreeSet<IpAddr>,
    destinations: BTreeSet<(IpAddr, u16)>,
}

impl Seen {
    fn of(explanation: &Explanation, sources: BTreeSet<IpAddr>) -> Self {
        let mut seen = Self {
            protocol: explanation.protocol.to_string(),
            sources,
            destinations: BTreeSet::new(),
        };
        for flow in &explanation.flows {
            let (hop, port) = flow.egress_peer();
            seen.sources.insert(flow.ingress_peer().address);
            seen.destinations
                .insert((flow.destination.address, flow.port));
            seen.destinations.insert((hop.address, port));
        }
        let translations = explanation.translations.iter();
        seen.destinations
            .extend(translations.map(|it| (it.address, it.port)));
        seen
    }

    fn has(&self, record: &Record) -> bool {
        let destination = (record.destination.address, record.destination.port);
        record.protocol == self.protocol
            && self.sources.contains(&record.source.address)
            && self.destinations.contains(&destination)
    }
}
