//! Starting a cluster in the background.

use std::env;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;
use weir_tests::lab::{self, LabSpec};

use crate::state::{Home, tail};

/// How long a cluster may take, built before.
const LIMIT: Duration = Duration::from_secs(600);

const POLL: Duration = Duration::from_millis(100);

pub(crate) fn up(name: &str, spec: &LabSpec) -> Result<()> {
    if let Some(missing) = lab::missing() {
        bail!("{missing}");
    }
    let home = Home::of(name)?;
    if home.exists() {
        ensure!(
            home.try_lock()?.is_some(),
            "cluster {name} is up already; `weir-cluster down --name {name}` ends it"
        );
        home.remove()?;
    }
    home.create()?;
    // Here, where its progress is seen.
    lab::build(spec)?;
    let log =
        File::create(home.log()).with_context(|| format!("create {}", home.log().display()))?;
    let mut serve = Command::new(env::current_exe().context("find this program")?);
    serve
        .args(["serve", "--name", name])
        .args(arguments(spec))
        // Not ended by what ends a terminal's programs.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let begun = Instant::now();
    let mut child = serve.spawn().context("start the cluster's process")?;
    while home.read()?.is_none() {
        if let Some(status) = child.try_wait()? {
            bail!(
                "the cluster did not come up ({status}):\n{}",
                tail(&home.log(), 80)
            );
        }
        if begun.elapsed() > LIMIT {
            child
                .kill()
                .context("stop a cluster that does not come up")?;
            child.wait()?;
            bail!(
                "the cluster is not up after {LIMIT:?}:\n{}",
                tail(&home.log(), 80)
            );
        }
        thread::sleep(POLL);
    }
    println!(
        "cluster {name} is up after {:.0} s; `cargo xtask cluster shell --name {name}` has kubectl",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The command line that gives this.
fn arguments(spec: &LabSpec) -> Vec<String> {
    let value = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let mut arguments = vec![
        format!("--nodes={}", spec.nodes),
        format!("--cni={}", value(spec.cni.to_possible_value())),
        format!("--proxy={}", value(spec.proxy.to_possible_value())),
    ];
    let variables = spec.agent_env.iter();
    arguments.extend(variables.map(|variable| format!("--agent-env={variable}")));
    arguments
}
