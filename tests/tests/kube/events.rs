//! Whoever wrote an object that cannot be used finds out by looking at it.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::netns::Place;

use crate::api::{apply, delete, get, object, service};
use crate::cluster::{Cluster, Home, NODE, eventually};

/// A port for health checks, out of the API server's range for node ports.
const CHECKED: u16 = 32_101;

#[test]
fn what_is_not_served_is_told_on_the_object() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    let mut agent = cluster.start_agent(&home)?;
    let told = event_in(&cluster, "default", NODE, "Starting")?;
    ensure!(
        told["type"] == "Normal" && told["regarding"]["kind"] == "Node",
        "{told}"
    );
    tells_of_a_bad_slice(&cluster)?;

    // Another process has the port that load balancers ask at.
    let node: &Place = cluster.topology.node(NODE).as_ref();
    let taken = node.run(|| TcpListener::bind(("0.0.0.0", CHECKED)))?;
    let mut checked = service("shop", "web", "web");
    checked["spec"]["type"] = "LoadBalancer".into();
    checked["spec"]["externalTrafficPolicy"] = "Local".into();
    checked["spec"]["healthCheckNodePort"] = CHECKED.into();
    apply(&cluster.control, &[checked])?;
    let told = event(&cluster, "web", "FailedToStartServiceHealthcheck")?;
    ensure!(told["reportingInstance"] == NODE, "{told}");
    let status = skipped(&cluster, &home)?;
    ensure!(status.contains(&CHECKED.to_string()), "{status}");
    // Longer than two attempts.
    std::thread::sleep(std::time::Duration::from_secs(11));
    let logs = agent.logs();
    let lines = logs.matches("cannot listen at port").count();
    ensure!(lines == 1, "told {lines} times: {logs}");
    drop(taken);
    eventually("the port is had in the end", || {
        let status = skipped(&cluster, &home)?;
        Ok(if status.contains(&CHECKED.to_string()) {
            Err(status)
        } else {
            Ok(())
        })
    })?;
    agent.ensure_running()
}

/// A slice of names is told of on the slice.
pub(crate) fn tells_of_a_bad_slice(cluster: &Cluster) -> Result<()> {
    let mut names = object("discovery.k8s.io/v1", "EndpointSlice", "shop", "names");
    names["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    names["addressType"] = "FQDN".into();
    names["endpoints"] = json!([{"addresses": ["web.example.com"]}]);
    apply(&cluster.control, std::slice::from_ref(&names))?;
    let told = event(cluster, "names", "Rejected")?;
    let found = get(&cluster.control, &names)?;
    ensure!(
        told["regarding"]["uid"] == found["metadata"]["uid"]
            && told["type"] == "Warning"
            && told["note"]
                .as_str()
                .is_some_and(|note| note.contains("FQDN")),
        "{told} about {found}"
    );
    delete(&cluster.control, &[names])
}

/// Waits for an Event about an object of namespace `shop`; there is one.
fn event(cluster: &Cluster, name: &str, reason: &str) -> Result<Value> {
    event_in(cluster, "shop", name, reason)
}

/// The same in another namespace.
fn event_in(cluster: &Cluster, namespace: &str, name: &str, reason: &str) -> Result<Value> {
    eventually(&format!("{name} has an Event {reason}"), || {
        let list = ["get", "events.events.k8s.io", "-n", namespace, "-o", "json"];
        let output = cluster.control.kubectl().args(list).output()?;
        ensure!(output.status.success(), "{output:?}");
        let list: Value = serde_json::from_slice(&output.stdout)?;
        let all = list["items"].as_array().context("a list has items")?;
        let found = |it: &&Value| it["regarding"]["name"] == name && it["reason"] == reason;
        let found: Vec<_> = all.iter().filter(found).collect();
        Ok(match found[..] {
            [only] => Ok(only.clone()),
            _ => Err(format!("{found:?} of {all:?}")),
        })
    })
}

/// What the agent says it skips.
fn skipped(cluster: &Cluster, home: &Home) -> Result<String> {
    Ok(cluster.ask(home, &["status"])?["rejections"].to_string())
}
