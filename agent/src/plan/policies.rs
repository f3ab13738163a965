//! Endpoints, classes and verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

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
use crate::compile::{ClassId, PolicyTables, RowId};

const ABSENT: Rows = Rows {
    ingress: ROW_ABSENT,
    egress: ROW_ABSENT,
};

/// What the policy maps of a generation hold.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    sizes: Sizes,
    rows: Numbers<RowId>,
    classes: Numbers<ClassId>,
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    addresses: BTreeMap<Address, Class>,
    prefixes: BTreeMap<PrefixKey, Class>,
    verdicts: BTreeMap<VerdictKey, Arc<[Range]>>,
    pub(super) ranges: Segments<Range>,
}

/// Numbers of what the tables name by content. A number is used once in a generation: no program can take it for another's.
#[derive(Clone, Debug)]
struct Numbers<T> {
    known: BTreeMap<T, u32>,
    last: u32,
}

impl<T: Copy + Ord + Hash> Numbers<T> {
    /// With the one number that the ABI fixes.
    fn new(content: T, number: u32) -> Self {
        Self {
            known: BTreeMap::from([(content, number)]),
            last: number,
        }
    }

    fn number(&mut self, content: T) -> Result<u32, Full> {
        if let Some(&number) = self.known.get(&content) {
            return Ok(number);
        }
        // The highest number has a meaning of its own.
        if self.last >= u32::MAX - 1 {
            return Err(Full);
        }
        self.last += 1;
        self.known.insert(content, self.last);
        Ok(self.last)
    }
}

/// Desired elements with this generation's numbers.
struct Target {
    endpoints: BTreeMap<EndpointKey, (u64, u32, Rows)>,
    addresses: BTreeMap<Address, u32>,
    prefixes: BTreeMap<PrefixKey, u32>,
    verdicts: BTreeMap<VerdictKey, Arc<[Range]>>,
}

