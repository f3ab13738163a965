//! Service ports that a Local traffic policy leaves without endpoints on this node.

use std::collections::BTreeSet;

use weir_common::abi::{DROP_EXTERNAL, DROP_INTERNAL};

use crate::compile::ServiceTables;

/// Service ports of one family whose endpoints are all on other nodes, where a traffic policy is Local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// By internalTrafficPolicy.
    pub internal: u64,
    /// By externalTrafficPolicy.
    pub external: u64,
}

/// Counts Service ports, however many frontends each has, of one family.
#[must_use]
pub fn without_local(tables: &ServiceTables, v4: bool) -> WithoutLocal {
    let frontends = tables.frontends.iter();
    let frontends = frontends.filter(|(key, _)| key.address.is_v4() == v4);
    let (mut internal, mut external) = (BTreeSet::new(), BTreeSet::new());
    for (_, entry) in frontends {
        // A cluster IP follows internalTrafficPolicy on both sides; other frontends never drop clients inside.
        if entry.flags & DROP_INTERNAL != 0 {
            if entry.internal.is_empty() {
                internal.insert(entry.service);
            }
        } else if entry.flags & DROP_EXTERNAL != 0 && entry.external.is_empty() {
            external.insert(entry.service);
        }
    }
    WithoutLocal {
        internal: internal.len() as u64,
        external: external.len() as u64,
    }
}
