//! Endpoints, classes and verdicts.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use weir_common::abi::{
    Address, CLASS_UNSET, CLASS_WORLD, Class, Endpoint, EndpointKey, PrefixKey, ROW_ABSENT,
    ROW_OPEN, Range, Rows, VerdictKey, control,
};
use zerocopy::{Immutable, IntoBytes};

use super::contents::Contents;
use super::planner::Full;
use super::sizes::RANGES_PER_VERDICT;
use super::space::Segments;
use super::step::{Sizes, Step, Table};
use crate::compile::{ClassId, EndpointEntry, PolicyTables, RowId};

const ABSENT: Rows = Rows {
    ingress: ROW_ABSENT,
    egress: ROW_ABSENT,
};

/// What the policy maps of a generation hold. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    sizes: Sizes,
    /// What they were last led to.
    led: PolicyTables,
    rows: Numbers<RowId>,
    classes: Numbers<ClassId>,
    endpoints: Elements<EndpointKey, Endpoint>,
    addresses: Elements<Address, Class>,
    prefixes: Elements<PrefixKey, Class>,
    /// How many verdicts there are.
    verdicts: usize,
    pub(super) ranges: Segments<Range>,
}

/// Numbers of what the tables name by content. A number is used once in a generation: no program can take it for another's.
#[derive(Clone, Debug)]
struct Numbers<T: Ord> {
    known: OrdMap<T, u32>,
    last: u32,
}

impl<T: Copy + Ord> Numbers<T> {
    /// With the one number that the ABI fixes.
    fn new(content: T, number: u32) -> Self {
        Self {
            known: OrdMap::unit(content, number),
            last: number,
        }
    }

    fn add(&mut self, content: T) -> Result<(), Full> {
        // The highest number has a meaning of its own.
        if self.last >= u32::MAX - 1 {
            return Err(Full);
        }
        self.last += 1;
        self.known.insert(content, self.last);
        Ok(())
    }

    fn of(&self, content: T) -> u32 {
        self.known[&content]
    }
}

/// Elements of one map that have a value in each version.
#[derive(Clone, Debug)]
struct Elements<K: Ord, V> {
    held: OrdMap<K, V>,
    /// Those whose versions differ, since the last change of version was about them.
    uneven: Vec<K>,
}

impl<K: Copy + Ord, V> Default for Elements<K, V> {
    fn default() -> Self {
        Self {
            held: OrdMap::new(),
            uneven: Vec::new(),
        }
    }
}

/// What a table of elements is to be, against what it was.
struct Differences<K> {
    /// Elements that come or get another value.
    set: Vec<K>,
    gone: Vec<K>,
}

impl<K: Copy + Ord> Differences<K> {
    fn between<V: PartialEq>(old: &OrdMap<K, V>, new: &OrdMap<K, V>) -> Self {
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        for item in old.diff(new) {
            match item {
                DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } => set.push(*key),
                DiffItem::Remove(key, _) => gone.push(*key),
            }
        }
        Self { set, gone }
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = K> {
        self.set.iter().chain(&self.gone).copied()
    }
}

/// The value of the longest entry around a prefix, without the prefix itself.
pub(super) fn around<'a, V>(
    entries: &'a OrdMap<PrefixKey, V>,
    prefix: &PrefixKey,
) -> Option<&'a V> {
    let address = u128::from_be_bytes(prefix.address.bytes());
    (0..prefix.bits).rev().find_map(|bits| {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        entries.get(&PrefixKey {
            bits,
            address: Address::from_bytes((address & mask).to_be_bytes()),
        })
    })
}

