//! `cargo xtask ci`: what a change must pass, the same here and on a server.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, minutes};
use crate::{layers, setup, test, workspace};

/// Warnings of rustc and clippy are errors here, and only here.
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Good, or why not.
type Step = fn() -> Result<()>;

/// Runs every step up to the first that fails; the last line is the suites' closing line.
pub(crate) fn run() -> Result<ExitCode> {
    let steps: [(&str, Step); 5] = [
        ("fmt", format),
        ("lint-layers", layers),
        ("clippy", clippy),
        ("clippy ebpf", clippy_ebpf),
        ("deny", deny),
    ];
    for (name, step) in steps {
        let begun = Instant::now();
        println!("=== {name}");
        if let Err(error) = step() {
            eprintln!("error: {error:#}");
            println!("FAILED   ci: {name}\n0 passed, 1 failed");
            return Ok(ExitCode::FAILURE);
        }
        println!("=== {name}: good in {:.1} s", begun.elapsed().as_secs_f64());
    }
    test::run(&test::Options::default())
}

fn cargo(args: &[&str], limit: Duration) -> Result<()> {
    process::run(workspace::cargo().args(args), limit)
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], minutes(2)).context("`cargo fmt` puts it right")
}

fn layers() -> Result<()> {
    match layers::problems()?.len() {
        0 => Ok(()),
        found => bail!("{found} found; `cargo xtask lint-layers` lists them"),
    }
}

fn clippy() -> Result<()> {
    let crates = [
        "weir",
        "weir-common",
        "weir-fuzz",
        "weir-oracle",
        "weir-tests",
        "xtask",
    ];
    let mut args = vec!["clippy", "--locked", "--all-targets"];
    args.extend(crates.iter().flat_map(|name| ["--package", name]));
    args.extend(DENY_WARNINGS);
    cargo(&args, minutes(30))
}

/// The kernel programs are linted as code of this machine: clippy exists for the compiler in use only, which may
/// have no sources of `core` for the BPF target. Unwinding is off because there is no std to do it.
fn clippy_ebpf() -> Result<()> {
    for features in ["", "log"] {
        let mut cargo = workspace::cargo();
        cargo.args(["clippy", "--locked", "--package", "weir-ebpf"]);
        cargo.args(["--features", features]).args(DENY_WARNINGS);
        cargo.env("CARGO_PROFILE_DEV_PANIC", "abort");
        process::run(&mut cargo, minutes(10))?;
    }
    Ok(())
}

fn deny() -> Result<()> {
    let program = setup::deny()?;
    let check = |what: &[&str], limit| {
        let mut deny: Command = workspace::tool(&program);
        process::run(deny.args(["--locked", "check"]).args(what), limit)
    };
    check(&["bans", "licenses", "sources"], minutes(3))?;
    // The advisory database lives on a server that not every machine reaches; known holes count where it can be had.
    let mut fetch = workspace::tool(&program);
    match process::run(fetch.args(["--locked", "fetch", "db"]), minutes(1)) {
        Ok(()) => check(&["advisories"], minutes(2)),
        Err(error) => {
            println!("advisories not checked: {error}");
            Ok(())
        }
    }
}
