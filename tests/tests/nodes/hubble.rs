//! Hubble's client asks an agent.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::hubble::client;
use weir_tests::netns::run;
use weir_tests::probe::{Mirror, Probe, Protocol::Tcp};
use weir_tests::process::Process;

use crate::ends::wait;
use crate::fixture::{FEW, Fixture, MIRROR, PATIENCE, cluster_ips, each, service, to_mirror};
use crate::followed::first_line;
use crate::isolation::policy;

/// Nobody but root may ask, and a socket that nobody answers any more does not stay. In a soak, which builds it, the real client asks.
#[test]
fn hubbles_client_is_answered() -> Result<()> {
    each(&FEW[..1], |variant| {
        let mut fixture = Fixture::new(variant)?;
        let socket = socket(&fixture);
        let mode = fs::metadata(&socket)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
        if weir_tests::soaks() {
            asks(&mut fixture)?;
        }
        fixture.cluster.agent("node1").terminate(PATIENCE)?;
        ensure!(!socket.exists(), "{} is still there", socket.display());
        Ok(())
    })
}

fn socket(fixture: &Fixture) -> PathBuf {
    let node = fixture.cluster.topology().node("node1");
    node.agent_paths().run.join("hubble.sock")
}

fn asks(fixture: &mut Fixture) -> Result<()> {
    fixture.cluster.replace_agent("node1", &["--flow-ends=1"])?;
    fixture.apply("closed.yaml", &policy("closed", "near", "ingress: []"))?;
    let reflect = service("reflect", "app", "far", 31);
    fixture.apply("reflect.yaml", &to_mirror(&reflect))?;
    let _mirror = Mirror::start(&fixture.place("far"), MIRROR)?;
    let [address, _] = cluster_ips(31);
    let follower = follow(fixture)?;

    Probe::tcp(SocketAddr::new(address, 80))
        .timeout(PATIENCE)
        .transfer(&fixture.place("client"), 1000)?;
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    wait(fixture, "node1", "default/svc/reflect", 1)?;

    let status = hubble(fixture, &["status"])?;
    ensure!(
        status.contains("Ok") && status.contains("Current/Max Flows"),
        "{status}"
    );
    let nodes = hubble(fixture, &["list", "nodes"])?;
    ensure!(
        nodes.contains("node1") && nodes.contains("Connected"),
        "{nodes}"
    );
    let namespaces = hubble(fixture, &["list", "namespaces"])?;
    ensure!(namespaces.contains("default"), "{namespaces}");

    let dropped = flows(
        fixture,
        &[
            "--verdict=DROPPED",
            "--from-pod=default/client",
            "--to-ip=10.0.0.0/8",
        ],
    )?;
    let dropped = dropped.first().context("a drop")?;
    ensure!(
        dropped["destination"]["pod_name"] == "near"
            && dropped["drop_reason_desc"] == "POLICY_DENIED"
            && dropped["ingress_denied_by"][0]["name"] == "closed"
            && dropped["node_name"] == "node1",
        "{dropped}"
    );
    let ended = [
        "--service=default/reflect",
        "--protocol=tcp",
        "--port=8080",
        "--namespace=default",
        "--label=app=far",
    ];
    let port = format!("--port={MIRROR}");
    let ended = flows(
        fixture,
        &ended.map(|it| if it.starts_with("--port") { &port } else { it }),
    )?;
    let ended = ended
        .iter()
        .find(|flow| flow["trace_reason"] == "ESTABLISHED");
    let ended = ended.context("an end")?;
    ensure!(
        ended["source"]["pod_name"] == "client"
            && ended["destination_service"]["name"] == "reflect"
            && ended["l4"]["TCP"]["flags"]["FIN"] == true,
        "{ended}"
    );
    let nobody = flows(fixture, &["--namespace=elsewhere"])?;
    ensure!(nobody.is_empty(), "{nobody:?}");
    // By the mask that it sends for people.
    let shown = hubble(fixture, &["observe", "--last=9", "--print-node-name"])?;
    ensure!(
        shown.contains("default/client")
            && shown.contains("DROPPED")
            && shown.contains("Policy denied"),
        "{shown}"
    );
    let refused = hubble(fixture, &["observe", "--http-path=/x"]);
    let refused = format!("{:#}", refused.err().context("it is answered")?);
    ensure!(refused.contains("filter http_path"), "{refused}");

    // It has come to its socket by now.
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    let seen = first_line(&follower, |line| line["flow"]["verdict"] == "DROPPED")?;
    ensure!(seen["flow"]["source"]["pod_name"] == "client", "{seen}");
    Ok(())
}

/// What the client prints.
fn hubble(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let server = format!("unix://{}", socket(fixture).display());
    let mut command = fixture.place("node1").command(client()?);
    run(command
        .args(arguments)
        .args(["--server", &server, "--timeout=20s"]))
}

/// The flows that it is given.
fn flows(fixture: &Fixture, filter: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["observe", "--last=100", "-o=jsonpb"], filter].concat();
    let lines = hubble(fixture, &arguments)?;
    let lines = lines.lines();
    let flow = |line: &str| -> Result<Value> {
        let mut line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        Ok(line["flow"].take())
    };
    lines.map(flow).collect()
}

/// The client that goes on.
fn follow(fixture: &Fixture) -> Result<Process> {
    let (socket, client, place) = (socket(fixture), client()?, fixture.place("node1"));
    let log = socket.with_extension("log");
    let server = format!("--server=unix://{}", socket.display());
    Process::start("hubble", &log, move || {
        let mut command = place.command(&client);
        command.args(["observe", "--follow", "-o=jsonpb", &server]);
        command
    })
}
