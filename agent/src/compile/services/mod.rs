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
mod sctp;

use std::net::IpAddr;

pub use self::choice::may_be_endpoint;
pub use self::cidrs::services_only;
pub use self::compiler::ServiceCompiler;
pub use self::exposure::{Client, Exposed, Exposure};
pub use self::frontends::Claim;
pub use self::health::{HealthCheck, health_checks};
pub use self::local::{WithoutLocal, without_local};

use self::choice::{Families, Site, choose};
use super::ServiceTables;
use crate::model::{EndpointSlice, Service, ServicePort, Snapshot, TrafficPolicy};

/// Load-balancing tables of a snapshot.
#[must_use]
pub fn services(snapshot: &Snapshot) -> ServiceTables {
    ServiceCompiler::default().compile(snapshot).clone()
}

/// The endpoints that a client on `node` gets at a cluster IP of a Service.
#[must_use]
pub fn reachable(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    node: &str,
) -> Vec<(IpAddr, u16)> {
    let slices = snapshot.slices.values();
    let slices: Vec<&EndpointSlice> = slices
        .filter(|slice| slice.service == service.name)
        .map(AsRef::as_ref)
        .collect();
    let site = Site::of(snapshot, node);
    let families = Families::of(port, &slices, site);
    let choice = choose(families.of_family(cluster_ip.is_ipv4()), site);
    match service.internal_traffic_policy {
        TrafficPolicy::Cluster => choice.cluster,
        TrafficPolicy::Local => choice.local,
    }
}

#[cfg(test)]
mod tests;
