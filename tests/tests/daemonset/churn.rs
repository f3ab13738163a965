//! Whatever changes, for however long: traffic does not notice, and nothing piles up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::http;
use weir_tests::lab::{Lab, agent, pod};
use weir_tests::random::Random;

use crate::fixture::{agent_on, cluster, eventually, eventually_within};
use crate::traffic::Traffic;

/// How long each of both rounds takes; after the first, memory has been used as much as it ever will.
const ROUND: Duration = Duration::from_secs(45);
const SOAK_ROUND: Duration = Duration::from_secs(60 * 60);

/// The most objects of a kind that there are at once.
const OBJECTS: usize = 8;

/// How long a connection by UDP is known after its last packet, and a TCP connection that nobody has ended for the last hours not at all.
const FORGOTTEN: Duration = Duration::from_secs(400);

/// The most connections that a cluster has where nothing happens: of probes, of CoreDNS.
const CONNECTIONS: u64 = 200;

/// What belongs to the churn.
const LABEL: &str = "churn=yes";

/// The node whose agent nobody restarts.
const STEADY: &str = "node1";

/// How many connections to itself an agent may happen to serve.
const FILES: usize = 4;

/// How much an agent's memory may differ between two moments with the same objects, in bytes.
const MEMORY: u64 = 8 << 20;

#[test]
fn nothing_piles_up_under_churn() -> Result<()> {
    let Some(mut lab) = cluster(&[])? else {
        return Ok(());
    };
    let traffic = Traffic::new(&lab)?;
    let round = if weir_tests::soaks() {
        SOAK_ROUND
    } else {
        ROUND
    };
    let before = Usage::of(&lab, STEADY)?;
    let mut random = Random::new(1);
    let mut usage = |lab: &mut Lab| {
        let (steps, pods) = traffic.unharmed_by("churn", || {
            let deadline = Instant::now() + round;
            let (mut steps, mut pods) = (0_u32, 0_u32);
            while Instant::now() < deadline {
                step(lab, &mut random, &mut pods).with_context(|| format!("step {steps}"))?;
                steps += 1;
            }
            println!("{steps} changes, {pods} pods");
            clear(lab)?;
            Ok((steps, pods))
        })?;
        ensure!(steps > 10 && pods > 3, "{steps} changes, {pods} pods only");
        if weir_tests::soaks() {
            forgotten(lab)?;
        }
        // The last deletions take a moment to arrive.
        eventually(|| {
            let usage = Usage::of(lab, STEADY)?;
            let (now, before) = (&usage.maps, &before.maps);
            ensure!(now == before, "entries were {before:#?} and are {now:#?}");
            Ok(usage)
        })
    };
    let first = usage(&mut lab)?;
    let second = usage(&mut lab)?;
    println!("{first:#?}\n{second:#?}");
    ensure!(
        second.agent == before.agent,
        "the agent itself was restarted"
    );
    ensure!(
        second.files <= first.files + FILES && second.memory <= first.memory + MEMORY,
        "the second round left more than the first: {first:#?} {second:#?}"
    );
    Ok(())
}

/// What an agent has in use.
#[derive(Debug, PartialEq)]
struct Usage {
    agent: String,
    /// Entries of each map.
    maps: BTreeMap<String, String>,
    /// Open files.
    files: usize,
    /// Resident memory, in bytes.
    memory: u64,
}

impl Usage {
    fn of(lab: &Lab, node: &str) -> Result<Self> {
        let agent = agent_on(lab, node)?;
        let mut maps = metrics(lab, node)?;
        maps.retain(|name, _| name.starts_with("weir_map_entries"));
        let daemon = lab.node(node)?.daemon("weir")?;
        Ok(Self {
            agent,
            maps,
            files: daemon.files()?,
            memory: daemon.memory()?,
        })
    }
}

/// The metrics of an agent, as text.
fn metrics(lab: &Lab, node: &str) -> Result<BTreeMap<String, String>> {
    let address = lab.node(node)?.addresses().v4;
    let (_, text) = http::get(lab.outside(), (address, 10249).into(), "/metrics")?;
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(samples
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Waits until the agents have forgotten the connections that ended.
fn forgotten(lab: &Lab) -> Result<()> {
    eventually_within(FORGOTTEN, || {
        for node in ["node1", "node2"] {
            let metrics = metrics(lab, node)?;
            let count = metrics.get("weir_conntrack_entries");
            let count: u64 = count.context("a count of connections")?.parse()?;
            ensure!(count < CONNECTIONS, "{node} knows {count} connections");
        }
        Ok(())
    })
}

/// One change, now and then to an agent or the API server. Counts the pods that it makes.
fn step(lab: &mut Lab, random: &mut Random, pods: &mut u32) -> Result<()> {
    let n = random.below(OBJECTS);
    let delete = |kind: &str| {
        let words = [
            "delete",
            kind,
            &format!("churn-{n}"),
            "--ignore-not-found",
            "--wait=false",
        ];
        lab.kubectl(&words).map(drop)
    };
    match random.below(40) {
        // Refused where one of that name is there with other fields, or still on its way out.
        0..10 => {
            let pod = pod(&format!("churn-{n}"), node(random), "");
            *pods += u32::from(lab.apply(&labelled(&pod, random)).is_ok());
            Ok(())
        }
        10..14 => delete("pod"),
        14..22 => lab.apply(&service(n, random)),
        22..26 => delete("service"),
        26..34 => lab.apply(&policy(n, random)),
        34..38 => delete("networkpolicy"),
        38 => match agent_on(lab, "node2") {
            Ok(agent) => lab
                .kubectl(&[
                    "--namespace=weir-system",
                    "delete",
                    "pod",
                    &agent,
                    "--wait=false",
                    "--now",
                ])
                .map(drop),
            // One has just ended, and the next does not run yet.
            Err(_) => Ok(()),
        },
        _ => lab.control().restart_apiserver(),
    }
}

fn node(random: &mut Random) -> &'static str {
    random.pick(&["node1", "node2"])
}

/// Team `0` to `3`: what Services and policies select.
fn team(random: &mut Random) -> usize {
    random.below(4)
}

fn labelled(pod: &str, random: &mut Random) -> String {
    let labels = format!("labels: {{churn: 'yes', team: t{}, ", team(random));
    pod.replace("labels: {", &labels)
}

fn service(n: usize, random: &mut Random) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: churn-{n}, labels: {{churn: 'yes'}}}}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {{team: t{}}}
  ports: [{{name: a, port: 80, targetPort: {}}}, {{name: b, port: 81, protocol: UDP}}]
",
        team(random),
        8000 + random.below(1000)
    )
}

fn policy(n: usize, random: &mut Random) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: churn-{n}, labels: {{churn: 'yes'}}}}
spec:
  podSelector: {{matchLabels: {{team: t{}}}}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{{podSelector: {{matchLabels: {{team: t{}}}}}}}, {{ipBlock: {{cidr: 10.{}.0.0/16}}}}]
      ports: [{{port: {}, endPort: 9999}}]
  egress:
    - to: [{{namespaceSelector: {{}}}}]
",
        team(random),
        team(random),
        random.below(256),
        8000 + random.below(1000)
    )
}

/// Deletes what the churn has made, to the end.
fn clear(lab: &Lab) -> Result<()> {
    lab.kubectl(&[
        "delete",
        "pods,services,networkpolicies",
        "--selector",
        LABEL,
        "--timeout=120s",
    ])?;
    lab.wait_daemon_set(agent::DAEMON_SET.0, agent::DAEMON_SET.1)
}
