//! Names for the numbers of events.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use weir_common::abi::{EndpointKey, Flow, FlowKey};
use weir_common::logic::{is_closing, protocol};
use weir_common::reason::Reason;

use super::decode::protocol_or_number;
use super::ends::{Ends, Place};
use super::{DecidedBy, Decoded, Ended, Ending, Outcome, Owner, Peer, Record, Sent, TcpFlag};
use crate::compile::{EndpointEntry, PolicyTables, RowId, Tables, Verdict, judge};
use crate::model::{AddressOwners, Direction, ObjectName, Snapshot, service_port_id};

/// Names of what one version of the tables talks about, looked up when the first event of its time asks.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    snapshot: Snapshot,
    pods: AddressOwners,
    policies: Arc<PolicyTables>,
    names: OnceLock<Names>,
    service_ports: OnceLock<FxHashMap<u64, ObjectName>>,
}

#[derive(Clone, Debug)]
struct Names {
    /// Nodes and Services by their addresses.
    others: FxHashMap<IpAddr, Owner>,
    /// NetworkPolicies that isolate each local pod, by endpoint id: for ingress and for egress.
    isolating: FxHashMap<u64, [Vec<ObjectName>; 2]>,
}

impl Names {
    fn new(snapshot: &Snapshot, tables: &PolicyTables) -> Self {
        let mut others = FxHashMap::default();
        for node in snapshot.nodes.values() {
            for address in &node.addresses {
                others.insert(*address, Owner::Node(node.name.clone()));
            }
        }
        for service in snapshot.services.values() {
            let owner = || Owner::Service(service.name.clone());
            for address in &service.cluster_ips {
                others.insert(*address, owner());
            }
            // These may be others', too: a node's, for instance.
            for address in service
                .load_balancer_ips
                .iter()
                .chain(&service.external_ips)
            {
                others.entry(*address).or_insert_with(owner);
            }
        }
        // A node has more addresses than it tells: those that its pods know as their gateway, for one, from which probes come.
        for address in &snapshot.devices.addresses {
            let owner = || Owner::Node(snapshot.node_name.clone());
            others.entry(*address).or_insert_with(owner);
        }
        let policies = |row: &RowId| {
            let row = tables.rows.get(row);
            row.map(|row| row.policies.to_vec()).unwrap_or_default()
        };
        let entry = |endpoint: &EndpointEntry| {
            let isolating = [policies(&endpoint.ingress), policies(&endpoint.egress)];
            (endpoint.id, isolating)
        };
        Self {
            others,
            isolating: tables.endpoints.values().map(entry).collect(),
        }
    }
}

/// A moment on the clock of the flow table and on everybody's.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    /// The flow table's.
    pub now: u32,
    /// Its ticks in a second.
    pub rate: u32,
    /// Everybody's.
    pub time: Timestamp,
}

impl Ticks {
    /// When it was `tick`.
    fn time_of(self, tick: u32) -> Timestamp {
        let age = self.now.wrapping_sub(tick);
        // A packet may have come after `now` was read.
        let age = if age > u32::MAX - self.rate { 0 } else { age };
        let age = Duration::from_secs(age.into()) / self.rate.max(1);
        self.time.checked_sub(age).unwrap_or(self.time)
    }
}

impl Directory {
    /// The directory of a snapshot, whose owners these are, and the tables compiled from it.
    #[must_use]
    pub fn new(snapshot: &Snapshot, pods: &AddressOwners, tables: &Tables) -> Self {
        Self {
            snapshot: snapshot.clone(),
            pods: pods.clone(),
            policies: tables.policies.clone(),
            names: OnceLock::new(),
            service_ports: OnceLock::new(),
        }
    }

    /// The node that this is seen from.
    pub(super) fn node(&self) -> &str {
        &self.snapshot.node_name
    }

    /// Whether a peer is a pod of another node, or that node itself.
    pub(super) fn is_of_other_node(&self, peer: &Peer) -> bool {
        let node = match &peer.owner {
            Some(Owner::Pod(pod)) => self.snapshot.pods.get(pod).map(|pod| &pod.node),
            Some(Owner::Node(node)) => Some(node),
            Some(Owner::Service(_)) | None => None,
        };
        node.is_some_and(|node| *node != self.snapshot.node_name)
    }

    /// The Service of the port with an id that programs know.
    pub(super) fn service_port(&self, id: u64) -> Option<&ObjectName> {
        let services = self.service_ports.get_or_init(|| {
            let services = self.snapshot.services.values();
            let ports = services.flat_map(|service| {
                let ports = service.ports.iter();
                ports.map(|port| {
                    let id = service_port_id(&service.name, &port.name, port.protocol);
                    (id, service.name.clone())
                })
            });
            ports.collect()
        });
        services.get(&id)
    }

    fn names(&self) -> &Names {
        self.names
            .get_or_init(|| Names::new(&self.snapshot, &self.policies))
    }