/// The value of the longest entry around a prefix, without the prefix itself.
pub(super) fn around<'a, V>(
    entries: &'a BTreeMap<PrefixKey, V>,
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
            rows: Numbers::new(RowId::OPEN, ROW_OPEN),
            classes: Numbers::new(ClassId::WORLD, CLASS_WORLD),
            endpoints: BTreeMap::new(),
            addresses: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            ranges: Segments::new(sizes[&Table::Range]),
        }
    }

    /// Fills the maps of a generation that no program reads yet: both versions alike.
    pub(super) fn fill(
        &mut self,
        desired: &PolicyTables,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        let target = self.target(desired)?;
        self.write_verdicts(&target, steps)?;
        self.write_elements(&target, |_, new| [new; 2], |_, new| [new; 2], steps)
    }

    /// Moves the maps that programs read to the desired state; `version` is the control word and changes when elements do.
    pub(super) fn update(
        &mut self,
        desired: &PolicyTables,
        version: &mut u64,
        narrows: impl FnOnce() -> bool,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        let target = self.target(desired)?;
        let active = (*version & 1) as usize;
        self.write_verdicts(&target, steps)?;
        if !self.differs(&target, active) {
            // Nothing but what has one version: devices and identities of pods.
            return self.write_elements(
                &target,
                |held, _| held.map_or([ABSENT; 2], |held| held.rows),
                |held, _| held.map_or([CLASS_UNSET; 2], |held| held.versions),
                steps,
            );
        }
        self.write_elements(
            &target,
            |held, new| versions(active, held.map_or(ABSENT, |held| held.rows[active]), new),
            |held, new| {
                let now = held.map_or(CLASS_UNSET, |held| held.versions[active]);
                versions(active, now, new)
            },
            steps,
        )?;
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
        self.delete(&target, desired, steps);
        Ok(())
    }

    /// The elements of one of its tables.
    pub(super) fn list(&self, table: Table, contents: &mut Contents) {
        match table {
            Table::Endpoint => {
                for (key, endpoint) in &self.endpoints {
                    contents.add(key, endpoint);
                }
            }
            Table::Class => {
                for (address, class) in &self.addresses {
                    contents.add(address, class);
                }
            }
            Table::Prefix => {
                for (prefix, class) in &self.prefixes {
                    contents.add(prefix, class);
                }
            }
            Table::Verdict => {
                for (key, ranges) in &self.verdicts {
                    contents.add(key, &self.ranges.segment(ranges));
                }
            }
            _ => {
                for (index, range) in self.ranges.elements() {
                    contents.add(&index, &range);
                }
            }
        }
    }

    fn target(&mut self, desired: &PolicyTables) -> Result<Target, Full> {
        let mut target = Target {
            endpoints: BTreeMap::new(),
            addresses: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        };
        for (key, entry) in &desired.endpoints {
            let rows = Rows {
                ingress: self.rows.number(entry.ingress)?,
                egress: self.rows.number(entry.egress)?,
            };
            target
                .endpoints
                .insert(*key, (entry.id, entry.ifindex, rows));
        }
        for (address, class) in &desired.addresses {
            target
                .addresses
                .insert(*address, self.classes.number(*class)?);
        }
        for (prefix, class) in &desired.prefixes {
            target
                .prefixes
                .insert(*prefix, self.classes.number(*class)?);
        }
        for (id, row) in &desired.rows {
            let row_number = self.rows.number(*id)?;
            for (class, ranges) in &row.verdicts {
                let key = VerdictKey {
                    row: row_number,
                    class: self.classes.number(*class)?,
                };
                target.verdicts.insert(key, ranges.clone());
            }
        }
        Ok(target)
    }

    /// Verdicts that are not there yet: rows that programs use get them for classes that no address has yet, and the other
    /// way round, so that nobody sees them before the version changes.
    fn write_verdicts(&mut self, target: &Target, steps: &mut Vec<Step>) -> Result<(), Full> {
        let mut entries = Vec::new();
        for (key, ranges) in &target.verdicts {
            if self.verdicts.contains_key(key) {
                continue;
            }
            if ranges.len() > RANGES_PER_VERDICT {
                return Err(Full);
            }
            let write = |index: u32, range| steps.push(Step::write(Table::Range, &index, &range));
            let segment = self.ranges.place(ranges, write).ok_or(Full)?;
            self.verdicts.insert(*key, ranges.clone());
            entries.push((*key, segment));
        }
        for (key, segment) in entries {
            steps.push(Step::write(Table::Verdict, &key, &segment));
        }
        self.fits(Table::Verdict, self.verdicts.len())
    }

    fn fits(&self, table: Table, entries: usize) -> Result<(), Full> {
        if entries <= self.sizes[&table] as usize {
            Ok(())
        } else {
            Err(Full)
        }
    }

    /// Whether an element's active version is not what is desired.
    fn differs(&self, target: &Target, active: usize) -> bool {
        fn same<'a, K: Ord + 'a, V: Copy + PartialEq + 'a, H: 'a>(
            held: &'a BTreeMap<K, H>,
            target: impl ExactSizeIterator<Item = (&'a K, V)>,
            value: impl Fn(&H) -> V,
        ) -> bool {
            held.len() == target.len()
                && held
                    .iter()
                    .zip(target)
                    .all(|((key, held), (wanted, new))| key == wanted && value(held) == new)
        }
        let class = |held: &Class| held.versions[active];
        let endpoints = target
            .endpoints
            .iter()
            .map(|(key, (.., rows))| (key, *rows));
        let addresses = target.addresses.iter().map(|(key, class)| (key, *class));
        let prefixes = target.prefixes.iter().map(|(key, class)| (key, *class));
        !(same(&self.endpoints, endpoints, |held| held.rows[active])
            && same(&self.addresses, addresses, class)
            && same(&self.prefixes, prefixes, class))
    }

    /// Writes every element that is not as `rows` and `class` combine the held value and the desired one. Elements that are no
    /// longer desired say so in the new version; they are deleted when nobody reads the old one.
    fn write_elements(
        &mut self,
        target: &Target,
        rows: impl Fn(Option<&Endpoint>, Rows) -> [Rows; 2],
        class: impl Fn(Option<&Class>, u32) -> [u32; 2],
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        for key in keys(&self.endpoints, &target.endpoints) {
            let held = self.endpoints.get(&key);
            let gone = || {
                let held = held.copied().unwrap_or_default();
                (held.id, held.ifindex, ABSENT)
            };
            let (id, ifindex, new) = target.endpoints.get(&key).copied().unwrap_or_else(gone);
            let value = Endpoint {
                id,
                ifindex,
                flags: 0,
                rows: rows(held, new),
            };
            put(&mut self.endpoints, Table::Endpoint, key, value, steps);
        }
        for key in keys(&self.addresses, &target.addresses) {
            let new = target.addresses.get(&key).copied().unwrap_or(CLASS_UNSET);
            let versions = class(self.addresses.get(&key), new);
            put(
                &mut self.addresses,
                Table::Class,
                key,
                Class { versions },
                steps,
            );
        }
        let before = self.prefixes.clone();
        for key in keys(&self.prefixes, &target.prefixes) {
            // A prefix that one version does not have answers in it like the one around it.
            let outer = || around(&target.prefixes, &key).copied();
            let new = target.prefixes.get(&key).copied().or_else(outer);
            let world = Class::default();
            let held = before.get(&key).or_else(|| around(&before, &key));
            let versions = class(held.or(Some(&world)), new.unwrap_or(CLASS_WORLD));
            put(
                &mut self.prefixes,
                Table::Prefix,
                key,
                Class { versions },
                steps,
            );
        }
        self.fits(Table::Endpoint, self.endpoints.len())?;
        self.fits(Table::Class, self.addresses.len())?;
        self.fits(Table::Prefix, self.prefixes.len())
    }

    /// Deletes what the version in force does not use.
    fn delete(&mut self, target: &Target, desired: &PolicyTables, steps: &mut Vec<Step>) {
        sweep(
            &mut self.endpoints,
            &target.endpoints,
            Table::Endpoint,
            steps,
        );
        sweep(&mut self.addresses, &target.addresses, Table::Class, steps);
        sweep(&mut self.prefixes, &target.prefixes, Table::Prefix, steps);
        for (key, ranges) in &self.verdicts {
            if !target.verdicts.contains_key(key) {
                self.ranges.release(ranges);
            }
        }
        sweep(&mut self.verdicts, &target.verdicts, Table::Verdict, steps);
        self.rows
            .known
            .retain(|row, _| *row == RowId::OPEN || desired.rows.contains_key(row));
        let classes: BTreeSet<&ClassId> = desired
            .addresses
            .values()
            .chain(desired.prefixes.values())
            .collect();
        self.classes
            .known
            .retain(|class, _| *class == ClassId::WORLD || classes.contains(class));
    }
}

