//! Services and EndpointSlices in, frontends and backends out.

mod choice;
mod cidrs;
mod compiler;
mod exposure;
mod frontends;
mod health;
mod local;
mod part;
mod ranges;

pub use self::choice::may_be_endpoint;
pub use self::cidrs::services_only;
pub use self::compiler::ServiceCompiler;
pub use self::exposure::{Client, Clients, Exposed, Exposure};
pub use self::frontends::Claim;
pub use self::health::{HealthCheck, health_checks};
pub use self::local::{WithoutLocal, without_local};

use super::ServiceTables;
use crate::model::Snapshot;

/// Load-balancing tables of a snapshot.
#[must_use]
pub fn services(snapshot: &Snapshot) -> ServiceTables {
    ServiceCompiler::default().compile(snapshot).clone()
}

#[cfg(test)]
mod tests;
