//! Agents come and go, the API server too; packets do not notice.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::lab::{Lab, agent};
use weir_tests::netns::Place;
use weir_tests::probe::{EchoServer, Load, Outcome, Probe};

use crate::fixture::{agent_on, cluster, eventually, pod, start};

/// The port of the servers.
const PORT: u16 = 8080;

/// A release that is not there yet.
const NEXT: &str = "weir:next";

/// A Service of one server on each node, and a policy that lets in whom it is for.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: stable}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports:
    - {name: tcp, protocol: TCP, port: 80, targetPort: 8080}
    - {name: udp, protocol: UDP, port: 80, targetPort: 8080}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [client-node1, client-node2]}]}}]
---
";

/// Servers and clients; the servers' threads end before the cluster does.
struct Traffic {
    _servers: Vec<EchoServer>,
    targets: [(&'static str, Probe); 4],
    clients: Vec<Place>,
    intruder: Place,
}

impl Traffic {
    fn new(lab: &Lab) -> Result<Self> {
        let nodes = ["node1", "node2"];
        let mut objects = OBJECTS.to_owned();
        for node in nodes {
            let server = pod(&format!("server-{node}"), node, "");
            objects += &server.replace(&format!("app: server-{node}"), "app: server");
            objects += &pod(&format!("client-{node}"), node, "");
        }
        objects += &pod("intruder", "node1", "");
        let pods = [
            "server-node1",
            "server-node2",
            "client-node1",
            "client-node2",
            "intruder",
        ];
        start(lab, &objects, &pods)?;
        let place = |name: &str| lab.place("default", name);
        let server =
            |node: &&str| EchoServer::start(&place(&format!("server-{node}"))?, node, PORT);
        let client = |node: &&str| place(&format!("client-{node}"));
        let addresses = lab.kubectl(&[
            "get",
            "service",
            "stable",
            "-o=jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}",
        ])?;
        let (v4, v6) = addresses.split_once(' ').context("two addresses")?;
        let (v4, v6) = (
            (v4.parse::<std::net::Ipv4Addr>()?, 80).into(),
            (v6.parse::<std::net::Ipv6Addr>()?, 80).into(),
        );
        let traffic = Self {
            _servers: nodes.iter().map(server).collect::<Result<_>>()?,
            targets: [
                ("TCP over IPv4", Probe::tcp(v4)),
                ("TCP over IPv6", Probe::tcp(v6)),
                ("UDP over IPv4", Probe::udp(v4)),
                ("UDP over IPv6", Probe::udp(v6)),
            ],
            clients: nodes.iter().map(client).collect::<Result<_>>()?,
            intruder: place("intruder")?,
        };
        traffic.settle()?;
        Ok(traffic)
    }

    /// Waits until both servers answer everywhere: what was just made takes a moment to arrive.
    fn settle(&self) -> Result<()> {
        for client in &self.clients {
            for (name, probe) in &self.targets {
                for server in ["node1", "node2"] {
                    eventually(|| {
                        let outcome = probe.run(client);
                        ensure!(outcome.identity() == Some(server), "{name}: {outcome:?}");
                        Ok(())
                    })?;
                }
            }
        }
        eventually(|| self.refused())
    }

    /// Whom the policy does not let in gets no answer.
    fn refused(&self) -> Result<()> {
        for (name, probe) in &self.targets {
            let outcome = probe
                .timeout(Duration::from_millis(300))
                .run(&self.intruder);
            ensure!(
                outcome == Outcome::Timeout,
                "the intruder by {name}: {outcome:?}"
            );
        }
        Ok(())
    }

    /// New connections and long-lived ones from clients on both nodes while something happens; none may be hurt.
    fn unharmed_by(&self, what: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
        let [first, rest @ ..] = self.clients.as_slice() else {
            anyhow::bail!("no clients");
        };
        let mut load = Load::start(first, &self.targets)?;
        for client in rest {
            load.add(client, &self.targets)?;
        }
        event().with_context(|| what.to_owned())?;
        self.refused().with_context(|| what.to_owned())?;
        let report = load.finish()?;
        let made: u64 = report.connections.iter().map(|(_, it)| it.made()).sum();
        println!("{what}: {made} connections made meanwhile");
        report.ensure_unharmed().with_context(|| what.to_owned())
    }
}

#[test]
fn nobody_notices_releases_outages_and_removal() -> Result<()> {
    let Some(mut lab) = cluster(&[])? else {
        return Ok(());
    };
    let traffic = Traffic::new(&lab)?;
    traffic.unharmed_by("a restart of all agents", || {
        let before = agent_on(&lab, "node1")?;
        roll(&lab, &["restart", "daemonset/weir"])?;
        ensure!(agent_on(&lab, "node1")? != before, "the agent is the same");
        Ok(())
    })?;
    traffic.unharmed_by("a release", || {
        release(&lab)?;
        ensure!(image_on(&lab, "node2")? == NEXT);
        Ok(())
    })?;
    traffic.unharmed_by("its withdrawal", || {
        roll(&lab, &["undo", "daemonset/weir"])?;
        ensure!(image_on(&lab, "node2")? == agent::IMAGE);
        Ok(())
    })?;
    let outage = Duration::from_secs(if weir_tests::soaks() { 600 } else { 45 });
    traffic.unharmed_by("an API server that is away", || {
        lab.control().stop_apiserver()?;
        thread::sleep(outage);
        lab.control().restart_apiserver()
    })?;
    traffic.unharmed_by("the DaemonSet's deletion", || {
        lab.kubectl(&[
            "--namespace=weir-system",
            "delete",
            "daemonset",
            "weir",
            "--wait",
        ])?;
        lab.kubectl(&[
            "--namespace=weir-system",
            "wait",
            "--for=delete",
            "pod",
            "--selector=k8s-app=weir",
            "--timeout=90s",
        ])?;
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    for node in ["node1", "node2"] {
        clean(&lab, node)?;
    }
    // There is no Service any more, and no policy either.
    let (_, probe) = traffic.targets[0];
    let outcome = probe.run(&traffic.clients[0]);
    ensure!(outcome.identity().is_none(), "still served: {outcome:?}");
    Ok(())
}

/// `kubectl rollout`, waited for.
fn roll(lab: &Lab, words: &[&str]) -> Result<()> {
    let rollout = ["--namespace=weir-system", "rollout"];
    lab.kubectl(&[&rollout, words].concat())?;
    rolled(lab)
}

fn rolled(lab: &Lab) -> Result<()> {
    let (namespace, name) = agent::DAEMON_SET;
    lab.wait_daemon_set(namespace, name)
}

/// A release by another name, as operators make them.
fn release(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let full = |name: &str| format!("docker.io/library/{name}");
        let tag = node
            .command("ctr")
            .args(["--namespace=k8s.io", "images", "tag"])
            .args([full(agent::IMAGE), full(NEXT)])
            .output()?;
        ensure!(tag.status.success(), "{tag:?}");
    }
    let images = [format!("init={NEXT}"), format!("weir={NEXT}")];
    lab.kubectl(&[
        "--namespace=weir-system",
        "set",
        "image",
        "daemonset/weir",
        &images[0],
        &images[1],
    ])?;
    rolled(lab)
}

fn image_on(lab: &Lab, node: &str) -> Result<String> {
    lab.kubectl(&[
        "--namespace=weir-system",
        "get",
        "pod",
        &agent_on(lab, node)?,
        "-o=jsonpath={.spec.containers[0].image}",
    ])
}

/// Runs the manifest that takes Weir out of a node, and looks that nothing is left.
fn clean(lab: &Lab, node: &str) -> Result<()> {
    let pinned = lab.node(node)?.entrance().root().join("sys/fs/bpf/weir");
    ensure!(
        fs::read_dir(&pinned)?.next().is_some(),
        "nothing to clean up"
    );
    let mut pods = agent::manifest("cleanup.yaml")?;
    let [cleanup] = pods.as_mut_slice() else {
        anyhow::bail!("one pod is expected in cleanup.yaml");
    };
    let name = format!("weir-cleanup-{node}");
    cleanup["spec"]["nodeName"] = node.into();
    cleanup["metadata"]["generateName"].take();
    cleanup["metadata"]["name"] = name.as_str().into();
    lab.apply(&cleanup.to_string())?;
    lab.kubectl(&[
        "--namespace=weir-system",
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=90s",
        "pod",
        &name,
    ])?;
    ensure!(!pinned.exists(), "{} is left", pinned.display());
    Ok(())
}
