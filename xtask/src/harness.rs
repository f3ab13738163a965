//! `cargo xtask demo | bench`: programs of the test crate, run with the release agent and its kernel programs.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::build::{self, OBJECT_ENV};
use crate::{setup, workspace};

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
    /// Further arguments of the benchmark, after `--`
    #[arg(last = true)]
    rest: Vec<String>,
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
    run("weir-bench", options.rest.iter().cloned())
}

/// A person watches these and may stop them, so they are not bounded in time, and have the terminal.
fn run(binary: &str, arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let (object, agent) = build::release(&setup::toolchain()?)?;
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
        .env(OBJECT_ENV, object)
        .env("WEIR_BINARY", agent)
        .stdin(Stdio::inherit());
    let status = cargo
        .status()
        .with_context(|| format!("starting {binary}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
