//! `cargo xtask build`: the kernel programs first, then the agent with them inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::process::{self, minutes};
use crate::toolchain::Toolchain;
use crate::{setup, workspace};

const TARGET: &str = "bpfel-unknown-none";
/// Read by the agent's build script: the object that goes into the agent.
pub(crate) const OBJECT_ENV: &str = "WEIR_EBPF_OBJECT";

/// What `cargo xtask build` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print every packet's decision through aya-log; the agent goes to target/bpf-log, never to target/release
    #[arg(long)]
    bpf_log: bool,
    /// Build the agent without optimisation (the kernel programs are always optimised)
    #[arg(long)]
    debug: bool,
}

/// Which object: what ships, or the one that reports each packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    Release,
    Log,
}

impl Object {
    /// The two kinds share what they depend on, and end in files of their own.
    fn file(self) -> &'static str {
        match self {
            Self::Release => "weir.o",
            Self::Log => "weir-log.o",
        }
    }
}

/// Builds the object, then the agent.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let toolchain = setup::toolchain()?;
    let kind = if options.bpf_log {
        Object::Log
    } else {
        Object::Release
    };
    let object = object(&toolchain, kind)?;
    let agent = agent(&object, options)?;
    eprintln!(
        "kernel programs  {}\nagent            {}",
        object.display(),
        agent.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Builds the release object and agent, as the suites, the demo and the benchmarks use them.
pub(crate) fn release(toolchain: &Toolchain) -> Result<(PathBuf, PathBuf)> {
    let object = object(toolchain, Object::Release)?;
    let agent = agent(
        &object,
        &Options {
            bpf_log: false,
            debug: false,
        },
    )?;
    Ok((object, agent))
}

/// The kernel programs of an earlier build, if there was one.
pub(crate) fn finished(kind: Object) -> Option<PathBuf> {
    let object = workspace::target().join("bpf").join(kind.file());
    object.is_file().then_some(object)
}

/// Builds the kernel programs and returns the object's path.
pub(crate) fn object(toolchain: &Toolchain, kind: Object) -> Result<PathBuf> {
    object_of(&workspace::root(), &workspace::target(), toolchain, kind)
}

/// Builds the kernel programs of the repository, or of a copy, at `root`, under `target`.
pub(crate) fn object_of(
    root: &Path,
    target: &Path,
    toolchain: &Toolchain,
    kind: Object,
) -> Result<PathBuf> {
    let target_dir = target.join("bpf");
    let mut cargo = workspace::cargo();
    cargo.current_dir(root).args([
        "build",
        "--package",
        "weir-ebpf",
        "--bin",
        "weir",
        "--release",
        "-Zbuild-std=core",
    ]);
    cargo
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        // The kernel shows them, as line information: they are the same wherever the object was built.
        .args([
            "-Ztrim-paths",
            "--config",
            "profile.release.trim-paths=\"all\"",
        ]);
    if kind == Object::Log {
        cargo.args(["--features", "log"]);
    }
    bpf_environment(&mut cargo, toolchain);
    process::run(&mut cargo, minutes(20)).context("building the kernel programs")?;
    let object = target_dir.join(kind.file());
    let built = fs::read(target_dir.join(TARGET).join("release/weir"))?;
    // Left alone if it is the same, so that the agent is not built again for a new time stamp.
    if fs::read(&object).ok().as_ref() != Some(&built) {
        fs::write(&object, built).with_context(|| format!("writing {}", object.display()))?;
    }
    Ok(object)
}

fn bpf_environment(cargo: &mut Command, toolchain: &Toolchain) {
    // Flags reach `core` too, unlike a profile's: BTF needs its debug info. The encoded form keeps paths with spaces whole.
    let linker = format!("-Clinker={}", toolchain.linker.display());
    let flags = ["-Cdebuginfo=2", &linker, "-Clink-arg=--btf"].join("\x1f");
    cargo
        .env("RUSTC", &toolchain.compiler.rustc)
        // -Zbuild-std on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // bpf-linker optimises the whole program once more; a release profile's own LTO only gets in its way.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        // Set by rustup for the compiler this task was built with, which is another one.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
}

fn agent(object: &PathBuf, options: &Options) -> Result<PathBuf> {
    let target_dir = if options.bpf_log {
        workspace::target().join("bpf-log")
    } else {
        workspace::target()
    };
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "build",
            "--package",
            "weir",
            "--bin",
            "weir",
            "--target-dir",
        ])
        .arg(&target_dir);
    if !options.debug {
        cargo.arg("--release");
    }
    process::run(cargo.env(OBJECT_ENV, object), minutes(40)).context("building the agent")?;
    Ok(target_dir
        .join(if options.debug { "debug" } else { "release" })
        .join("weir"))
}
