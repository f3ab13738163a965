//! Compiles Services, and of a later snapshot only what is different.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use weir_common::abi::{BackendState, FrontendKey, SourceKey};

use super::choice::Site;
use super::cidrs;
use super::frontends::{Claim, Home};
use super::part::Part;
use crate::compile::ServiceTables;
use crate::model::{EndpointSlice, ForeignService, ObjectName, Service, ServiceCidr, Snapshot};

/// Compiles Services, and of a later snapshot only what is different: the cost of a change is that of the Services that it is
/// about, however many there are.
#[derive(Debug, Default)]
pub struct ServiceCompiler {
    place: Place,
    services: OrdMap<ObjectName, Arc<Service>>,
    slices: OrdMap<ObjectName, Arc<EndpointSlice>>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    foreign: OrdMap<ObjectName, Arc<ForeignService>>,
    service_cidrs: OrdMap<String, Arc<ServiceCidr>>,
    /// What the last two add to the sources.
    ranges: BTreeMap<SourceKey, ObjectName>,
    parts: BTreeMap<ObjectName, Compiled>,
    /// Who claims each frontend, the strongest first. Of two claims of one kind the Service with the smaller name has the stronger
    /// one: the other is being deleted, or was given the address since.
    claims: BTreeSet<(FrontendKey, Claim, ObjectName)>,
    /// What each Service, by its number, says of each backend. Fingerprints are hashes: two may have one.
    stakes: BTreeMap<(u32, u32), BackendState>,
    last_number: u32,
    tables: ServiceTables,
}

/// What all Services hang on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    node: String,
    zone: String,
    home: Home,
}

/// A Service's part.
#[derive(Debug)]
struct Compiled {
    number: u32,
    part: Part,
}

impl Place {
    fn of(snapshot: &Snapshot) -> Self {
        let node = &snapshot.node_name;
        Self {
            node: node.clone(),
            zone: Site::of(snapshot, node).zone.to_owned(),
            home: Home::of(snapshot, node),
        }
    }
}

impl ServiceCompiler {
    /// The tables of a snapshot.
    pub fn compile(&mut self, snapshot: &Snapshot) -> &ServiceTables {
        let place = Place::of(snapshot);
        if self.place != place {
            *self = Self {
                place,
                ..Self::default()
            };
        }
        let changed = self.take(snapshot);
        let mut keys = BTreeSet::new();
        for name in &changed {
            let former = self.withdraw(name, &mut keys);
            self.enter(name, former, &mut keys);
        }
        let mut restated = changed;
        for key in keys {
            self.settle(key, &mut restated);
        }
        for name in &restated {
            self.restate(name);
        }
        self.reserve(snapshot);
        &self.tables
    }

    /// How many backends each Service has, whether anything leads to them or not.
    pub fn backends(&self) -> impl Iterator<Item = (&ObjectName, usize)> {
        let parts = self.parts.iter();
        parts.map(|(name, compiled)| (name, compiled.part.fingerprints().len()))
    }

    /// What becomes of each backend of a Service, by fingerprint, if some Services are left out.
    #[must_use]
    pub fn backends_without(
        &self,
        name: &ObjectName,
        left_out: &BTreeSet<ObjectName>,
    ) -> Vec<(u32, Option<BackendState>)> {
        let number = |name| Some(self.parts.get(name)?.number);
        let left_out: BTreeSet<u32> = left_out.iter().filter_map(number).collect();
        let parts = self.parts.get(name).into_iter();
        parts
            .flat_map(|compiled| compiled.part.fingerprints())
            .map(|it| {
                (
                    it,
                    self.most_alive(it, |number| !left_out.contains(&number)),
                )
            })
            .collect()
    }

    /// Notes the objects of a snapshot; the Services that something about is different.
    fn take(&mut self, snapshot: &Snapshot) -> BTreeSet<ObjectName> {
        let mut changed = BTreeSet::new();
        for item in self.services.diff(&snapshot.services) {
            let (DiffItem::Add(name, _)
            | DiffItem::Remove(name, _)
            | DiffItem::Update { new: (name, _), .. }) = item;
            changed.insert(name.clone());
        }
        for item in self.slices.diff(&snapshot.slices) {
            let (old, new) = match item {
                DiffItem::Add(name, new) => (None, Some((name, new))),
                DiffItem::Update { old, new } => (Some(old), Some(new)),
                DiffItem::Remove(name, old) => (Some((name, old)), None),
            };
            if let Some((name, slice)) = old {
                if let Some(slices) = self.slices_of.get_mut(&slice.service) {
                    slices.remove(name);
                    if slices.is_empty() {
                        self.slices_of.remove(&slice.service);
                    }
                }
                changed.insert(slice.service.clone());
            }
            if let Some((name, slice)) = new {
                let slices = self.slices_of.entry(slice.service.clone()).or_default();
                slices.insert(name.clone());
                changed.insert(slice.service.clone());
            }
        }
        self.services = snapshot.services.clone();
        self.slices = snapshot.slices.clone();
        changed
    }