/// Both versions of an element: `now` in the one in force, `new` in the other.
fn versions<T>(active: usize, now: T, new: T) -> [T; 2] {
    if active == 0 { [now, new] } else { [new, now] }
}

/// Keys of either map.
fn keys<K: Copy + Ord, A, B>(held: &BTreeMap<K, A>, target: &BTreeMap<K, B>) -> BTreeSet<K> {
    held.keys().chain(target.keys()).copied().collect()
}

/// Writes an element unless it is there already.
fn put<K, V>(held: &mut BTreeMap<K, V>, table: Table, key: K, value: V, steps: &mut Vec<Step>)
where
    K: Copy + Ord + IntoBytes + Immutable,
    V: Copy + PartialEq + IntoBytes + Immutable,
{
    if held.insert(key, value) != Some(value) {
        steps.push(Step::write(table, &key, &value));
    }
}

/// Deletes the elements that are not desired.
fn sweep<K, V, T>(
    held: &mut BTreeMap<K, V>,
    target: &BTreeMap<K, T>,
    table: Table,
    steps: &mut Vec<Step>,
) where
    K: Copy + Ord + IntoBytes + Immutable,
{
    held.retain(|key, _| {
        let keep = target.contains_key(key);
        if !keep {
            steps.push(Step::delete(table, key));
        }
        keep
    });
}
