//! What an agent makes of a foreign hand in its maps.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_common::abi::LAYOUT;
use weir_tests::probe::Protocol::Tcp;

use crate::fixture::{ALL, Fixture, cluster_ips, each, service, vip};

/// Every kind of map that the agent fills.
const MAPS: [&str; 10] = [
    "frontend", "slot", "source", "endpoint", "class", "prefix", "verdict", "range", "backend",
    "device",
];
const PATIENCE: Duration = Duration::from_secs(10);

/// Something for every map: a load balancer that asks where clients come from, and a policy with a block and ports.
fn objects() -> String {
    let balancer = service("balancer", "app", "near", 40).replace(
        "spec:\n",
        "spec:\n  type: LoadBalancer\n  loadBalancerSourceRanges: [10.0.0.0/8]\n",
    ) + "status: {loadBalancer: {ingress: [{ip: 192.0.2.40}]}}\n";
    balancer
        + "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: near, namespace: default}
spec:
  podSelector: {matchLabels: {app: near}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 198.51.100.0/24}}]
    ports: [{port: 8080}]
"
}

/// Runs bpftool; its answer.
fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output()?;
    ensure!(output.status.success(), "bpftool {arguments:?}: {output:?}");
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Where a map that programs on node1 read is pinned.
fn pin(fixture: &Fixture, map: &str) -> Result<PathBuf> {
    let bpffs = &fixture.cluster.topology().node("node1").agent_paths().bpffs;
    let layout = bpffs.join(format!("v{LAYOUT}"));
    let generations = ["gen0", "gen1"].map(|generation| layout.join(generation).join(map));
    let shared = layout.join("maps").join(map);
    let mut places = generations.into_iter().chain([shared]);
    places
        .find(|place| place.exists())
        .with_context(|| format!("no map {map} in {}", layout.display()))
}

/// Changes a byte of an element that is in use.
fn damage(fixture: &Fixture, map: &str) -> Result<()> {
    let pin = pin(fixture, map)?;
    let pin = pin.to_str().context("a path")?;
    let elements = bpftool(&["map", "dump", "pinned", pin])?;
    let bytes = |value: &Value| -> Vec<String> {
        let bytes = value.as_array().into_iter().flatten();
        bytes
            .filter_map(|byte| byte.as_str().map(str::to_owned))
            .collect()
    };
    for element in elements.as_array().context("elements")? {
        let (key, mut value) = (bytes(&element["key"]), bytes(&element["value"]));
        let is_set = value.iter().any(|byte| byte != "0x00");
        if !is_set && map != "source" {
            continue;
        }
        value[0] = if value[0] == "0x55" { "0xaa" } else { "0x55" }.to_owned();
        let mut arguments = vec!["map", "update", "pinned", pin, "key", "hex"];
        let hex = |bytes: &[String]| -> Vec<String> {
            bytes.iter().map(|byte| byte[2..].to_owned()).collect()
        };
        let (key, value) = (hex(&key), hex(&value));
        arguments.extend(key.iter().map(String::as_str));
        arguments.extend(["value", "hex"]);
        arguments.extend(value.iter().map(String::as_str));
        bpftool(&arguments)?;
        return Ok(());
    }
    bail!("map {map} holds nothing")
}

fn wait_until_whole(fixture: &Fixture, map: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = fixture.cluster.ask("node1", &["audit"])?;
        if answer.code == Some(0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "map {map} is not repaired: {answer:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_wrong_entry_in_any_map_is_found_named_and_repaired() -> Result<()> {
    each(&[ALL[0]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("objects.yaml", &objects())?;
        let answer = fixture.cluster.ask("node1", &["audit"])?;
        ensure!(
            answer.code == Some(0) && answer.stdout.contains("no difference"),
            "{answer:?}"
        );
        for map in MAPS {
            damage(&fixture, map)?;
            let answer = fixture.cluster.ask("node1", &["audit"])?;
            let named = answer.stdout.contains(&format!("\nmap {map}: "));
            ensure!(answer.code == Some(1) && named, "{map}: {answer:?}");
            wait_until_whole(&fixture, map)?;
            fixture.ensure_reaches("client", Tcp, vip("near", 80), &["near"])?;
            fixture.ensure_silence("other", Tcp, fixture.server("near"))?;
            fixture.ensure_reaches(
                "client",
                Tcp,
                cluster_ips(40).map(|ip| (ip, 80).into()),
                &["near"],
            )?;
        }
        Ok(())
    })
}
