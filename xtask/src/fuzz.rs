//! `cargo xtask fuzz`: looks for inputs with which what `tests/fuzz` says does not hold, guided by the code that they reach.
//!
//! libFuzzer does the search. The compiler in use can instrument code for it by itself, so nothing has to be installed but a C++ compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, minutes};
use crate::workspace;

/// Counters for every branch, and what values are compared with: libFuzzer learns from both.
const INSTRUMENTED: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];
/// Beyond the time asked for: libFuzzer ends its search by itself.
const PATIENCE: u64 = 5;
/// Longest input. Longer ones say nothing new, and slow the search down.
const LONGEST: u32 = 4096;
/// Seconds for one input: more is as bad as a panic.
const SLOWEST: u32 = 20;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to fuzz: a directory of tests/fuzz/corpus [default: each]
    target: Option<String>,
    /// How long to look, for each target
    #[arg(long, value_name = "N", default_value_t = 2)]
    minutes: u64,
    /// Try this input only, as after a finding
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// Looks, and says where the finding is if there is one.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let known = targets()?;
    let chosen: Vec<String> = match &options.target {
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!(
            "no target is called {name:?}; there are: {}",
            known.join(", ")
        ),
        None => known,
    };
    let program = build()?;
    let mut findings = 0;
    for target in chosen {
        let looked = search(&program, &target, options);
        if let Err(error) = &looked {
            findings += 1;
            println!("{target}: {error:#}");
        }
    }
    Ok(if findings == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Names of the targets, which have a corpus each.
fn targets() -> Result<Vec<String>> {
    let directory = corpora();
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn corpora() -> PathBuf {
    workspace::root().join("tests/fuzz/corpus")
}

/// Builds the search with the instrumented agent, apart from all else: the flags are for every crate.
fn build() -> Result<PathBuf> {
    let host = process::ask(workspace::tool("rustc").arg("-vV"));
    let host = host
        .as_deref()
        .and_then(host_of)
        .context("rustc does not tell its host")?;
    let directory = workspace::target().join("fuzz");
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "build",
            "--locked",
            "--package",
            "weir-fuzz",
            "--features",
            "libfuzzer",
        ])
        // Named, so that the flags are not for build scripts and macros, too.
        .args(["--profile", "fuzz", "--target", host, "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"));
    process::run(&mut cargo, minutes(60))
        .context("building the search; it needs a C++ compiler")?;
    Ok(directory.join(host).join("fuzz/weir-fuzz"))
}

/// The host of `rustc -vV`.
fn host_of(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

fn search(program: &Path, target: &str, options: &Options) -> Result<()> {
    let place = workspace::target().join("fuzz");
    // What is found out stays there; the corpus of the repository is only read.
    let found = place.join("corpus").join(target);
    let artifacts = place.join("findings").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = workspace::tool(program);
    command.env("WEIR_FUZZ_TARGET", target);
    if let Some(input) = &options.input {
        let input = fs::canonicalize(input).with_context(|| input.display().to_string())?;
        return run_search(command.arg(input), PATIENCE, "it still fails");
    }
    command
        .arg(format!("-max_total_time={}", options.minutes * 60))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args([&found, &corpora().join(target)]);
    let advice = format!(
        "the input is in {}: mend what it shows, and put it into tests/fuzz/corpus/{target}",
        artifacts.display()
    );
    run_search(&mut command, options.minutes + PATIENCE, &advice)
}

fn run_search(command: &mut Command, limit: u64, advice: &str) -> Result<()> {
    process::run(command, minutes(limit)).with_context(|| advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corpus_is_of_a_target_and_every_target_has_one() {
        let text = fs::read_to_string(workspace::root().join("tests/fuzz/src/lib.rs")).unwrap();
        let named = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("name: \""));
        let mut named: Vec<&str> = named.filter_map(|rest| rest.strip_suffix("\",")).collect();
        named.sort_unstable();
        assert_eq!(targets().unwrap(), named);
    }

    #[test]
    fn the_host_is_read_from_rustc() {
        assert_eq!(
            host_of("rustc 1.96.0\nhost: a-b-c\nrelease: 1"),
            Some("a-b-c")
        );
        assert_eq!(host_of("rustc 1.96.0"), None);
    }
}
