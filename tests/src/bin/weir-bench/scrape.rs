//! What a scrape of a node's metrics takes, however many Services there are, and whether changes wait for it.
//!
//! A real agent, in a namespace of its own, follows manifests; a client asks for `/metrics` as Prometheus does. Changes of an endpoint
//! are timed by the agent itself, with and without somebody who scrapes all the time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::topology::{Shape, TopologySpec};

use crate::table::{median, table};

/// What `weir-bench scrape` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many Services there are, step by step
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    services: Vec<u32>,
    /// How many endpoints each of them has
    #[arg(long, default_value_t = 5)]
    endpoints: u32,
    /// Scrapes of each step
    #[arg(long, default_value_t = 200)]
    scrapes: usize,
    /// Changes of an endpoint, each with and without scrapes around it
    #[arg(long, default_value_t = 20)]
    changes: u32,
}

const NODE: &str = "node1";
/// How long the agent may take to have all Services in the kernel, or a change.
const LIMIT: Duration = Duration::from_secs(60);
/// The Service that changes.
const CHANGED: &str = "changed";

/// Measures step by step, and prints a table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let spec = TopologySpec::new(Shape::Ptp, 1).pod("client", NODE, &[]);
    let mut cluster = Cluster::build(&spec, "auto")?;
    cluster.start_agents()?;
    let mut rows = Vec::new();
    for &services in &args.services {
        cluster.write_raw("50-services.yaml", &population(services, args.endpoints))?;
        cluster.write_raw("60-changed.yaml", &documents(CHANGED, services, 2))?;
        settled(&cluster, services + 1)?;
        rows.push(measure(args, &cluster, services)?);
    }
    let head = [
        "Services",
        "endpoints",
        "samples",
        "KiB",
        "a scrape",
        "p99",
        "a change",
        "a change while somebody scrapes",
    ];
    table(&head, &rows);
    Ok(())
}

fn measure(args: &Args, cluster: &Cluster, services: u32) -> Result<Vec<String>> {
    let mut times = Vec::new();
    let mut text = String::new();
    for _ in 0..args.scrapes {
        let start = Instant::now();
        text = cluster.metrics(NODE)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (mut alone, mut scraped) = (Vec::new(), Vec::new());
    for change in 0..args.changes {
        alone.push(time_change(cluster, services, change % 2 + 1)?);
    }
    for change in 0..args.changes {
        scraped.push(while_scraping(cluster, || {
            time_change(cluster, services, change % 2 + 1)
        })?);
    }
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    let p99 = times.get(times.len() * 99 / 100).copied();
    Ok(vec![
        services.to_string(),
        (services * args.endpoints).to_string(),
        samples.to_string(),
        (text.len() >> 10).to_string(),
        micros(median(&times)),
        micros(p99.unwrap_or_default()),
        micros(median(&alone)),
        micros(median(&scraped)),
    ])
}

/// Seconds from a change of an endpoint until programs read it, as the agent tells in its history.
fn time_change(cluster: &Cluster, services: u32, endpoints: u32) -> Result<f64> {
    let before = last_change(cluster)?;
    cluster.write_raw("60-changed.yaml", &documents(CHANGED, services, endpoints))?;
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        let now = last_change(cluster)?;
        if now["time"] != before["time"] {
            return now["seconds"].as_f64().context("seconds of a change");
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("the agent has not carried out a change in {LIMIT:?}")
}

fn last_change(cluster: &Cluster) -> Result<Value> {
    let answer = cluster.ask(NODE, &["history", "--last", "1", "-o", "json"])?;
    ensure!(answer.code == Some(0), "weir history: {}", answer.stderr);
    let history: Value = serde_json::from_str(&answer.stdout).context("read a history")?;
    Ok(history["items"][0].clone())
}

/// What `work` returns, done while another thread scrapes one time after the other.
fn while_scraping<T>(cluster: &Cluster, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                cluster.metrics(NODE)?;
            }
            anyhow::Ok(())
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        scraper
            .join()
            .map_err(|_| anyhow::anyhow!("a scraper panicked"))??;
        done
    })
}

/// Waits until the kernel has frontends of that many Services.
fn settled(cluster: &Cluster, services: u32) -> Result<()> {
    let start = Instant::now();
    let mut entries = None;
    while start.elapsed() < LIMIT {
        let text = cluster.metrics(NODE)?;
        let line = |line: &str| {
            let value = line.strip_prefix("weir_map_entries{map=\"frontend\"} ")?;
            value.parse::<u32>().ok()
        };
        entries = text.lines().find_map(line);
        if entries.is_some_and(|entries| entries >= services) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("the agent has {entries:?} frontends of {services} Services after {LIMIT:?}")
}

fn population(services: u32, endpoints: u32) -> String {
    (0..services)
        .map(|number| documents(&format!("service-{number}"), number, endpoints))
        .collect()
}

/// A Service and its EndpointSlice.
fn documents(name: &str, number: u32, endpoints: u32) -> String {
    let metadata = json!({"name": name, "namespace": "default"});
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number).to_string();
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    });
    let labels: BTreeMap<_, _> = [("kubernetes.io/service-name", name)].into();
    let first = u32::from(Ipv4Addr::new(10, 200, 0, 0)) + number * endpoints;
    let endpoints = (first..first + endpoints).map(Ipv4Addr::from);
    let endpoints: Vec<_> = endpoints
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"port": 8080, "protocol": "TCP"}],
    });
    format!("---\n{service}\n---\n{slice}\n")
}
