//! Which pod is behind each address.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use smallvec::SmallVec;

use super::{Attachment, ObjectName, Pod, Sandbox, Snapshot};

/// The pod behind each pod-network address, IPv4 never in its mapped form. Host-network and ended pods own none; of two live
/// pods with one address (one that the kubelet has lost, beside its successor) the one of greater [`Pod::precedence`] owns it.
/// The addresses of a sandbox are its pod's, whoever else shows them, and nobody's while the API has not told of that pod.
///
/// Following a snapshot costs what differs from the one before.
#[derive(Clone, Debug, Default)]
pub struct AddressOwners {
    all: OrdMap<IpAddr, Arc<Pod>>,
    local: OrdMap<IpAddr, Arc<Pod>>,
    /// The live pods that show an address.
    claims: OrdMap<IpAddr, SmallVec<[Arc<Pod>; 1]>>,
    /// Addresses that a pod shows which does not own them.
    contested: BTreeSet<IpAddr>,
    pods: OrdMap<ObjectName, Arc<Pod>>,
    sandboxes: Sandboxes,
}

/// Sandboxes by what they are asked for.
#[derive(Clone, Debug, Default)]
struct Sandboxes {
    all: OrdMap<Attachment, Arc<Sandbox>>,
    at: BTreeMap<IpAddr, Vec<Arc<Sandbox>>>,
    of: BTreeMap<ObjectName, Vec<Arc<Sandbox>>>,
}

impl Sandboxes {
    fn new(all: &OrdMap<Attachment, Arc<Sandbox>>) -> Self {
        let mut sandboxes = Self {
            all: all.clone(),
            ..Self::default()
        };
        for sandbox in all.values() {
            let of = sandboxes.of.entry(sandbox.pod.clone()).or_default();
            of.push(Arc::clone(sandbox));
            for address in &sandbox.addresses {
                let at = sandboxes.at.entry(*address).or_default();
                at.push(Arc::clone(sandbox));
            }
        }
        sandboxes
    }
}

impl AddressOwners {
    /// The owners of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut owners = Self::default();
        owners.follow(snapshot);
        owners
    }

    /// Becomes the owners of another snapshot, seen from the same node.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let mut touched = BTreeSet::new();
        if self.sandboxes.all != snapshot.sandboxes {
            touched.extend(self.sandboxes.at.keys());
            self.sandboxes = Sandboxes::new(&snapshot.sandboxes);
            touched.extend(self.sandboxes.at.keys());
        }
        let before = std::mem::replace(&mut self.pods, snapshot.pods.clone());
        for item in before.diff(&snapshot.pods) {
            let (old, new) = match item {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update {
                    old: (_, old),
                    new: (_, new),
                } => (Some(old), Some(new)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            for pod in old.into_iter().chain(new) {
                let sandboxes = self.sandboxes.of.get(&pod.name).into_iter().flatten();
                touched.extend(sandboxes.flat_map(|sandbox| &sandbox.addresses));
                touched.extend(shown(pod));
            }
            for (address, pod) in old.iter().flat_map(|pod| shown(pod).zip(repeat(pod))) {
                self.claim(address, |claims| claims.retain(|it| it.name != pod.name));
            }
            for (address, pod) in new.iter().flat_map(|pod| shown(pod).zip(repeat(pod))) {
                self.claim(address, |claims| claims.push(Arc::clone(pod)));
            }
        }
        for address in touched {
            self.settle(address, snapshot);
        }
    }

    /// The pod behind an address.
    #[must_use]
    pub fn get(&self, address: &IpAddr) -> Option<&Arc<Pod>> {
        self.all.get(address)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &OrdMap<IpAddr, Arc<Pod>> {
        &self.all
    }

    /// Those whose pod is of the node from which the snapshot is seen.
    #[must_use]
    pub fn local(&self) -> &OrdMap<IpAddr, Arc<Pod>> {
        &self.local
    }

    /// Live pods that show an address which another pod owns: each address with such a pod and its owner.
    pub fn contests(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>, &Arc<Pod>)> {
        self.contested.iter().flat_map(|address| {
            let owner = &self.all[address];
            let losers = self.claims[address].iter();
            let losers = losers.filter(|pod| pod.name != owner.name);
            losers.map(move |pod| (*address, pod, owner))
        })
    }

    fn claim(&mut self, address: IpAddr, change: impl FnOnce(&mut SmallVec<[Arc<Pod>; 1]>)) {
        let claims = self.claims.entry(address).or_default();
        change(claims);
        if claims.is_empty() {
            self.claims.remove(&address);
        }
    }

    /// Finds the owner of an address anew.
    fn settle(&mut self, address: IpAddr, snapshot: &Snapshot) {
        let claims = self.claims.get(&address).map_or(&[][..], AsRef::as_ref);
        let mut owner = claims
            .iter()
            .max_by(|one, other| one.precedence().cmp(&other.precedence()));
        for sandbox in self.sandboxes.at.get(&address).into_iter().flatten() {
            owner = match snapshot.pod_in(sandbox) {
                Some(pod) if pod.owns_addresses() => Some(pod),
                // What is left of an ended pod: others may have its addresses by now.
                Some(_) => owner,
                None => None,
            };
        }
        if owner.is_some_and(|owner| claims.iter().any(|pod| pod.name != owner.name)) {
            self.contested.insert(address);
        } else {
            self.contested.remove(&address);
        }
        let local = owner.filter(|pod| pod.node == snapshot.node_name).cloned();
        put(&mut self.local, address, local);
        let owner = owner.cloned();
        put(&mut self.all, address, owner);
    }
}

/// The addresses that a pod shows as its own, each once.
fn shown(pod: &Arc<Pod>) -> impl Iterator<Item = IpAddr> {
    let addresses = pod.ips.iter().filter(|_| pod.owns_addresses());
    let addresses = addresses.map(IpAddr::to_canonical);
    let addresses: BTreeSet<IpAddr> = addresses
        .filter(|address| !address.is_unspecified())
        .collect();
    addresses.into_iter()
}

fn put(owners: &mut OrdMap<IpAddr, Arc<Pod>>, address: IpAddr, owner: Option<Arc<Pod>>) {
    match owner {
        Some(owner) => owners.insert(address, owner),
        None => owners.remove(&address),
    };
}
