//! Snapshot in, tables out: pure functions of the current objects.
//!
//! Tables use the kernel's key types, but name rows and classes by their content ([`RowId`], [`ClassId`]); the planner gives them
//! the small numbers of the maps. Every entry keeps the object that it came from.

mod tables;

pub use tables::{
    Backend, ClassId, EndpointEntry, FrontendEntry, PolicyTables, RowEntry, RowId, RuleOrigin,
    ServiceTables, Tables,
};
