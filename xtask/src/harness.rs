//! `cargo xtask demo | bench | cluster | conformance`: programs of the test crate, run with the release agent and its kernel programs.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::build::{self, OBJECT_ENV, Object};
use crate::toolchain::Toolchain;
use crate::{image, setup, workspace};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Leave the demo up for playing; it says how to take it down
    #[arg(long)]
    keep: bool,
    /// Detach the programs after starting: expectations must then fail, and the exit code is 1
    #[arg(long)]
    sabotage: bool,
    /// Further arguments of the demo, after `--`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// datapath, forward, flows, changes, policies, scrape or services, and what they take; `cargo xtask bench help` explains it
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "WHAT",
        default_value = "datapath"
    )]
    rest: Vec<String>,
}

/// What `cargo xtask cluster` takes.
#[derive(clap::Args)]
pub(crate) struct Cluster {
    /// up, down, status, shell or load, and what they take; `cargo xtask cluster help` explains it
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND",
        required = true
    )]
    rest: Vec<String>,
}

/// What `cargo xtask conformance` takes.
#[derive(clap::Args)]
pub(crate) struct Conformance {
    /// services, then options: --cni ptp|bridge|bridge-nf|vxlan|flannel, --procs N, --peer-again
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SUITE",
        required = true
    )]
    rest: Vec<String>,
}

/// Builds, then compares Weir with kube-proxy by upstream's own specs.
pub(crate) fn conformance(options: &Conformance) -> Result<ExitCode> {
    let command = ["conformance".to_owned()].into_iter();
    run_built(
        "weir-cluster",
        command.chain(options.rest.iter().cloned()),
        &for_clusters()?,
    )
}

/// What clusters run, with the tools they are made with installed.
fn for_clusters() -> Result<Vec<(&'static str, PathBuf)>> {
    say_missing(&setup::tools());
    under_test(&setup::toolchain()?)
}

fn say_missing(missing: &[String]) {
    for tool in missing {
        eprintln!("setup: missing: {tool}");
    }
}

/// What is tested is what ships: the agent of the image, and the image. Without a compiler for that, the agent of this machine.
pub(crate) fn under_test(toolchain: &Toolchain) -> Result<Vec<(&'static str, PathBuf)>> {
    let Some(built) = image::local(toolchain)? else {
        let (object, agent) = build::release(toolchain)?;
        return Ok(vec![(OBJECT_ENV, object), ("WEIR_BINARY", agent)]);
    };
    Ok(vec![
        (OBJECT_ENV, built.object),
        ("WEIR_BINARY", built.binary),
        ("WEIR_IMAGE", built.archive),
    ])
}

/// Builds, then runs the program for clusters. What needs no agent does not wait for one to be built.
pub(crate) fn cluster(options: &Cluster) -> Result<ExitCode> {
    let up = options.rest.first().is_some_and(|command| command == "up");
    if !up {
        // Built with what `up` was built with, so that it is not built again.
        let object = build::finished(Object::Release).map(|object| (OBJECT_ENV, object));
        return run_built(
            "weir-cluster",
            options.rest.iter().cloned(),
            object.as_slice(),
        );
    }
    run_built(
        "weir-cluster",
        options.rest.iter().cloned(),
        &for_clusters()?,
    )
}

/// Builds, then runs the demo.
pub(crate) fn demo(options: &Demo) -> Result<ExitCode> {
    let flags = [(options.keep, "--keep"), (options.sabotage, "--sabotage")];
    let flags = flags
        .into_iter()
        .filter(|(given, _)| *given)
        .map(|(_, flag)| flag.to_owned());
    run("weir-demo", flags.chain(options.rest.iter().cloned()))
}

/// Builds, then runs the benchmarks.
pub(crate) fn bench(options: &Bench) -> Result<ExitCode> {
    let arguments = options.rest.iter().cloned();
    if options.rest[0] == "services" {
        // Clusters run the image.
        return run_built("weir-bench", arguments, &for_clusters()?);
    }
    run("weir-bench", arguments)
}

/// With the release agent and its kernel programs, on nodes of network namespaces.
fn run(binary: &str, arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    say_missing(&setup::namespaces());
    let (object, agent) = build::release(&setup::toolchain()?)?;
    run_built(
        binary,
        arguments,
        &[(OBJECT_ENV, object), ("WEIR_BINARY", agent)],
    )
}

/// A person watches these and may stop them, so they are not bounded in time, and have the terminal.
fn run_built(
    binary: &str,
    arguments: impl Iterator<Item = String>,
    environment: &[(&str, PathBuf)],
) -> Result<ExitCode> {
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "run",
            "--quiet",
            "--package",
            "weir-tests",
            "--bin",
            binary,
            "--",
        ])
        .args(arguments);
    cargo
        .envs(environment.iter().map(|(name, path)| (name, path)))
        .stdin(Stdio::inherit());
    let status = cargo
        .status()
        .with_context(|| format!("starting {binary}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
