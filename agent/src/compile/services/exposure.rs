//! What single Services are met at, on any node: the same entries as in that node's tables, without compiling all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use weir_common::abi::{Frontend, FrontendKey, NODE_OUTSIDE, SOURCE_RANGES, WILDCARD};
use weir_common::logic::refusal;
use weir_common::reason::Reason;

use super::choice::Site;
use super::frontends::{Claim, Home};
use super::part::Part;
use super::ranges;
use crate::compile::{Backend, FrontendEntry};
use crate::model::{
    EndpointSlice, ObjectName, Protocol, Service, ServicePort, Snapshot, TrafficPolicy,
};

/// Who opens a connection, as frontends of a node tell clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A process of the node itself.
    Node,
    /// A pod of the node.
    Pod(IpAddr),
    /// Who comes in by one of the node's devices: a client outside the cluster, but also a pod or node that talks to a port of this
    /// node.
    Outside(IpAddr),
}

/// The sides of a node on which clients may be, by which a frontend has a set of backends each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    /// Pods of the node, and the node itself.
    Inside,
    /// Those who come in by one of its devices.
    Outside,
}

impl Client {
    /// The side that it is on.
    #[must_use]
    pub const fn side(self) -> Clients {
        match self {
            Self::Node | Self::Pod(_) => Clients::Inside,
            Self::Outside(_) => Clients::Outside,
        }
    }
}

/// A frontend of a Service on one node.
#[derive(Clone, Debug)]
pub struct Exposed<'s> {
    /// The Service.
    pub service: &'s Service,
    /// Its port; `None` if it has none there: the address is its cluster IP.
    pub port: Option<&'s ServicePort>,
    /// Address.
    pub address: IpAddr,
    /// Port at the address; 0 for all those of a cluster IP that no Service port has.
    pub number: u16,
    /// By what it has the address.
    pub claim: Claim,
    /// What the tables hold.
    pub entry: FrontendEntry,
    /// Ranges that clients must come from; empty if nobody asks where they do.
    pub ranges: Vec<IpNetwork>,
}

impl<'s> Exposed<'s> {
    fn new(service: &'s Service, key: FrontendKey, claim: Claim, entry: FrontendEntry) -> Self {
        let address = IpAddr::from(key.address);
        let port = service
            .ports
            .iter()
            .find(|port| port.name == entry.port_name && port.protocol.number() == key.protocol);
        let ranges = if entry.flags & SOURCE_RANGES == 0 {
            Vec::new()
        } else {
            ranges::of_family(service, address.is_ipv4())
        };
        Self {
            service,
            port,
            address,
            number: key.port,
            claim,
            entry,
            ranges,
        }
    }

    /// The traffic policy for clients on a side.
    #[must_use]
    pub const fn policy(&self, clients: Clients) -> TrafficPolicy {
        let (internal, external) = self.claim.policies(self.service);
        match clients {
            Clients::Inside => internal,
            Clients::Outside => external,
        }
    }

    /// Whether a client is let in.
    ///
    /// # Errors
    /// `SourceRange` if not.
    pub fn admit(&self, client: Client) -> Result<(), Reason> {
        let admitted = match client {
            Client::Node => self.entry.flags & NODE_OUTSIDE == 0,
            Client::Pod(address) | Client::Outside(address) => {
                self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(address))
            }
        };
        admitted.then_some(()).ok_or(Reason::SourceRange)
    }

    /// The backends among which one is chosen for clients on a side, if they are let in.
    ///
    /// # Errors
    /// Why they get none.
    pub fn backends(&self, clients: Clients) -> Result<&[Backend], Reason> {
        let FrontendEntry {
            flags,
            internal,
            external,
            ..
        } = &self.entry;
        let counted = Frontend {
            flags: *flags,
            internal_count: internal.len() as u32,
            external_count: external.len() as u32,
            ..Frontend::default()
        };
        let (outside, set) = match clients {
            Clients::Inside => (false, internal),
            Clients::Outside => (true, external),
        };
        match refusal(&counted, outside) {
            Some(reason) => Err(reason),
            None => Ok(set),
        }
    }
}

/// Where the Services of a snapshot are met.
pub struct Exposure<'s> {
    snapshot: &'s Snapshot,
    slices: BTreeMap<&'s ObjectName, Vec<&'s EndpointSlice>>,
    /// Services that name an address; whether they have it, their parts tell.
    by_address: BTreeMap<IpAddr, BTreeSet<&'s ObjectName>>,
    by_node_port: BTreeMap<u16, BTreeSet<&'s ObjectName>>,
}

