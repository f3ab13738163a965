//! The API server goes away and returns: the data plane goes on, and what was missed is made up for.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::probe::{Probe, Stream, StreamOptions};
use weir_tests::process::Process;

use crate::api::{admits, apply, delete, namespace, object, pod, service};
use crate::cluster::{Cluster, Home, NODE, eventually};

/// Kinds that are watched.
const KINDS: [&str; 6] = [
    "Service",
    "EndpointSlice",
    "NetworkPolicy",
    "Pod",
    "Namespace",
    "Node",
];

/// Refuses connections of a node to the API server.
const CUT: &str = "table inet cut { chain output {
    type filter hook output priority filter; tcp dport 6443 reject with tcp reset;
}; }";

#[test]
fn outages_change_nothing_and_what_was_missed_is_made_up_for() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    let mut agent = cluster.start_agent(&home)?;
    let clients = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let policy = admits("web", "web", clients.clone());
    apply(
        &cluster.control,
        &[
            service("shop", "web", "web"),
            service("shop", "doomed", "web"),
            policy.clone(),
        ],
    )?;
    cluster.wait_backends(&home, "web", &["web-1", "web-2"])?;
    cluster.wait_backends(&home, "doomed", &["web-1", "web-2"])?;
    let frontends = cluster.cluster_ips("web")?;
    let frontends: Vec<_> = frontends
        .iter()
        .map(|&ip| SocketAddr::new(ip, 80))
        .collect();
    let web = cluster.sockets("web-1");
    works(&cluster, &frontends, &web)?;
    let maps = cluster.dump(&home)?;

    let streams = streams(&cluster, &frontends)?;
    cluster.control.stop_apiserver()?;
    failures(&mut agent, 0)?;
    unchanged(&cluster, &home, &maps)?;
    works(&cluster, &frontends, &web)?;

    // An agent that starts without an API server leaves everything as it is.
    let log = agent.logs().len();
    agent.restart()?;
    failures(&mut agent, log)?;
    cluster.wait_answers(&mut agent, &home)?;
    let status = cluster.ask(&home, &["status"])?;
    ensure!(
        status["synced"] == false && status["lastSyncSeconds"].is_null(),
        "nothing has been listed: {status}"
    );
    unchanged(&cluster, &home, &maps)?;
    works(&cluster, &frontends, &web)?;

    // Changes right after the return are followed.
    cluster.control.restart_apiserver()?;
    let lab = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lab"}}});
    let both = json!([clients[0], lab]);
    apply(&cluster.control, &[admits("web", "web", both)])?;
    for to in web {
        cluster.reaches("stranger", to, &["web-1"])?;
    }
    apply(&cluster.control, &[policy])?;
    for to in web {
        cluster.is_denied("stranger", to)?;
    }
    cluster.wait_synced(&mut agent, &home)?;
    unchanged(&cluster, &home, &maps)?;

    for stream in streams {
        stream.finish()?.ensure_unharmed()?;
    }

    missed(&mut cluster, &home, &mut agent)?;
    agent.ensure_running()?;
    cluster.control.ensure_running()
}

/// What is deleted while the agent cannot see it is noticed, also when the server no longer knows that it was there.
fn missed(cluster: &mut Cluster, home: &Home, agent: &mut Process) -> Result<()> {
    let apply_later = service("shop", "late", "client");
    apply(&cluster.control, &[namespace("brief")])?;
    let counted: Vec<_> = KINDS
        .iter()
        .map(|kind| cluster.objects(home, kind))
        .collect::<Result<_>>()?;
    let log = agent.logs().len();
    // Events that are under way must not arrive late, so the connections end before the path is closed to new ones.
    cluster.control.stop_apiserver()?;
    let node = cluster.topology.node(NODE).namespace();
    node.nft(CUT)?;
    cluster.control.restart_apiserver()?;
    let gone = [
        object("v1", "Service", "shop", "doomed"),
        admits("web", "web", json!([])),
        pod("shop", "web-2"),
        namespace("brief"),
        object("v1", "Node", "", "node2"),
    ];
    delete(&cluster.control, &gone)?;
    // A new server has no history to tell a watch that goes on where it was.
    cluster.control.restart_apiserver()?;
    apply(&cluster.control, &[apply_later])?;
    node.nft("delete table inet cut")?;

    cluster.wait_backends(home, "web", &["web-1"])?;
    cluster.wait_backends(home, "late", &["client"])?;
    for to in cluster.sockets("web-1") {
        cluster.reaches("stranger", to, &["web-1"])?;
    }
    let changed = |kind: &str| counted[KINDS.iter().position(|other| *other == kind).unwrap_or(0)];
    // One Service of each kind went and came.
    cluster.wait_objects(home, "Service", changed("Service"))?;
    for kind in ["NetworkPolicy", "Pod", "Namespace", "Node"] {
        cluster.wait_objects(home, kind, changed(kind) - 1)?;
    }
    let dump = cluster.backends(home, "shop", "doomed")?;
    ensure!(dump.is_empty(), "{dump:?}");
    let logs = agent.logs();
    let since = logs.get(log..).context("logs only grow")?;
    ensure!(
        since.contains("too old resource version") || since.contains("Expired"),
        "the lists were made anew because the server has no history: {since}"
    );
    Ok(())
}

/// Connections to the Service are answered, and the policy stands.
fn works(cluster: &Cluster, frontends: &[SocketAddr], web: &[SocketAddr]) -> Result<()> {
    for &to in frontends {
        cluster.reaches("client", to, &["web-1"])?;
        cluster.reaches("client", to, &["web-2"])?;
    }
    for &to in web {
        cluster.is_denied("stranger", to)?;
    }
    Ok(())
}

/// A long connection of each protocol through each frontend.
fn streams(cluster: &Cluster, frontends: &[SocketAddr]) -> Result<Vec<Stream>> {
    let client = cluster.topology.pod("client");
    let options = StreamOptions {
        interval: Duration::from_millis(10),
        // On a busy machine an answer may take its time; a lost one never comes.
        stall: Duration::from_secs(10),
    };
    frontends
        .iter()
        .flat_map(|&to| [Probe::tcp(to), Probe::udp(to)])
        .map(|probe| Stream::start(client, probe, options))
        .collect()
}

/// Waits until every watch of the agent has failed, as the log tells from that byte on.
fn failures(agent: &mut Process, from: usize) -> Result<()> {
    eventually("every watch fails", || {
        let logs = agent.logs();
        let since = logs.get(from..).context("logs only grow")?;
        let failed = |kind: &str| {
            since
                .lines()
                .any(|line| line.contains("watch failed") && line.contains(&format!("\"{kind}\"")))
        };
        let silent: Vec<_> = KINDS.iter().filter(|kind| !failed(kind)).collect();
        Ok(if silent.is_empty() {
            Ok(())
        } else {
            Err(format!("not {silent:?}: {since}"))
        })
    })
}

fn unchanged(cluster: &Cluster, home: &Home, maps: &Value) -> Result<()> {
    let now = cluster.dump(home)?;
    ensure!(
        now == *maps,
        "the maps have changed: {now} instead of {maps}"
    );
    Ok(())
}
