//! What a node holds about the connections of an explanation, and what it has seen of them: where the objects say one thing and the
//! node does another, this is how it comes out.

mod answer;
mod packet;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use weir_common::abi::{
    BACKEND_ACTIVE, EndpointKey, Flow as Tracked, FlowKey, FrontendKey, Hook, ROW_OPEN,
    RULE_NOT_ISOLATED,
};

pub use answer::{Evidence, Held, HeldFrontend, HeldVerdict};
pub use packet::{DryRun, FirstPacket, Tried};

use super::lists::{FlowRow, flow_rows};
use crate::compile::Clients;
use crate::explain::{Explanation, Flow, Side, Translation};
use crate::flows::Record;
use crate::model::{Direction, ObjectName, Protocol, Snapshot, rule_id};
use crate::plan::MemoryMaps;

/// Drops that are told of one by one, the newest; all that are kept are counted.
const NEWEST: usize = 3;

/// The device that a packet seems to have come in by, where the real one is not known: only the node's own packets have none.
const SOME_DEVICE: u32 = 1;

/// Has the programs judge a packet, and leave no trace; `None` where they cannot.
pub(super) type Try<'n> = &'n dyn Fn(&FirstPacket) -> Option<DryRun>;

/// What a node has to say.
#[derive(Clone, Copy)]
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
    /// Its programs.
    pub(super) programs: Try<'n>,
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
        let drops = drops.filter(|it| it.verdict.is_refusal() && seen.has(it));
        let connections: Vec<_> = flow_rows(self.tracked)
            .into_iter()
            .filter(|row| row.protocol == protocol.number())
            .filter(|row| {
                let destination = (row.destination, row.destination_port);
                seen.sources.contains(&row.source) && seen.destinations.contains(&destination)
            })
            .collect();
        let of_side = |side: fn(&FlowRow) -> u64| connections.iter().map(side).sum();
        let from = packet::free_port(self.tracked);
        Evidence {
            node: self.snapshot.node_name.clone(),
            generation: self.generation,
            verdicts: flows
                .flat_map(|flow| self.verdicts(flow, protocol, from))
                .collect(),
            frontends: self.frontends(explanation, from),
            drops: drops.clone().count(),
            last_drops: drops.take(NEWEST).cloned().collect(),
            connections: connections.len(),
            packets: [of_side(|row| row.packets[0]), of_side(|row| row.packets[1])],
        }
    }

    /// Both ends of a connection, as far as they are pods of this node that policies judge. Packets are tried from port `from`.
    fn verdicts(
        &self,
        flow: &Flow,
        protocol: Protocol,
        from: Option<u16>,
    ) -> impl Iterator<Item = HeldVerdict> {
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
                tried: from.and_then(|from| {
                    let (pod, peer) = (place.address, peer.address);
                    match side.direction {
                        Direction::Egress => self.leave(pod, from, (peer, port), protocol),
                        Direction::Ingress => self.enter((peer, from), (pod, port), protocol),
                    }
                }),
            })
        })
    }

    /// Has a first packet leave a pod of this node.
    fn leave(
        &self,
        pod: IpAddr,
        from: u16,
        to: (IpAddr, u16),
        protocol: Protocol,
    ) -> Option<Tried> {
        let ifindex = self.device(pod)?;
        self.attempt(&FirstPacket {
            hook: Hook::FromPod,
            ifindex,
            ingress_ifindex: ifindex,
            frame: packet::frame((pod, from).into(), to.into(), protocol)?,
        })
    }

    /// Has a first packet, which comes from somewhere else, enter a pod of this node.
    fn enter(&self, from: (IpAddr, u16), to: (IpAddr, u16), protocol: Protocol) -> Option<Tried> {
        let uplink = self.snapshot.devices.nets.keys().next().copied();
        let came_by = self.device(from.0).or(uplink);
        self.attempt(&FirstPacket {
            hook: Hook::ToPod,
            ifindex: self.device(to.0)?,
            ingress_ifindex: came_by.unwrap_or(SOME_DEVICE),
            frame: packet::frame(from.into(), to.into(), protocol)?,
        })
    }

    fn attempt(&self, packet: &FirstPacket) -> Option<Tried> {
        (self.programs)(packet).as_ref().map(Tried::of)
    }

    /// The device that leads to a pod of this node.
    fn device(&self, address: IpAddr) -> Option<u32> {
        let device = self.snapshot.devices.devices.get(&address);
        device.map(|device| device.ifindex)
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
    fn frontends(&self, explanation: &Explanation, from: Option<u16>) -> Vec<HeldFrontend> {
        let translations = explanation.translations.iter();
        let own = translations.filter(|it| it.node == self.snapshot.node_name);
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
                tried: from.and_then(|from| self.translated(explanation, translation, from)),
            }
        })
        .collect()
    }

    /// Has a first packet to a Service leave one of the source's pods, if one is on this node.
    fn translated(
        &self,
        explanation: &Explanation,
        translation: &Translation,
        from: u16,
    ) -> Option<Tried> {
        if translation.clients == Some(Clients::Outside) {
            return None;
        }
        let sources = explanation.flows.iter().map(|flow| &flow.source);
        let pod = sources
            .filter(|place| place.address.is_ipv4() == translation.address.is_ipv4())
            .find(|place| place.node.as_ref() == Some(&self.snapshot.node_name))?;
        let to = (translation.address, translation.port);
        self.leave(pod.address, from, to, translation.protocol)
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