impl Policies {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            sizes: sizes.clone(),
            led: PolicyTables::default(),
            rows: Numbers::new(RowId::OPEN, ROW_OPEN),
            classes: Numbers::new(ClassId::WORLD, CLASS_WORLD),
            endpoints: Elements::default(),
            addresses: Elements::default(),
            prefixes: Elements::default(),
            verdicts: 0,
            ranges: Segments::new(sizes[&Table::Range]),
        }
    }

    /// Fills the maps of a generation that no program reads yet: both versions alike.
    pub(super) fn fill(
        &mut self,
        desired: &PolicyTables,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        self.write_verdicts(desired, steps)?;
        for (key, entry) in &desired.endpoints {
            let value = self.endpoint(entry);
            self.endpoints.put(Table::Endpoint, *key, value, steps);
        }
        for (address, class) in &desired.addresses {
            let versions = [self.classes.of(*class); 2];
            let value = Class { versions };
            self.addresses.put(Table::Class, *address, value, steps);
        }
        for (prefix, class) in &desired.prefixes {
            let versions = [self.classes.of(*class); 2];
            let value = Class { versions };
            self.prefixes.put(Table::Prefix, *prefix, value, steps);
        }
        self.led = desired.clone();
        self.elements_fit()
    }

    /// Moves the maps that programs read to the desired state; `version` is the control word and changes when elements do.
    pub(super) fn update(
        &mut self,
        desired: &PolicyTables,
        version: &mut u64,
        narrows: impl FnOnce() -> bool,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        let led = self.led.clone();
        let active = (*version & 1) as usize;
        self.write_verdicts(desired, steps)?;
        let endpoints = Differences::between(&led.endpoints, &desired.endpoints);
        let addresses = Differences::between(&led.addresses, &desired.addresses);
        let prefixes = Differences::between(&led.prefixes, &desired.prefixes);
        let same_rows = |key: &EndpointKey| {
            let (old, new) = (led.endpoints.get(key), desired.endpoints.get(key));
            let rows = |entry: &EndpointEntry| (entry.ingress, entry.egress);
            old.map(rows) == new.map(rows)
        };
        if addresses.is_empty() && prefixes.is_empty() && endpoints.all().all(|key| same_rows(&key))
        {
            // Nothing but what has one version: devices and identities of pods.
            for key in endpoints.set {
                let value = self.endpoint(&desired.endpoints[&key]);
                self.endpoints.put(Table::Endpoint, key, value, steps);
            }
        } else {
            self.write_endpoints(desired, &endpoints, active, steps);
            self.write_addresses(desired, &addresses, active, steps);
            self.write_prefixes(desired, (&led, &prefixes), active, steps);
            self.elements_fit()?;
            *version = version.wrapping_add(1);
            steps.push(Step::Control {
                index: control::VERSION,
                value: *version,
            });
            // Programs that read the version before it changed still use what is deleted, or rewritten by the next plan; nor may what
            // they allow be of the new epoch.
            steps.push(Step::Wait);
            if narrows() {
                steps.push(Step::BumpEpoch);
            }
            self.endpoints.delete(Table::Endpoint, endpoints, steps);
            self.addresses.delete(Table::Class, addresses, steps);
            self.prefixes.delete(Table::Prefix, prefixes, steps);
        }
        self.delete_verdicts(desired, steps);
        self.led = desired.clone();
        Ok(())
    }

    /// The elements of one of its tables.
    pub(super) fn list(&self, table: Table, contents: &mut Contents) {
        match table {
            Table::Endpoint => self.endpoints.list(contents),
            Table::Class => self.addresses.list(contents),
            Table::Prefix => self.prefixes.list(contents),
            Table::Verdict => {
                for (id, row) in &self.led.rows {
                    for (class, ranges) in &row.verdicts {
                        let key = self.verdict_key(*id, *class);
                        contents.add(&key, &self.ranges.segment(ranges));
                    }
                }
            }
            _ => {
                for (index, range) in self.ranges.elements() {
                    contents.add(&index, &range);
                }
            }
        }
    }

    /// Verdicts that are not there yet: rows that programs use get them for classes that no address has yet, and the other
    /// way round, so that nobody sees them before the version changes.
    fn write_verdicts(
        &mut self,
        desired: &PolicyTables,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        for item in self.led.classes.clone().diff(&desired.classes) {
            if let DiffItem::Add(class, _) = item {
                self.classes.add(*class)?;
            }
        }
        let mut come: Vec<(VerdictKey, Arc<[Range]>)> = Vec::new();
        for item in self.led.rows.clone().diff(&desired.rows) {
            let (id, former, row) = match item {
                DiffItem::Add(id, row) => {
                    self.rows.add(*id)?;
                    (id, OrdMap::new(), row)
                }
                DiffItem::Update {
                    old: (_, old),
                    new: (id, row),
                } => (id, old.verdicts.clone(), row),
                DiffItem::Remove(..) => continue,
            };
            for item in former.diff(&row.verdicts) {
                match item {
                    DiffItem::Add(class, ranges) => {
                        come.push((self.verdict_key(*id, *class), Arc::clone(ranges)));
                    }
                    // What a row says of a class never changes: both are named by their content.
                    DiffItem::Update { .. } => return Err(Full),
                    DiffItem::Remove(..) => {}
                }
            }
        }
        self.verdicts += come.len();
        self.fits(Table::Verdict, self.verdicts)?;
        let mut entries = Vec::new();
        for (key, ranges) in come {
            if ranges.len() > RANGES_PER_VERDICT {
                return Err(Full);
            }
            let write = |index: u32, range| steps.push(Step::write(Table::Range, &index, &range));
            let segment = self.ranges.place(&ranges, write).ok_or(Full)?;
            entries.push(Step::write(Table::Verdict, &key, &segment));
        }
        steps.extend(entries);
        Ok(())
    }

    /// Deletes the verdicts that the version in force does not use, and forgets numbers.
    fn delete_verdicts(&mut self, desired: &PolicyTables, steps: &mut Vec<Step>) {
        for item in self.led.rows.clone().diff(&desired.rows) {
            let (id, old, new) = match item {
                DiffItem::Add(..) => continue,
                DiffItem::Update {
                    old: (_, old),
                    new: (id, new),
                } => (id, old, Some(new)),
                DiffItem::Remove(id, old) => (id, old, None),
            };
            let remaining = new.map(|row| row.verdicts.clone()).unwrap_or_default();
            for item in old.verdicts.diff(&remaining) {
                if let DiffItem::Remove(class, ranges) = item {
                    let key = self.verdict_key(*id, *class);
                    steps.push(Step::delete(Table::Verdict, &key));
                    self.ranges.release(ranges);
                    self.verdicts -= 1;
                }
            }
            if new.is_none() {
                self.rows.known.remove(id);
            }
        }
        for item in self.led.classes.clone().diff(&desired.classes) {
            if let DiffItem::Remove(class, _) = item {
                self.classes.known.remove(class);
            }
        }
    }

    fn verdict_key(&self, row: RowId, class: ClassId) -> VerdictKey {
        VerdictKey {
            row: self.rows.of(row),
            class: self.classes.of(class),
        }
    }

    fn elements_fit(&self) -> Result<(), Full> {
        self.fits(Table::Endpoint, self.endpoints.held.len())?;
        self.fits(Table::Class, self.addresses.held.len())?;
        self.fits(Table::Prefix, self.prefixes.held.len())
    }

    fn fits(&self, table: Table, entries: usize) -> Result<(), Full> {
        if entries <= self.sizes[&table] as usize {
            Ok(())
        } else {
            Err(Full)
        }
    }

    /// An entry with this generation's numbers, in both versions.
    fn endpoint(&self, entry: &EndpointEntry) -> Endpoint {
        let rows = Rows {
            ingress: self.rows.of(entry.ingress),
            egress: self.rows.of(entry.egress),
        };
        Endpoint {
            id: entry.id,
            ifindex: entry.ifindex,
            flags: 0,
            rows: [rows; 2],
        }
    }

    fn write_endpoints(
        &mut self,
        desired: &PolicyTables,
        differences: &Differences<EndpointKey>,
        active: usize,
        steps: &mut Vec<Step>,
    ) {
        for key in self.endpoints.take_concerned(differences) {
            let held = self.endpoints.held.get(&key).copied();
            let new = match desired.endpoints.get(&key) {
                Some(entry) => self.endpoint(entry),
                None => Endpoint {
                    rows: [ABSENT; 2],
                    ..held.unwrap_or_default()
                },
            };
            let now = held.map_or(ABSENT, |held| held.rows[active]);
            let value = Endpoint {
                rows: versions(active, now, new.rows[0]),
                ..new
            };
            self.endpoints.put(Table::Endpoint, key, value, steps);
        }
    }

    fn write_addresses(
        &mut self,
        desired: &PolicyTables,
        differences: &Differences<Address>,
        active: usize,
        steps: &mut Vec<Step>,
    ) {
        for key in self.addresses.take_concerned(differences) {
            let held = self.addresses.held.get(&key);
            let now = held.map_or(CLASS_UNSET, |held| held.versions[active]);
            let new = desired.addresses.get(&key);
            let new = new.map_or(CLASS_UNSET, |class| self.classes.of(*class));
            let value = Class {
                versions: versions(active, now, new),
            };
            self.addresses.put(Table::Class, key, value, steps);
        }
    }

    /// A prefix that one version does not have answers in it like the one around it.
    fn write_prefixes(
        &mut self,
        desired: &PolicyTables,
        (led, differences): (&PolicyTables, &Differences<PrefixKey>),
        active: usize,
        steps: &mut Vec<Step>,
    ) {
        for key in self.prefixes.take_concerned(differences) {
            let class = |tables: &PolicyTables| {
                let class = tables.prefixes.get(&key);
                let class = class.or_else(|| around(&tables.prefixes, &key));
                class.map_or(CLASS_WORLD, |class| self.classes.of(*class))
            };
            let value = Class {
                versions: versions(active, class(led), class(desired)),
            };
            self.prefixes.put(Table::Prefix, key, value, steps);
        }
    }
}