impl<'s> Exposure<'s> {
    /// Takes in the addresses of all Services.
    #[must_use]
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in snapshot.slices.values() {
            slices.entry(&slice.service).or_default().push(&**slice);
        }
        let mut by_address: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let mut by_node_port: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for service in snapshot.services.values() {
            let named = [
                &service.cluster_ips,
                &service.load_balancer_ips,
                &service.external_ips,
            ];
            for address in named.into_iter().flatten() {
                let services = by_address.entry(address.to_canonical()).or_default();
                services.insert(&service.name);
            }
            for number in service.ports.iter().filter_map(|port| port.node_port) {
                let services = by_node_port.entry(number).or_default();
                services.insert(&service.name);
            }
        }
        Self {
            snapshot,
            slices,
            by_address,
            by_node_port,
        }
    }

    /// What `node` finds at an address and port: the Service port there, else that all ports of the address are a Service's.
    #[must_use]
    pub fn find(
        &self,
        node: &str,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<Exposed<'s>> {
        let home = Home::of(self.snapshot, node);
        let exact = FrontendKey {
            address: address.into(),
            port,
            protocol: protocol.number(),
            reserved: 0,
        };
        let wildcard = FrontendKey {
            port: 0,
            protocol: 0,
            ..exact
        };
        [exact, wildcard]
            .into_iter()
            .find_map(|key| self.holder(node, &home, key))
    }

    /// All that a Service is met at on `node`, or would be, had not another Service the stronger claim: then with that one.
    #[must_use]
    pub fn of(
        &self,
        node: &str,
        service: &'s Service,
    ) -> Vec<(Exposed<'s>, Option<&'s ObjectName>)> {
        let home = Home::of(self.snapshot, node);
        let part = self.part(node, &home, service);
        let ports = part.frontends.into_iter();
        let ports = ports.filter(|(_, (_, entry))| entry.flags & WILDCARD == 0);
        ports
            .map(|(key, (claim, entry))| {
                let other = if self.candidates(&home, key).len() > 1 {
                    let holder = self.holder(node, &home, key);
                    let name = holder.map(|holder| &holder.service.name);
                    name.filter(|name| **name != service.name)
                } else {
                    None
                };
                (Exposed::new(service, key, claim, entry), other)
            })
            .collect()
    }

    /// The slices of a Service.
    #[must_use]
    pub fn slices(&self, service: &ObjectName) -> &[&'s EndpointSlice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// Services that name an address as their cluster IP, load balancer's or external address.
    pub fn naming(&self, address: IpAddr) -> impl Iterator<Item = &'s Service> {
        self.named(self.by_address.get(&address.to_canonical()))
    }

    /// Services with a node port of this number.
    pub fn with_node_port(&self, number: u16) -> impl Iterator<Item = &'s Service> {
        self.named(self.by_node_port.get(&number))
    }

    fn named(
        &self,
        names: Option<&BTreeSet<&'s ObjectName>>,
    ) -> impl Iterator<Item = &'s Service> + use<'s> {
        let services = names
            .into_iter()
            .flatten()
            .filter_map(|name| self.snapshot.services.get(*name))
            .map(AsRef::as_ref);
        services.collect::<Vec<_>>().into_iter()
    }

    /// Who has a frontend: of several the strongest claim, and of those of one kind the Service with the smallest name.
    fn holder(&self, node: &str, home: &Home, key: FrontendKey) -> Option<Exposed<'s>> {
        let candidates = self.candidates(home, key).into_values();
        let claims = candidates.filter_map(|service| {
            let mut part = self.part(node, home, service);
            let (claim, entry) = part.frontends.remove(&key)?;
            Some(Exposed::new(service, key, claim, entry))
        });
        claims.min_by_key(|exposed| (exposed.claim, &exposed.service.name))
    }

    /// Those that may claim a frontend.
    fn candidates(&self, home: &Home, key: FrontendKey) -> BTreeMap<&'s ObjectName, &'s Service> {
        let address = IpAddr::from(key.address);
        let has_node_ports = home.node_ports.contains(&address);
        let by_port = has_node_ports.then(|| self.with_node_port(key.port));
        let candidates = self.naming(address).chain(by_port.into_iter().flatten());
        candidates.map(|service| (&service.name, service)).collect()
    }

    fn part(&self, node: &str, home: &Home, service: &Service) -> Part {
        let site = Site::of(self.snapshot, node);
        Part::new(service, self.slices(&service.name), site, home)
    }
}

#[cfg(test)]
mod tests;
