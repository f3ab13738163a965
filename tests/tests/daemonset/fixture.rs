//! A cluster of two nodes with servers and clients in pods.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weir_tests::lab::{Cni, Lab, LabSpec, Proxy, agent};

/// The program that begins each node.
const INIT: &str = env!("CARGO_BIN_EXE_weir-cluster");

/// How long what should happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Two nodes, served by Weir; nothing, and says so, where this machine can have none.
pub(crate) fn cluster(environment: &[&str]) -> Result<Option<Lab>> {
    cluster_of(2, environment)
}

/// The same of as many nodes.
pub(crate) fn cluster_of(nodes: u8, environment: &[&str]) -> Result<Option<Lab>> {
    if let Some(missing) = agent::missing() {
        println!("SKIP: {missing}");
        return Ok(None);
    }
    let spec = LabSpec {
        nodes,
        cni: Cni::Ptp,
        proxy: Proxy::Weir,
        agent_env: environment.iter().map(|&it| it.to_owned()).collect(),
    };
    let lab = Lab::start(&spec, Path::new(INIT))?;
    // The controller that makes it is not asked to hurry.
    eventually(|| lab.kubectl(&["get", "serviceaccount", "default"]).map(drop))?;
    Ok(Some(lab))
}

/// Tries until it works.
pub(crate) fn eventually<T>(attempt: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_within(PATIENCE, attempt)
}

/// The same for what takes longer.
pub(crate) fn eventually_within<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Err(error) if Instant::now() > deadline => {
                bail!("not even after {limit:?}: {error:#}")
            }
            Err(_) => thread::sleep(Duration::from_millis(250)),
            Ok(done) => return Ok(done),
        }
    }
}

/// The agent's pod on a node.
pub(crate) fn agent_on(lab: &Lab, node: &str) -> Result<String> {
    let name = lab.kubectl(&[
        "--namespace=weir-system",
        "get",
        "pods",
        "--selector=k8s-app=weir",
        &format!("--field-selector=spec.nodeName={node},status.phase=Running"),
        "-o=jsonpath={.items[*].metadata.name}",
    ])?;
    (!name.is_empty() && !name.contains(' '))
        .then_some(name.clone())
        .with_context(|| format!("agents on {node}: {name:?}"))
}
