//! A real Prometheus takes what agents tell, the alerts and every panel of the dashboards.
//!
//! Prometheus is Debian's, unpacked into the cache; where apt cannot fetch it the tests say SKIP. That with agents needs root, too.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::cluster::{Cluster, http};
use weir_tests::netns::{Place, run};
use weir_tests::packages::package;
use weir_tests::probe::{EchoServer, Outcome, Probe};
use weir_tests::process::Process;
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, TopologySpec};

/// Where Prometheus answers, in the network namespace of a node.
const LISTENS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// Longest time until it has begun, and has scraped every agent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often agents are scraped. Rates need several scrapes.
const SCRAPES: Duration = Duration::from_secs(1);
const SCRAPES_NEEDED: f64 = 4.0;
/// For what must stay without an answer.
const SILENCE: Duration = Duration::from_millis(400);
const PORT: u16 = 8080;

/// What cannot have an answer here: there is no API server, no load balancer asks, nothing fails, and programs were there before the pods.
const QUIET: [&str; 6] = [
    "Requests to the API server",
    "Broken watches",
    "Objects refused",
    "Foreign changes",
    "Answers to load balancers",
    "Packets to Services that go nowhere",
];

/// A Service, and a policy that lets one of two clients to its endpoint.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.10
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
";

/// A program of Debian's package; `None` where it cannot be had, which is said.
fn program(name: &str) -> Option<PathBuf> {
    match package("prometheus") {
        Ok(files) => Some(files.join("usr/bin").join(name)),
        Err(error) => {
            println!("SKIP: Debian's prometheus cannot be fetched: {error:#}");
            None
        }
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn each_alert_fires_for_what_it_is_about() -> Result<()> {
    let Some(promtool) = program("promtool") else {
        return Ok(());
    };
    run(Command::new(&promtool)
        .args(["check", "rules"])
        .arg(repository("deploy/alerts.yaml")))?;
    run(Command::new(&promtool)
        .args(["test", "rules"])
        .arg(repository("tests/data/prometheus/alerts.yaml")))?;
    Ok(())
}

#[test]
fn every_panel_of_the_dashboards_has_an_answer() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let Some(prometheus) = program("prometheus") else {
        return Ok(());
    };
    let mut cluster = agents()?;
    let place = AsRef::<Place>::as_ref(cluster.topology().node("node1")).clone();
    let directory = tempfile::tempdir()?;
    let targets: Vec<String> = cluster
        .topology()
        .nodes()
        .map(|node| format!("'{}:10249'", node.addresses().v4))
        .collect();
    let config = directory.path().join("prometheus.yaml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: {0}s, evaluation_interval: {0}s}}
rule_files: [{1}]
scrape_configs:
- {{job_name: weir, static_configs: [{{targets: [{2}]}}]}}
",
            SCRAPES.as_secs(),
            repository("deploy/alerts.yaml").canonicalize()?.display(),
            targets.join(", ")
        ),
    )?;
    let arguments = [
        format!("--config.file={}", config.display()),
        format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ),
        format!("--web.listen-address={LISTENS}"),
    ];
    let (inside, log) = (place.clone(), directory.path().join("log"));
    let mut server = Process::start("prometheus", &log, move || {
        let mut command = inside.command(&prometheus);
        command.args(&arguments);
        command
    })?;
    let scraped = format!(
        "min(count_over_time(up{{job=\"weir\"}}[1h])) >= {SCRAPES_NEEDED} and count(up == 1) == {}",
        targets.len()
    );
    server.wait_until(PATIENCE, || {
        query(&place, &scraped).is_ok_and(|answer| !answer.is_empty())
    })?;
    // What is counted between two scrapes has a rate.
    talk(&mut cluster)?;
    let end = Instant::now() + SCRAPES * 3;
    thread::sleep(end.saturating_duration_since(Instant::now()));

    let mut quiet = BTreeSet::from(QUIET);
    let mut empty = Vec::new();
    for file in ["agent", "services", "policies", "flows"] {
        let text = fs::read_to_string(
            repository("deploy/dashboards")
                .join(file)
                .with_extension("json"),
        )?;
        let board: Value = serde_json::from_str(&text)?;
        for panel in board["panels"].as_array().context("panels")? {
            let title = panel["title"].as_str().context("a title")?;
            for target in panel["targets"].as_array().context("targets")? {
                let asked = filled_in(target["expr"].as_str().context("an expression")?);
                let answer = query(&place, &asked).with_context(|| format!("{file}, {title}"))?;
                if answer.is_empty() && !QUIET.contains(&title) {
                    empty.push(format!("{file}, {title}: {asked}"));
                }
                quiet.remove(title);
            }
        }
    }
    ensure!(empty.is_empty(), "nothing is shown by {empty:#?}");
    ensure!(quiet.is_empty(), "no panels are called {quiet:?}");
    let who = query(
        &place,
        r#"weir_workload_flows_total{verdict="dropped",source="default/foe",destination="default/server",policy="default/web"}"#,
    )?;
    ensure!(!who.is_empty(), "a drop has no series");
    let (_, rules) = http::get(&place, LISTENS, "/api/v1/rules")?;
    let wrong = rules.matches("\"health\":\"err\"").count();
    ensure!(wrong == 0 && rules.contains("\"health\":\"ok\""), "{rules}");
    let alerts = query(&place, r#"ALERTS{alertstate="firing"}"#)?;
    ensure!(alerts.is_empty(), "{alerts:?}");
    server.kill()
}

/// Two nodes with agents: a server, and a client whom its policy lets in, and one whom it does not.
fn agents() -> Result<Cluster> {
    let mut spec = TopologySpec::new(Shape::Ptp, 2);
    for (pod, node) in [("server", "node1"), ("friend", "node1"), ("foe", "node2")] {
        spec = spec.pod(pod, node, &[("app", pod)]);
    }
    let mut cluster = Cluster::build(&spec, "auto")?;
    cluster.set_options(&["--metrics-address", "0.0.0.0:10249", "--event-sample", "1"]);
    cluster.apply("objects.yaml", OBJECTS)?;
    cluster.start_agents()?;
    Ok(cluster)
}

/// Connections that policies let through, and that they do not.
fn talk(cluster: &mut Cluster) -> Result<()> {
    let pod = |name: &str| cluster.topology().pod(name);
    let server = pod("server");
    let _echo = EchoServer::start(server, "server", PORT)?;
    let service = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 10), 80));
    let direct = SocketAddr::from((server.addresses().v4, PORT));
    for to in [service, direct] {
        let answered = Probe::tcp(to).timeout(PATIENCE).run(pod("friend").as_ref());
        ensure!(answered.identity() == Some("server"), "{to}: {answered:?}");
        let refused = Probe::tcp(to).timeout(SILENCE).run(pod("foe").as_ref());
        ensure!(refused == Outcome::Timeout, "{to}: {refused:?}");
    }
    Ok(())
}

/// An expression as Grafana asks it, of all nodes and an hour.
fn filled_in(expression: &str) -> String {
    expression
        .replace("$node", ".*")
        .replace("$__rate_interval", "1m")
        .replace("$__range", "1h")
}

/// The series of an answer; a quantile of no observations is one, too.
fn query(place: &Place, expression: &str) -> Result<Vec<Value>> {
    let asked: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", expression)
        .finish();
    let (code, text) = http::get(place, LISTENS, &format!("/api/v1/query?{asked}"))?;
    ensure!(code == 200, "{expression}: {text}");
    let answer: Value = serde_json::from_str(&text)?;
    let series = answer["data"]["result"].as_array().context("a result")?;
    Ok(series.clone())
}
