//! What an agent makes of a foreign hand in its maps.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_common::abi::{LAYOUT, control};
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

/// Words of the control array by which programs go, and where they are.
const WORDS: [(&str, u32); 7] = [
    ("selected", control::SELECTED),
    ("version", control::VERSION),
    ("epoch", control::EPOCH),
    ("sample", control::SAMPLE),
    ("reset_gone", control::RESET_GONE),
    ("taking_over", control::TAKING_OVER),
    ("foreign_sources", control::FOREIGN_SOURCES),
];

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

/// What is changed by a foreign hand.
enum Damage {
    /// An element of a map.
    Map(&'static str),
    /// A word of the control array.
    Word(u32),
}

/// The bytes of a key or value.
fn bytes(value: &Value) -> Vec<String> {
    let bytes = value.as_array().into_iter().flatten();
    let bytes = bytes.filter_map(|byte| byte.as_str().map(str::to_owned));
    bytes.collect()
}

/// The same as bpftool takes them.
fn hex(bytes: &[String]) -> Vec<String> {
    bytes.iter().map(|byte| byte[2..].to_owned()).collect()
}

/// Removes every element of a map.
fn empty_map(fixture: &Fixture, map: &str) -> Result<()> {
    let pin = pin(fixture, map)?;
    let pin = pin.to_str().context("a path")?;
    let elements = bpftool(&["map", "dump", "pinned", pin])?;
    for element in elements.as_array().context("elements")? {
        let key = hex(&bytes(&element["key"]));
        let mut arguments = vec!["map", "delete", "pinned", pin, "key", "hex"];
        arguments.extend(key.iter().map(String::as_str));
        bpftool(&arguments)?;
    }
    Ok(())
}

/// Changes a byte of an element that is in use.
fn damage_map(fixture: &Fixture, map: &str) -> Result<()> {
    let pin = pin(fixture, map)?;
    let pin = pin.to_str().context("a path")?;
    let elements = bpftool(&["map", "dump", "pinned", pin])?;
    for element in elements.as_array().context("elements")? {
        let (key, mut value) = (bytes(&element["key"]), bytes(&element["value"]));
        let is_set = value.iter().any(|byte| byte != "0x00");
        if !is_set && map != "source" {
            continue;
        }
        value[0] = if value[0] == "0x55" { "0xaa" } else { "0x55" }.to_owned();
        let mut arguments = vec!["map", "update", "pinned", pin, "key", "hex"];
        let (key, value) = (hex(&key), hex(&value));
        arguments.extend(key.iter().map(String::as_str));
        arguments.extend(["value", "hex"]);
        arguments.extend(value.iter().map(String::as_str));
        bpftool(&arguments)?;
        return Ok(());
    }
    bail!("map {map} holds nothing")
}

/// Changes the lowest bit of a word of the control array.
fn damage_word(fixture: &Fixture, index: u32) -> Result<()> {
    let pin = pin(fixture, "control")?;
    let pin = pin.to_str().context("a path")?;
    let key = index.to_ne_bytes().map(|byte| byte.to_string());
    let mut arguments = vec!["map", "lookup", "pinned", pin, "key"];
    arguments.extend(key.iter().map(String::as_str));
    let found = bpftool(&arguments)?;
    let low = found["value"][0].as_str().context("a byte")?;
    let low = u8::from_str_radix(low.trim_start_matches("0x"), 16)? ^ 1;
    let value = u64::from(low).to_le_bytes().map(|byte| byte.to_string());
    arguments[1] = "update";
    arguments.push("value");
    arguments.extend(value.iter().map(String::as_str));
    bpftool(&arguments)?;
    Ok(())
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
        let damages = MAPS
            .iter()
            .map(|map| (format!("{map}: "), Damage::Map(map)));
        let words = WORDS.iter();
        let words = words.map(|(name, index)| (format!("control: {name} "), Damage::Word(*index)));
        for (name, damage) in damages.chain(words) {
            match damage {
                Damage::Map(map) => damage_map(&fixture, map)?,
                Damage::Word(index) => damage_word(&fixture, index)?,
            }
            let answer = fixture.cluster.ask("node1", &["audit"])?;
            let named = answer.stdout.contains(&format!("\nmap {name}"));
            ensure!(answer.code == Some(1) && named, "{name}: {answer:?}");
            wait_until_whole(&fixture, &name)?;
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

/// What `weir explain` says of a connection to `near`, and its exit code.
fn explained(fixture: &Fixture, source: &str) -> Result<(Option<i32>, String)> {
    let question = ["explain", source, "default/near:8080"];
    let answer = fixture.cluster.ask("node1", &question)?;
    Ok((answer.code, answer.stdout))
}

#[test]
fn an_explanation_tells_what_the_node_holds_and_has_seen() -> Result<()> {
    each(&[ALL[0]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("objects.yaml", &objects())?;
        fixture.ensure_reaches("client", Tcp, fixture.server("near"), &["near"])?;
        fixture.ensure_silence("other", Tcp, fixture.server("near"))?;

        let (code, text) = explained(&fixture, "default/client")?;
        let tells = [
            "node1: its maps say the same (4 verdicts), and its programs do it (4 packets tried)",
            " tracked, ",
        ];
        let tells_all = tells.iter().all(|words| text.contains(words));
        ensure!(code == Some(0) && tells_all, "{text}");
        let (code, text) = explained(&fixture, "default/other")?;
        let tells = [
            "node1: its maps say the same (4 verdicts), and its programs do it (4 packets tried)",
            " not let through, the last:",
            " dropped ingress TCP default/other:",
            " policy_denied default/near",
        ];
        let tells_all = tells.iter().all(|words| text.contains(words));
        ensure!(code == Some(1) && tells_all, "{text}");

        // What the node has seen counts where a change is reviewed, too.
        let directory = tempfile::tempdir()?;
        let proposed = directory.path().join("near.yaml");
        let file = proposed.to_str().context("a path")?;
        for (app, code, cut) in [("client", 0, false), ("somebody", 1, true)] {
            fs::write(
                &proposed,
                objects().replace("app: client", &format!("app: {app}")),
            )?;
            let review = fixture.cluster.ask("node1", &["check", "-f", file])?;
            let words = "in-use: default/client does not reach default/near at TCP 8080 any more: ";
            ensure!(review.code == Some(code), "{review:?}");
            ensure!(review.stdout.contains(words) == cut, "{review:?}");
            ensure!(
                !review.stdout.contains("default/other does not reach"),
                "{review:?}"
            );
        }

        let metrics = fixture.cluster.metrics("node1")?;
        let drops = "weir_workload_flows_total{source=\"default/other\",destination=\"default/near\",verdict=\"dropped\",reason=\"policy_denied\",policy=\"default/near\"} ";
        ensure!(metrics.contains(drops), "{metrics}");

        empty_map(&fixture, "endpoint")?;
        let (code, text) = explained(&fixture, "default/client")?;
        let tells = [
            "Warning: node node1 has it otherwise",
            "default/near ingress from ",
            ": not in the maps, so not judged; the objects allow it",
        ];
        let tells_all = tells.iter().all(|words| text.contains(words));
        ensure!(code == Some(1) && tells_all, "{text}");
        wait_until_whole(&fixture, "endpoint")?;
        let (code, text) = explained(&fixture, "default/client")?;
        ensure!(code == Some(0) && text.contains("say the same"), "{text}");
        Ok(())
    })
}