    /// Takes in which addresses are Services' only.
    fn reserve(&mut self, snapshot: &Snapshot) {
        if self.foreign == snapshot.foreign && self.service_cidrs == snapshot.service_cidrs {
            return;
        }
        self.foreign = snapshot.foreign.clone();
        self.service_cidrs = snapshot.service_cidrs.clone();
        let old = std::mem::replace(&mut self.ranges, cidrs::ranges(snapshot));
        for key in old.keys().filter(|key| !self.ranges.contains_key(key)) {
            self.tables.sources.remove(key);
        }
        for (key, name) in &self.ranges {
            if self.tables.sources.get(key) != Some(name) {
                self.tables.sources.insert(*key, name.clone());
            }
        }
    }

    /// Takes a Service's claims back; what it said of its backends stands.
    fn withdraw(
        &mut self,
        name: &ObjectName,
        keys: &mut BTreeSet<FrontendKey>,
    ) -> Option<Compiled> {
        let former = self.parts.remove(name)?;
        for (key, (claim, _)) in &former.part.frontends {
            self.claims.remove(&(*key, *claim, name.clone()));
            keys.insert(*key);
        }
        for source in &former.part.sources {
            self.tables.sources.remove(source);
        }
        Some(former)
    }

    /// Compiles a Service and enters its claims; backends that it has no more are gone.
    fn enter(
        &mut self,
        name: &ObjectName,
        former: Option<Compiled>,
        keys: &mut BTreeSet<FrontendKey>,
    ) {
        let (number, former) = former.map_or_else(
            || {
                self.last_number += 1;
                (self.last_number, Part::default())
            },
            |former| (former.number, former.part),
        );
        let part = self.part(name);
        for fingerprint in former
            .fingerprints()
            .filter(|it| !part.as_ref().is_some_and(|part| part.lists(*it)))
        {
            self.stakes.remove(&(fingerprint, number));
            self.decide(fingerprint);
        }
        let Some(part) = part else {
            return;
        };
        for (key, (claim, _)) in &part.frontends {
            self.claims.insert((*key, *claim, name.clone()));
            keys.insert(*key);
        }
        for source in &part.sources {
            self.tables.sources.insert(*source, name.clone());
        }
        self.parts.insert(name.clone(), Compiled { number, part });
    }

    /// Compiles a Service, if there is one.
    fn part(&self, name: &ObjectName) -> Option<Part> {
        let service = self.services.get(name)?;
        let slices = self.slices_of.get(name).into_iter().flatten();
        let slices: Vec<&EndpointSlice> = slices
            .filter_map(|slice| self.slices.get(slice))
            .map(AsRef::as_ref)
            .collect();
        let site = Site {
            node: &self.place.node,
            zone: &self.place.zone,
        };
        Some(Part::new(service, &slices, site, &self.place.home))
    }

    /// Gives a frontend to the strongest claim; whose backends hang on that is added to `restated`.
    fn settle(&mut self, key: FrontendKey, restated: &mut BTreeSet<ObjectName>) {
        let first = (key, Claim::ClusterIp, ObjectName::default());
        let strongest = self.claims.range(first..).next();
        let holder = strongest.filter(|(claimed, ..)| *claimed == key);
        let entry = holder.and_then(|(.., name)| self.parts.get(name)?.part.frontends.get(&key));
        let new = entry.map(|(_, entry)| entry);
        let old = self.tables.frontends.get(&key);
        if old == new {
            return;
        }
        let owners = [old, new].into_iter().flatten();
        restated.extend(owners.map(|entry| entry.origin.clone()));
        match new {
            Some(entry) => self.tables.frontends.insert(key, entry.clone()),
            None => self.tables.frontends.remove(&key),
        };
    }

    /// Says anew what is to become of a Service's backends.
    fn restate(&mut self, name: &ObjectName) {
        let Some(Compiled { number, part }) = self.parts.get(name) else {
            return;
        };
        let frontends = &self.tables.frontends;
        let holds = |key: &FrontendKey| frontends.get(key).is_some_and(|it| it.origin == *name);
        let number = *number;
        for (fingerprint, state) in part.backends(holds) {
            if self.stakes.insert((fingerprint, number), state) != Some(state) {
                self.decide(fingerprint);
            }
        }
    }

    fn decide(&mut self, fingerprint: u32) {
        let state = self.most_alive(fingerprint, |_| true);
        let held = self.tables.backends.get(&fingerprint);
        if held == state.as_ref() {
            return;
        }
        match state {
            Some(state) => self.tables.backends.insert(fingerprint, state),
            None => self.tables.backends.remove(&fingerprint),
        };
    }

    /// What Services of these numbers make of a backend: the most alive wins, also between two backends that have one fingerprint.
    fn most_alive(&self, fingerprint: u32, counts: impl Fn(u32) -> bool) -> Option<BackendState> {
        let stakes = self
            .stakes
            .range((fingerprint, 0)..=(fingerprint, u32::MAX));
        stakes
            .filter(|((_, number), _)| counts(*number))
            .map(|(_, state)| *state)
            .reduce(|one, other| BackendState {
                state: one.state.max(other.state),
                sets: one.sets | other.sets,
                ..one
            })
    }
}

#[cfg(test)]
mod tests;
