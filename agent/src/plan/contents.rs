//! What the maps should hold, element by element, and where they do not.

use std::collections::BTreeMap;

use zerocopy::{Immutable, IntoBytes};

use super::planner::Planner;
use super::step::{Bytes, Table};

/// Elements by key, as bytes.
type Elements = BTreeMap<Vec<u8>, Vec<u8>>;

/// An element that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
    /// The value that was written; `None` if there should be no such element.
    pub wanted: Option<Bytes>,
    /// The value that is there, if there is one.
    pub found: Option<Bytes>,
}

/// What a table should hold.
#[derive(Debug, Default)]
pub(super) struct Contents(Elements);

impl Contents {
    pub(super) fn add<K, V>(&mut self, key: &K, value: &V)
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        self.0
            .insert(key.as_bytes().to_vec(), value.as_bytes().to_vec());
    }
}

impl Planner {
    /// Where a table as it was read differs from what the plans so far have written. Elements of arrays that nothing leads to may be
    /// anything, and one that is all zeros may be missing in `found`. Nothing while it is not known what the maps hold.
    #[must_use]
    pub fn differences(&self, table: Table, found: &Elements) -> Vec<Difference> {
        let Some(Contents(wanted)) = self.contents(table) else {
            return Vec::new();
        };
        let is_array = matches!(table, Table::Slot | Table::Range | Table::Backend);
        let mut differences = Vec::new();
        let mut note = |key: &[u8], wanted: Option<&Vec<u8>>, found: Option<&Vec<u8>>| {
            let bytes = |value: &Vec<u8>| Bytes::from_slice(value);
            differences.push(Difference {
                table,
                key: Bytes::from_slice(key),
                wanted: wanted.map(bytes),
                found: found.map(bytes),
            });
        };
        for (key, value) in &wanted {
            let there = found.get(key);
            let unset = is_array && there.is_none() && value.iter().all(|byte| *byte == 0);
            if there != Some(value) && !unset {
                note(key, Some(value), there);
            }
        }
        if !is_array {
            for (key, value) in found {
                if !wanted.contains_key(key) {
                    note(key, None, Some(value));
                }
            }
        }
        differences
    }
}
