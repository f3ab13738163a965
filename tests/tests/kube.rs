//! The agent against the real API server and its controllers.

#[path = "kube/api.rs"]
mod api;
#[path = "kube/cidrs.rs"]
mod cidrs;
#[path = "kube/cluster.rs"]
mod cluster;
#[path = "kube/events.rs"]
mod events;
#[path = "kube/follow.rs"]
mod follow;
#[path = "kube/metrics.rs"]
mod metrics;
#[path = "kube/outage.rs"]
mod outage;
#[path = "kube/restart.rs"]
mod restart;
#[path = "kube/rights.rs"]
mod rights;
#[path = "kube/tiers.rs"]
mod tiers;
