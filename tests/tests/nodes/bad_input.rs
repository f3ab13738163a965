//! What is wrong is said clearly, and disturbs nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::weir_binary;
use weir_tests::probe::Protocol::Tcp;

use crate::fixture::{ALL, Fixture, cluster_ips, service, skip, vip};

/// Options that keep a second agent on a node out of the first one's way, but for what a test is about.
const APART: [&str; 4] = [
    "--healthz-address",
    "127.0.0.1:0",
    "--metrics-address",
    "127.0.0.1:0",
];

/// What is wrong; what the agent is started by; options that differ from the first agent's; what it must say.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

#[test]
fn an_agent_that_cannot_start_says_what_to_do() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut fixture = Fixture::new(ALL[0])?;
    let elsewhere = tempfile::tempdir()?;
    let directory = elsewhere.path().display().to_string();
    let no_kernel = [
        "/usr/bin/setpriv",
        "--bounding-set=-sys_admin,-bpf,-perfmon",
        "--",
    ];
    let cases: [Case<'_>; 4] = [
        (
            "a second agent",
            &[],
            &[("--run-dir", &directory)],
            "another weir agent uses",
        ),
        (
            "no BPF file system",
            &[],
            &[("--run-dir", &directory), ("--bpffs", &directory)],
            "is not in a BPF file system: run `mount -t bpf",
        ),
        (
            "no cgroup2",
            &[],
            &[("--run-dir", &directory), ("--cgroup-root", &directory)],
            "is in no cgroup2 hierarchy",
        ),
        (
            "no privileges",
            &no_kernel,
            &[("--run-dir", &directory)],
            "CAP_BPF, CAP_PERFMON",
        ),
    ];
    for (case, wrapper, options, message) in cases {
        if case == "no cgroup2" {
            // Not to be the second one from here on.
            fixture.cluster.agent("node1").kill()?;
        }
        let (code, log) = run(&fixture, wrapper, options)?;
        ensure!(
            code == Some(2) && log.contains(message),
            "{case}: {code:?}\n{log}"
        );
        fixture.ensure_reaches("client", Tcp, vip("near", 80), &["near"])?;
    }
    // What failed in between is in nobody's way.
    fixture.cluster.agent("node1").restart()?;
    fixture.cluster.wait_ready("node1")?;
    fixture.cluster.settle()
}

/// Runs another agent on node1 to its end: exit code and log.
fn run(
    fixture: &Fixture,
    wrapper: &[&str],
    options: &[(&str, &str)],
) -> Result<(Option<i32>, String)> {
    let mut arguments = fixture.cluster.agent_args("node1");
    for (option, value) in options {
        let position = arguments.iter().position(|argument| argument == option);
        arguments[position.expect("an option of every agent") + 1] = (*value).to_owned();
    }
    arguments.extend(APART.map(str::to_owned));
    let mut words: Vec<_> = wrapper.iter().map(|&word| word.to_owned()).collect();
    words.push(weir_binary()?.display().to_string());
    words.append(&mut arguments);
    let topology = fixture.cluster.topology();
    let before =
        std::fs::read_to_string(topology.node("node1").agent_log("weir")).unwrap_or_default();
    let program = words.remove(0);
    let mut agent = topology.spawn_agent("node1", Path::new(&program), words)?;
    let status = agent
        .wait(Duration::from_secs(10))
        .with_context(|| format!("{options:?}"))?;
    let log = agent.logs();
    Ok((
        status.code(),
        log.strip_prefix(&before).unwrap_or(&log).to_owned(),
    ))
}

/// Each of these objects cannot be used, for the reason after its name.
const BAD: &str = "
apiVersion: v1
kind: Service
metadata: {name: port-of-zero, namespace: default}
spec: {clusterIP: 10.96.1.90, selector: {app: near}, ports: [{port: 0}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: invalid-cidr, namespace: default}
spec: {podSelector: {matchLabels: {app: nobody}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}
---
apiVersion: networking.k8s.io/v9
kind: NetworkPolicy
metadata: {name: unknown-version, namespace: default}
spec: {podSelector: {matchLabels: {app: nobody}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: of-names, namespace: default, labels: {kubernetes.io/service-name: near}}
addressType: FQDN
endpoints: [{addresses: [example.com]}]
";

#[test]
fn bad_objects_are_named_and_harm_no_others() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut fixture = Fixture::new(ALL[0])?;
    fixture.cluster.write_raw("90-bad.yaml", BAD)?;
    fixture
        .cluster
        .write_raw("91-broken.yaml", "kind: Service\nmetadata: [\n")?;
    // A good one among them.
    fixture.apply("good.yaml", &service("good", "app", "far", 41))?;
    let good = cluster_ips(41).map(|ip| (ip, 80).into());
    fixture.ensure_reaches("client", Tcp, good, &["far"])?;
    fixture.ensure_reaches("client", Tcp, vip("near", 80), &["near"])?;
    let status = fixture.cluster.status("node1")?;
    let rejections = status["rejections"].to_string();
    for name in [
        "port-of-zero",
        "invalid-cidr",
        "unknown-version",
        "of-names",
        "91-broken.yaml",
    ] {
        ensure!(
            rejections.contains(name),
            "{name} is not among {rejections}"
        );
    }
    // A file that breaks keeps its last good content.
    fixture
        .cluster
        .write_raw("good.yaml", "apiVersion: v1\nkind: Service\nmetadata: {")?;
    fixture.cluster.settle()?;
    fixture.ensure_reaches("client", Tcp, good, &["far"])?;
    let status = fixture.cluster.status("node1")?;
    ensure!(
        status["rejections"].to_string().contains("good.yaml"),
        "{}",
        status["rejections"]
    );
    Ok(())
}
