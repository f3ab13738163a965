//! Subnets of Services come and go while the agent runs.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use crate::api::{apply, delete, merge, object, service};
use crate::cluster::{Cluster, Home, eventually};

/// An address of the subnet that comes later.
const LATER: &str = "10.97.0.10";

#[test]
fn subnets_of_services_come_and_go() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    let mut agent = cluster.start_agent(&home)?;
    // The API server's own, which it makes when it is ready.
    cluster.wait_objects(&home, "ServiceCIDR", 1)?;
    guarded(&cluster, &home, "10.96.0.0/16", true)?;
    guarded(&cluster, &home, "fd10:96::/112", true)?;
    cluster.is_denied("client", "10.96.200.200:80".parse()?)?;

    let mut later = object("networking.k8s.io/v1", "ServiceCIDR", "", "later");
    later["spec"] = json!({"cidrs": ["10.97.0.0/16"]});
    apply(&cluster.control, std::slice::from_ref(&later))?;
    guarded(&cluster, &home, "10.97.0.0/16", true)?;
    // What its controller says.
    let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    merge(
        &cluster.control,
        &later,
        &json!({"status": {"conditions": [ready]}}),
    )?;
    let mut web = service("shop", "later", "web");
    web["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    web["spec"]["clusterIP"] = LATER.into();
    // The allocator learns of the subnet in its own time.
    eventually("a Service gets an address of the new subnet", || {
        let applied = apply(&cluster.control, std::slice::from_ref(&web));
        Ok(applied.map_err(|error| format!("{error:#}")))
    })?;
    let to = SocketAddr::new(LATER.parse()?, 80);
    cluster.reaches("client", to, &["web-1", "web-2"])?;

    delete(&cluster.control, &[web])?;
    cluster.is_denied("client", to)?;
    delete(&cluster.control, &[later])?;
    guarded(&cluster, &home, "10.97.0.0/16", false)?;
    agent.ensure_running()
}

/// Waits until a subnet is in the maps, or is not.
fn guarded(cluster: &Cluster, home: &Home, subnet: &str, wanted: bool) -> Result<()> {
    eventually(&format!("{subnet} is in the maps: {wanted}"), || {
        let dump = cluster.dump(home)?["source"].to_string();
        Ok(if dump.contains(subnet) == wanted {
            Ok(())
        } else {
            Err(dump)
        })
    })
}
