//! Which endpoints of a Service port take new connections: the choice that kube-proxy's `CategorizeEndpoints` makes (Kubernetes
//! 1.36), so that a cluster may have both on its nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{Endpoint, EndpointSlice, Hints, ServicePort, Snapshot};

/// Where the choice is made.
#[derive(Clone, Copy)]
pub(super) struct Site<'s> {
    /// Name of the node.
    pub(super) node: &'s str,
    /// Its zone; empty if it has none.
    pub(super) zone: &'s str,
}

/// An endpoint as load balancing sees it. Fields are in the order of preference between two that share address and port:
/// a running pod beats the terminating one whose address it got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate<'s> {
    running: bool,
    ready: bool,
    serving: bool,
    local: bool,
    hints: Option<&'s Hints>,
}

impl<'s> Site<'s> {
    /// A node and the zone that its object says.
    pub(super) fn of(snapshot: &'s Snapshot, node: &'s str) -> Self {
        let object = snapshot.nodes.get(node);
        let zone = object.map_or("", |object| &object.zone);
        Self { node, zone }
    }
}

impl<'s> Candidate<'s> {
    fn new(endpoint: &'s Endpoint, site: Site<'_>) -> Self {
        Self {
            running: !endpoint.terminating,
            ready: endpoint.ready,
            serving: endpoint.serving,
            local: endpoint.node.as_deref() == Some(site.node),
            hints: endpoint.hints.as_deref(),
        }
    }

    /// Whether it keeps even flows that could go elsewhere.
    pub(super) fn serves(&self) -> bool {
        self.ready || self.serving
    }

    /// KEP-1669: the second choice when no endpoint is ready.
    fn last_resort(&self) -> bool {
        self.serving && !self.running
    }

    fn zones(self) -> &'s [String] {
        self.hints.map_or(&[], |hints| &hints.zones)
    }

    fn nodes(self) -> &'s [String] {
        self.hints.map_or(&[], |hints| &hints.nodes)
    }
}

/// The endpoints of one family, by address and port.
pub(super) type Candidates<'s> = BTreeMap<(IpAddr, u16), Candidate<'s>>;

/// Endpoints by family.
#[derive(Default)]
pub(super) struct Families<'s> {
    v4: Candidates<'s>,
    v6: Candidates<'s>,
}

impl<'s> Families<'s> {
    /// Every endpoint that some slice lists for a Service port. Slices and Service ports pair by name and protocol; slices may
    /// give a port different numbers (a named targetPort).
    pub(super) fn of(port: &ServicePort, slices: &[&'s EndpointSlice], site: Site<'_>) -> Self {
        let mut families = Self::default();
        for slice in slices {
            let numbers = slice.ports.iter().filter(|candidate| {
                candidate.name == port.name && candidate.protocol == port.protocol
            });
            for number in numbers {
                for endpoint in &slice.endpoints {
                    let address = endpoint.address.to_canonical();
                    if !may_be_endpoint(address) {
                        continue;
                    }
                    let candidate = Candidate::new(endpoint, site);
                    families
                        .of_mut(address)
                        .entry((address, number.port))
                        .and_modify(|known| *known = candidate.max(*known))
                        .or_insert(candidate);
                }
            }
        }
        families
    }

    /// Those of IPv4, or those of IPv6.
    pub(super) fn of_family(&self, v4: bool) -> &Candidates<'s> {
        if v4 { &self.v4 } else { &self.v6 }
    }

    fn of_mut(&mut self, address: IpAddr) -> &mut Candidates<'s> {
        match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

/// Whether an address may be an endpoint's. Those that the API forbids would lead into the node itself (CVE-2021-25737 and its kin).
#[must_use]
pub fn may_be_endpoint(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || link_local)
}

/// What a traffic policy stands for, each sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// For traffic policy Cluster: those near where the hints say so. Empty only if the cluster has none at all.
    pub(super) cluster: Vec<(IpAddr, u16)>,
    /// For traffic policy Local: all of the node's own, whatever the hints say.
    pub(super) local: Vec<(IpAddr, u16)>,
}

/// Chooses among the endpoints of one family. Each set falls back by itself from ready endpoints to terminating ones that still
/// serve.
pub(super) fn choose(candidates: &Candidates<'_>, site: Site<'_>) -> Choice {
    let near = Near::find(candidates, site);
    Choice {
        cluster: ready_first(candidates, |_| true, |candidate| near.has(candidate, site)),
        local: ready_first(candidates, |candidate| candidate.local, |_| true),
    }
}

/// The ready ones among those that are eligible and near; without them the last resorts, wherever those are.
fn ready_first(
    candidates: &Candidates<'_>,
    eligible: impl Fn(&Candidate<'_>) -> bool,
    near: impl Fn(&Candidate<'_>) -> bool,
) -> Vec<(IpAddr, u16)> {
    let pick = |wanted: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<(IpAddr, u16)> {
        let chosen = candidates
            .iter()
            .filter(|(_, candidate)| eligible(candidate) && wanted(candidate));
        chosen.map(|(place, _)| *place).collect()
    };
    let ready = pick(&|candidate| candidate.ready && near(candidate));
    if ready.is_empty() {
        pick(&|candidate| candidate.last_resort())
    } else {
        ready
    }
}

/// How far a client's connections go.
#[derive(Clone, Copy)]
enum Near {
    /// To every endpoint.
    Anywhere,
    /// To those meant for its zone.
    Zone,
    /// To those meant for its node.
    Node,
}

impl Near {
    /// Hints count only if every ready endpoint has them and one is meant for us: the control plane may be halfway through
    /// writing them. That a Service wants them (trafficDistribution) is seen by their being there.
    fn find<'s>(candidates: &Candidates<'s>, site: Site<'_>) -> Self {
        let holds = |names: fn(Candidate<'s>) -> &'s [String], ours: &str| {
            let ready = candidates.values().filter(|candidate| candidate.ready);
            let mut hints = ready.map(|candidate| names(*candidate));
            let all = hints.clone().all(|names| !names.is_empty());
            all && hints.any(|names| names.iter().any(|name| name == ours))
        };
        if holds(Candidate::nodes, site.node) {
            Self::Node
        } else if holds(Candidate::zones, site.zone) {
            Self::Zone
        } else {
            Self::Anywhere
        }
    }

    fn has(self, candidate: &Candidate<'_>, site: Site<'_>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Zone => candidate.zones().iter().any(|zone| zone == site.zone),
            Self::Node => candidate.nodes().iter().any(|node| node == site.node),
        }
    }
}

#[cfg(test)]
mod tests;
