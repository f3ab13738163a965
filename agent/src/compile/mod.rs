//! Snapshot in, tables out: pure functions of the current objects.
//!
//! Tables use the kernel's key types, but name rows and classes by their content ([`RowId`], [`ClassId`]); the planner gives them
//! the small numbers of the maps. Every entry keeps the object that it came from.

mod hash;
mod judge;
mod policies;
mod ranges;
mod services;
mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use judge::{Verdict, class_of, judge};
pub use policies::{PolicyCompiler, policies};
pub use services::{
    Claim, Client, Clients, Exposed, Exposure, HealthCheck, ServiceCompiler, WithoutLocal,
    health_checks, may_be_endpoint, services, services_only, without_local,
};
pub use tables::{
    Backend, ClassId, EndpointEntry, FrontendEntry, PolicyTables, RowEntry, RowId, RuleOrigin,
    ServiceTables, Tables,
};

use crate::model::Snapshot;

/// Everything that the maps of the snapshot's node should hold.
#[must_use]
pub fn compile(snapshot: &Snapshot) -> Tables {
    Tables {
        services: services(snapshot),
        policies: policies(snapshot).into(),
    }
}
