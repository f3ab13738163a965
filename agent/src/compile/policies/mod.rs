//! Pods, namespaces and policies in, endpoints, classes and rows out.

mod chosen;
mod classes;
mod compiler;
mod endpoints;
mod groups;
mod peers;
mod prefixes;
mod rows;
mod subjects;
mod terms;

pub use self::compiler::PolicyCompiler;

use super::PolicyTables;
use crate::model::{AddressOwners, Snapshot};

/// Policy tables of a snapshot.
#[must_use]
pub fn policies(snapshot: &Snapshot) -> PolicyTables {
    let owners = AddressOwners::of(snapshot);
    let mut compiler = PolicyCompiler::default();
    compiler.compile(snapshot, &owners).clone()
}

#[cfg(test)]
mod tests;
