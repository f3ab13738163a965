//! Every address and port at which a Service port is met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_common::abi::{
    AFFINITY, DROP_EXTERNAL, DROP_INTERNAL, FrontendKey, NODE_PORT, SourceKey, WILDCARD,
};

use super::choice::Choice;
use super::ranges;
use crate::compile::{Backend, FrontendEntry};
use crate::model::{Service, ServicePort, Snapshot, TrafficPolicy, fingerprint, service_port_id};

/// By what a frontend has its address, strongest claim first: who may write a Service must not take an address away from one
/// that was given it by the cluster (as CVE-2020-8554 does by externalIPs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Claim {
    /// spec.clusterIPs.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// status.loadBalancer.ingress.
    LoadBalancer,
    /// spec.externalIPs.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    /// A node's address, and nodePort.
    NodePort,
}

impl Claim {
    /// The traffic policies for clients inside the cluster and outside. A cluster IP follows internalTrafficPolicy, whoever asks. At
    /// any other address, clients inside get what the cluster has, as if they had gone out and come in by the best node; those
    /// outside get what externalTrafficPolicy says.
    pub(super) const fn policies(self, service: &Service) -> (TrafficPolicy, TrafficPolicy) {
        match self {
            Self::ClusterIp => {
                let policy = service.internal_traffic_policy;
                (policy, policy)
            }
            Self::LoadBalancer | Self::ExternalIp | Self::NodePort => {
                (TrafficPolicy::Cluster, service.external_traffic_policy)
            }
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
            Self::NodePort => "NodePort",
        })
    }
}

/// What one Service is met at.
#[derive(Debug, Default)]
pub(super) struct Frontends {
    /// Of two claims of the Service itself the stronger one.
    pub(super) entries: BTreeMap<FrontendKey, (Claim, FrontendEntry)>,
    pub(super) sources: BTreeSet<SourceKey>,
}

/// Addresses of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// Where it has node ports.
    pub(super) node_ports: Vec<IpAddr>,
    /// Where its own packets come from.
    pub(super) primary: Vec<IpAddr>,
}

impl Home {
    /// A node's, as far as its object and the snapshot's own devices tell.
    pub(super) fn of(snapshot: &Snapshot, node: &str) -> Self {
        let object = snapshot.nodes.get(node);
        Self {
            node_ports: snapshot.node_port_addresses(node).into_iter().collect(),
            primary: object.map_or(Vec::new(), |object| object.primary.clone()),
        }
    }
}

impl Frontends {
    /// Adds what a Service port is met at in one family.
    pub(super) fn add(
        &mut self,
        service: &Service,
        port: &ServicePort,
        v4: bool,
        choice: &Choice,
        home: &Home,
    ) {
        let mut sets = Sets::new(service, port, choice);
        sets.admission = ranges::add(&mut self.sources, service, sets.id, v4, &home.primary);
        let virtual_addresses = [
            (Claim::ClusterIp, &service.cluster_ips),
            (Claim::LoadBalancer, &service.load_balancer_ips),
            (Claim::ExternalIp, &service.external_ips),
        ];
        for (claim, addresses) in virtual_addresses {
            for address in of_family(addresses, v4) {
                self.claim(claim, key(address, port, port.port), || sets.entry(claim));
            }
        }
        if let Some(number) = port.node_port {
            for address in of_family(&home.node_ports, v4) {
                let claim = Claim::NodePort;
                self.claim(claim, key(address, port, number), || sets.entry(claim));
            }
        }
    }

    /// Adds the entries for all ports of a Service's cluster IPs that no Service port claims. Other addresses have none: their
    /// other ports may be somebody else's, those of a node for instance.
    pub(super) fn add_wildcards(&mut self, service: &Service) {
        for address in &service.cluster_ips {
            let key = FrontendKey {
                address: address.to_canonical().into(),
                port: 0,
                protocol: 0,
                reserved: 0,
            };
            self.claim(Claim::ClusterIp, key, || wildcard(service));
        }
    }

    fn claim(&mut self, claim: Claim, key: FrontendKey, entry: impl FnOnce() -> FrontendEntry) {
        let held = self.entries.get(&key);
        if held.is_none_or(|(holder, _)| claim < *holder) {
            self.entries.insert(key, (claim, entry()));
        }
    }
}

fn of_family(addresses: &[IpAddr], v4: bool) -> impl Iterator<Item = IpAddr> {
    let addresses = addresses.iter().map(IpAddr::to_canonical);
    addresses.filter(move |address| address.is_ipv4() == v4)
}

fn key(address: IpAddr, port: &ServicePort, number: u16) -> FrontendKey {
    FrontendKey {
        address: address.into(),
        port: number,
        protocol: port.protocol.number(),
        reserved: 0,
    }
}

/// A Service port's endpoints in one family, shared by its frontends.
struct Sets<'s> {
    service: &'s Service,
    port: &'s ServicePort,
    id: u64,
    cluster: Arc<[Backend]>,
    local: Arc<[Backend]>,
    /// Flags of the load balancer's frontends.
    admission: u32,
}

impl<'s> Sets<'s> {
    fn new(service: &'s Service, port: &'s ServicePort, choice: &Choice) -> Self {
        let id = service_port_id(&service.name, &port.name, port.protocol);
        let backends = |places: &[(IpAddr, u16)]| {
            let backend = |&(address, port): &(IpAddr, u16)| Backend {
                address,
                port,
                fingerprint: fingerprint(id, address, port),
            };
            places.iter().map(backend).collect()
        };
        Self {
            service,
            port,
            id,
            cluster: backends(&choice.cluster),
            local: backends(&choice.local),
            admission: 0,
        }
    }

    fn entry(&self, claim: Claim) -> FrontendEntry {
        let (internal, external) = claim.policies(self.service);
        // Node ports and external addresses are open to all, as with kube-proxy.
        let admission = match claim {
            Claim::LoadBalancer => self.admission,
            Claim::ClusterIp | Claim::ExternalIp | Claim::NodePort => 0,
        };
        FrontendEntry {
            origin: self.service.name.clone(),
            port_name: self.port.name.clone(),
            service: self.id,
            flags: self.drops(internal, DROP_INTERNAL)
                | self.drops(external, DROP_EXTERNAL)
                | admission
                | self.service.affinity_seconds.map_or(0, |_| AFFINITY)
                | node_port(claim),
            affinity_seconds: self.service.affinity_seconds.unwrap_or(0),
            internal: self.set(internal),
            external: self.set(external),
        }
    }

    fn set(&self, policy: TrafficPolicy) -> Arc<[Backend]> {
        Arc::clone(match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        })
    }

    /// Without any endpoint in the cluster the answer is a rejection, as for every Service.
    fn drops(&self, policy: TrafficPolicy, flag: u32) -> u32 {
        match policy {
            TrafficPolicy::Local if !self.cluster.is_empty() => flag,
            TrafficPolicy::Local | TrafficPolicy::Cluster => 0,
        }
    }
}

/// A node port's address has other uses.
const fn node_port(claim: Claim) -> u32 {
    match claim {
        Claim::NodePort => NODE_PORT,
        Claim::ClusterIp | Claim::LoadBalancer | Claim::ExternalIp => 0,
    }
}

fn wildcard(service: &Service) -> FrontendEntry {
    FrontendEntry {
        origin: service.name.clone(),
        port_name: String::new(),
        service: 0,
        flags: WILDCARD,
        affinity_seconds: 0,
        internal: Arc::default(),
        external: Arc::default(),
    }
}