    /// The record of an event that was made `age` before `now`.
    #[must_use]
    pub fn record(&self, decoded: &Decoded, now: Timestamp, age: Duration) -> Record {
        let event = &decoded.event;
        let denied = decoded.reason == Reason::PolicyDenied;
        let denial = if denied { self.denial(decoded) } else { None };
        Record {
            time: now.checked_sub(age).unwrap_or(now),
            node: self.snapshot.node_name.clone(),
            verdict: decoded.outcome,
            reason: decoded.reason.name().to_owned(),
            direction: decoded.direction,
            protocol: decoded.protocol(),
            source: self.peer(event.source.into(), event.source_port),
            destination: self.peer(event.destination.into(), event.destination_port),
            backend: decoded
                .backend
                .map(|(address, port)| self.peer(address, port)),
            rule: self.rule(denial.unwrap_or(event.rule)),
            denied_by: if denied && denial.is_none() {
                self.isolating(event.endpoint, decoded.direction)
            } else {
                Vec::new()
            },
            length: event.length,
            ended: None,
        }
    }

    /// The record of a flow that was found over: of its backend-side entry.
    #[must_use]
    pub fn ended(&self, key: &FlowKey, flow: &Flow, ticks: Ticks) -> Record {
        let ends = Ends::of(key, flow);
        let [own, other] = [ends.own, ends.other];
        let sent = |side: usize| Sent {
            packets: flow.packets[side],
            bytes: flow.bytes[side],
            tcp_flags: TcpFlag::of(flow.tcp_flags[side]),
        };
        let rule = |side: usize| self.rule(flow.ends[side].rule);
        let [egress_rule, ingress_rule] = [rule(own), rule(other)];
        let is_opener_here = flow.ends[own].role != 0;
        let peer = |(address, port): Place| self.peer(address.into(), port);
        let backend = peer(ends.backend);
        let (destination, backend) = match ends.frontend {
            None => (backend, None),
            Some(frontend) => (peer(frontend), Some(backend)),
        };
        Record {
            time: ticks.time,
            node: self.snapshot.node_name.clone(),
            verdict: Outcome::Ended,
            reason: ending(key, flow).name().to_owned(),
            direction: if is_opener_here {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            protocol: protocol_or_number(key.protocol),
            source: peer(ends.source),
            destination,
            backend,
            rule: if is_opener_here {
                egress_rule.clone()
            } else {
                ingress_rule.clone()
            },
            denied_by: Vec::new(),
            length: 0,
            ended: Some(Ended {
                began: ticks.time_of(flow.created),
                last_packet: ticks.time_of(flow.last_seen),
                sent: sent(own),
                received: sent(other),
                egress_rule,
                ingress_rule,
            }),
        }
    }

    /// The rule with a number that programs know, if it is one of a policy.
    fn rule(&self, id: u32) -> Option<DecidedBy> {
        let origin = self.policies.rules.get(&id)?;
        Some(DecidedBy {
            tier: origin.tier,
            policy: origin.policy.clone(),
            index: origin.index,
        })
    }

    /// The rule that denied a packet, if it was one: the kernel knows only that none allowed it.
    fn denial(&self, decoded: &Decoded) -> Option<u32> {
        let event = &decoded.event;
        let source: IpAddr = event.source.into();
        let (destination, port) = decoded
            .backend
            .unwrap_or((event.destination.into(), event.destination_port));
        let (own, peer) = match decoded.direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        let entries = &self.policies.endpoints;
        // A pod that speaks from another of its addresses is known by its device.
        let keys = [
            EndpointKey::address(own.into()),
            EndpointKey::device(event.ifindex),
        ];
        let mut found = keys.iter().filter_map(|key| entries.get(key));
        let entry = found.find(|entry| entry.id == event.endpoint)?;
        let port = match event.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => port,
            _ => 0,
        };
        let (tables, direction) = (&self.policies, decoded.direction);
        match judge(tables, entry, direction, peer, event.protocol, port) {
            Verdict::Denied(rule) => rule,
            Verdict::Open | Verdict::Allowed(_) => None,
        }
    }

    fn isolating(&self, endpoint: u64, direction: Direction) -> Vec<ObjectName> {
        let side = match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        };
        self.names()
            .isolating
            .get(&endpoint)
            .map(|policies| policies[side].clone())
            .unwrap_or_default()
    }

    pub(super) fn peer(&self, address: IpAddr, port: u16) -> Peer {
        let pod = self.pods.get(&address);
        let owner = pod.map(|pod| Owner::Pod(pod.name.clone()));
        Peer {
            address,
            port,
            owner: owner.or_else(|| self.names().others.get(&address).cloned()),
            workload: pod.and_then(|pod| pod.workload()),
        }
    }
}

/// How a flow that is over has ended.
const fn ending(key: &FlowKey, flow: &Flow) -> Ending {
    let [low, high] = flow.tcp_flags;
    if key.protocol != protocol::TCP || !is_closing(low, high) {
        Ending::TimedOut
    } else if (low | high) & TcpFlag::Rst as u8 != 0 {
        Ending::Reset
    } else {
        Ending::Closed
    }
}
