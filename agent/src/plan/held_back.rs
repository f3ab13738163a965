//! What is in force while policies do not fit.

use std::collections::BTreeSet;

use imbl::OrdMap;

use crate::compile::{EndpointEntry, PolicyTables, RowEntry, RowId};

/// The former policies, with the pods that there are now. A pod that is known keeps its former rows. One that has come since gets
/// a row that says the same as the one that it should have, if the former policies have one; else nothing may pass in the directions in
/// which it should be isolated.
pub(super) fn held_back(former: &PolicyTables, desired: &PolicyTables) -> PolicyTables {
    let mut tables = PolicyTables {
        endpoints: OrdMap::new(),
        ..former.clone()
    };
    for (key, wanted) in &desired.endpoints {
        let known = former.endpoints.get(key).filter(|it| it.id == wanted.id);
        let mut row = |known: Option<RowId>, wanted: RowId| match known {
            Some(row) => row,
            None if wanted == RowId::OPEN || tables.rows.contains_key(&wanted) => wanted,
            None => close(&mut tables.rows, wanted, desired),
        };
        let entry = EndpointEntry {
            ingress: row(known.map(|it| it.ingress), wanted.ingress),
            egress: row(known.map(|it| it.egress), wanted.egress),
            ..wanted.clone()
        };
        tables.endpoints.insert(*key, entry);
    }
    let rows = tables.endpoints.values();
    let used: BTreeSet<RowId> = rows
        .flat_map(|entry| [entry.ingress, entry.egress])
        .collect();
    let rows = std::mem::take(&mut tables.rows).into_iter();
    tables.rows = rows.filter(|(row, _)| used.contains(row)).collect();
    tables
}

/// A row that isolates as the desired one does, and allows nothing.
fn close(rows: &mut OrdMap<RowId, RowEntry>, wanted: RowId, desired: &PolicyTables) -> RowId {
    let id = wanted.closed();
    if let Some(row) = desired.rows.get(&wanted) {
        let closed = RowEntry {
            verdicts: OrdMap::new(),
            denials: OrdMap::new(),
            ..row.clone()
        };
        rows.insert(id, closed);
    }
    id
}
