//! What kube-proxy's dashboards and tools ask of a node is answered, with figures of a real API server.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::json;

use crate::api::{apply, merge, pod, service};
use crate::cluster::{Cluster, Home, eventually};

#[test]
fn dashboards_of_kube_proxy_go_on_working() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir").metrics_at(10249);
    let mut agent = cluster.start_agent(&home)?;
    let mode = cluster.http(&home, "/proxyMode")?;
    ensure!(mode == "ebpf", "/proxyMode answers {mode:?}");

    let programmed = [4, 6].map(|family| {
        format!(
            r#"kubeproxy_network_programming_duration_seconds_count{{ip_family="IPv{family}"}}"#
        )
    });
    for name in &programmed {
        let before = metric(&cluster, &home, name)?;
        ensure!(before == 0.0, "what was there at start: {name} {before}");
    }
    let queued = r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}"#;
    let queued_before = metric(&cluster, &home, queued)?;
    apply(&cluster.control, &[service("shop", "web", "web")])?;
    cluster.wait_backends(&home, "web", &["web-1", "web-2"])?;
    // What the real controller writes in the slices is when the pod's readiness changed, in whole seconds.
    thread::sleep(Duration::from_secs(1));
    let condition =
        json!({"type": "Ready", "status": "False", "lastTransitionTime": Timestamp::now()});
    merge(
        &cluster.control,
        &pod("shop", "web-2"),
        &json!({"status": {"conditions": [condition]}}),
    )?;
    cluster.wait_backends(&home, "web", &["web-1"])?;
    for name in &programmed {
        eventually(&format!("{name} counts"), || {
            let count = metric(&cluster, &home, name)?;
            Ok(if count >= 1.0 {
                Ok(())
            } else {
                Err(count.to_string())
            })
        })?;
        let sum = metric(&cluster, &home, &name.replace("_count", "_sum"))?;
        ensure!((0.0..60.0).contains(&sum), "{name}: {sum} s");
    }
    for name in [
        r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}"#,
        r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#,
        r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#,
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "process_resident_memory_bytes",
    ] {
        let value = metric(&cluster, &home, name)?;
        ensure!(value >= 1.0, "{name} {value}");
    }
    ensure!(metric(&cluster, &home, queued)? > queued_before, "{queued}");
    let written = queued.replace("_queued", "");
    ensure!(
        metric(&cluster, &home, &written)? >= metric(&cluster, &home, queued)?,
        "everything that was queued is written"
    );
    let server = cluster.control.server().trim_start_matches("https://");
    let requests =
        format!(r#"rest_client_requests_total{{code="200",host="{server}",method="GET"}}"#);
    ensure!(
        metric(&cluster, &home, &requests)? >= 6.0,
        "a watch of each kind"
    );

    // Two Service ports whose only ready endpoint is on another node.
    let condition = json!({"type": "Ready", "status": "True"});
    merge(
        &cluster.control,
        &pod("shop", "web-2"),
        &json!({"status": {"conditions": [condition]}}),
    )?;
    let gap = |family: u8, policy: &str| {
        format!(
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{{ip_family="IPv{family}",traffic_policy="{policy}"}}"#
        )
    };
    merge(
        &cluster.control,
        &pod("shop", "web-1"),
        &json!({"metadata": {"labels": {"app": "off"}}}),
    )?;
    let mut local = service("shop", "web", "web");
    local["spec"]["internalTrafficPolicy"] = "Local".into();
    apply(&cluster.control, &[local])?;
    for family in [4, 6] {
        let name = gap(family, "internal");
        eventually("the Service has no endpoint on the node", || {
            let count = metric(&cluster, &home, &name)?;
            Ok(if count == 2.0 {
                Ok(())
            } else {
                Err(count.to_string())
            })
        })?;
        ensure!(metric(&cluster, &home, &gap(family, "external"))? == 0.0);
    }
    agent.ensure_running()
}

/// The value of a metric with its labels.
fn metric(cluster: &Cluster, home: &Home, name: &str) -> Result<f64> {
    let text = cluster.http(home, "/metrics")?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("{name} is not in {text}"))?;
    Ok(value.parse()?)
}