impl<K, V> Elements<K, V>
where
    K: Copy + Ord + IntoBytes + Immutable,
    V: Copy + PartialEq + IntoBytes + Immutable,
{
    /// What a change of version is about: elements that differ, and those that the last one left uneven. The former are the uneven ones
    /// from now on.
    fn take_concerned(&mut self, differences: &Differences<K>) -> Vec<K> {
        let former = std::mem::replace(&mut self.uneven, differences.set.clone());
        let mut all: Vec<K> = differences.all().chain(former).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Writes an element unless it is there already.
    fn put(&mut self, table: Table, key: K, value: V, steps: &mut Vec<Step>) {
        if self.held.get(&key) != Some(&value) {
            self.held.insert(key, value);
            steps.push(Step::write(table, &key, &value));
        }
    }

    /// Deletes elements: those that are gone said so in the version in force already.
    fn delete(&mut self, table: Table, differences: Differences<K>, steps: &mut Vec<Step>) {
        for key in differences.gone {
            self.held.remove(&key);
            steps.push(Step::delete(table, &key));
        }
    }

    fn list(&self, contents: &mut Contents) {
        for (key, value) in &self.held {
            contents.add(key, value);
        }
    }
}

/// Both versions of an element: `now` in the one in force, `new` in the other.
fn versions<T>(active: usize, now: T, new: T) -> [T; 2] {
    if active == 0 { [now, new] } else { [new, now] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_as_many_numbers_as_have_no_meaning_of_their_own() {
        let mut rows = Numbers::new(RowId::OPEN, ROW_OPEN);
        rows.last = ROW_ABSENT - 2;
        assert!(rows.add(RowId(1)).is_ok());
        assert_eq!(rows.of(RowId(1)), ROW_ABSENT - 1);
        assert!(rows.add(RowId(2)).is_err());
    }
}
