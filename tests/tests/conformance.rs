//! Upstream's own specs of Services on a real cluster, with Weir in kube-proxy's place.

// xtask: minutes=45 rare soak

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weir_tests::conformance::{Suite, problems};
use weir_tests::lab::{Cni, LabSpec, Proxy, agent, e2e};
use weir_tests::soaks;

/// What a node of the cluster runs first.
const INIT: &str = env!("CARGO_BIN_EXE_weir-cluster");

/// How many specs run at once: most of the time they wait.
const AT_ONCE: u8 = 8;

/// Runs the specs with Weir, and compares with what is known of kube-proxy.
fn as_good_as_kube_proxy(agent_env: &[&str]) -> Result<()> {
    if let Some(missing) = agent::missing() {
        println!("SKIP: {missing}");
        return Ok(());
    }
    let spec = LabSpec {
        nodes: 3,
        cni: Cni::Ptp,
        proxy: Proxy::Weir,
        agent_env: agent_env.iter().map(|&it| it.to_owned()).collect(),
    };
    e2e::build()?;
    let outcomes = Suite::Services.run(&spec, AT_ONCE, Path::new(INIT))?;
    let reference = Suite::Services.reference()?;
    let problems = problems(&reference.peer(), &outcomes, &reference.exceptions);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    println!("{} specs", outcomes.len());
    Ok(())
}

#[test]
fn weir_passes_what_kube_proxy_passes() -> Result<()> {
    as_good_as_kube_proxy(&[])?;
    // As long as the first, and about little that suites of packets do not ask as well.
    if soaks() {
        as_good_as_kube_proxy(&["WEIR_SOCKET_LB=all"]).context("pods' sockets led to Services")?;
    }
    Ok(())
}
