//! Names for the numbers of events.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use weir_common::abi::EndpointKey;
use weir_common::logic::protocol;
use weir_common::reason::Reason;

use super::{DecidedBy, Decoded, Owner, Peer, Record};
use crate::compile::{EndpointEntry, PolicyTables, RowId, Tables, Verdict, judge};
use crate::model::{AddressOwners, Direction, ObjectName, Snapshot};

/// Names of what one version of the tables talks about, looked up when the first event of its time asks.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    snapshot: Snapshot,
    pods: AddressOwners,
    policies: Arc<PolicyTables>,
    names: OnceLock<Names>,
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

impl Directory {
    /// The directory of a snapshot, whose owners these are, and the tables compiled from it.
    #[must_use]
    pub fn new(snapshot: &Snapshot, pods: &AddressOwners, tables: &Tables) -> Self {
        Self {
            snapshot: snapshot.clone(),
            pods: pods.clone(),
            policies: tables.policies.clone(),
            names: OnceLock::new(),
        }
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
        let rule = self.policies.rules.get(&denial.unwrap_or(event.rule));
        let rule = rule.map(|origin| DecidedBy {
            tier: origin.tier,
            policy: origin.policy.clone(),
            index: origin.index,
        });
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
            rule,
            denied_by: if denied && denial.is_none() {
                self.isolating(event.endpoint, decoded.direction)
            } else {
                Vec::new()
            },
            length: event.length,
        }
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

    fn peer(&self, address: IpAddr, port: u16) -> Peer {
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
