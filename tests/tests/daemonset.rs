//! Weir as users run it: the image and the manifests of `deploy/` on a real cluster with no kube-proxy.

// xtask: minutes=30 slow soak

#[path = "daemonset/churn.rs"]
mod churn;
#[path = "daemonset/fixture.rs"]
mod fixture;
#[path = "daemonset/plugin.rs"]
mod plugin;
#[path = "daemonset/releases.rs"]
mod releases;
#[path = "daemonset/requests.rs"]
mod requests;
#[path = "daemonset/rights.rs"]
mod rights;
#[path = "daemonset/rollouts.rs"]
mod rollouts;
#[path = "daemonset/starts.rs"]
mod starts;
#[path = "daemonset/symptom.rs"]
mod symptom;
#[path = "daemonset/traffic.rs"]
mod traffic;
#[path = "daemonset/workloads.rs"]
mod workloads;
