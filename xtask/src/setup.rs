//! `cargo xtask setup`: what is needed gets found or installed; each step says what it does and ends in bounded time.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, minutes};
use crate::toolchain::{self, Facts, LINKER_VERSION, Toolchain, Way, choose};
use crate::workspace;

const DENY_VERSION: &str = "0.20.2";
/// A rustup without a server waits for ever.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// A program, by name or path, and its Debian package.
type Tool = (&'static str, &'static str);

/// What nodes that are network namespaces are made with.
const NAMESPACES: [Tool; 2] = [("ip", "iproute2"), ("nft", "nftables")];
/// What the suites and clusters run besides.
const SUITES: [Tool; 9] = [
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("bpftool", "bpftool"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("runc", "runc"),
    ("debootstrap", "debootstrap"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];
/// Builds the Kubernetes of the suites; Debian 12's own is too old to fetch the right one itself.
const GO_AT_LEAST: (u32, u32) = (1, 26);

/// Everything: the BPF toolchain and the tools of the suites.
pub(crate) fn everything() -> Result<ExitCode> {
    let toolchain = toolchain()?;
    eprintln!(
        "compiler  {} (LLVM {})",
        toolchain.compiler.rustc.display(),
        toolchain.compiler.llvm
    );
    eprintln!("linker    {} {LINKER_VERSION}", toolchain.linker.display());
    let missing = tools();
    for note in &missing {
        eprintln!("missing   {note}");
    }
    Ok(if missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The toolchain of the kernel programs, installed if need be.
///
/// # Errors
/// No way is open from here; the error says what a person has to install.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let mut tried: Vec<Way> = Vec::new();
    let mut apt_failed = false;
    loop {
        let mut facts = Facts::find();
        facts.rustup &= !tried.contains(&Way::AddRustSrc);
        facts.apt &= !apt_failed;
        let way = choose(&facts);
        if tried.contains(&way) {
            bail!("setup went well but changed nothing ({way:?}, found {facts:?})");
        }
        match &way {
            Way::Ready(toolchain) => return Ok(toolchain.clone()),
            Way::AddRustSrc => {
                said(process::run(&mut add_rust_src(), RUSTUP_LIMIT));
            }
            Way::Install(packages) => apt_failed = !said(install(packages)),
            Way::BuildLinker { llvm } => build_linker(*llvm)?,
            Way::Missing(what) => bail!("missing: {what}"),
        }
        tried.push(way);
    }
}

/// Installs what the suites and clusters run as far as that is possible; returns what is still missing.
pub(crate) fn tools() -> Vec<String> {
    let mut missing = installed(&[&NAMESPACES[..], &SUITES[..]].concat());
    if !go_is_new_enough() {
        let (major, minor) = GO_AT_LEAST;
        missing.push(format!(
            "go {major}.{minor} or newer, from https://go.dev/dl: it builds the suites' Kubernetes"
        ));
    }
    missing
}

/// The same of what network namespaces alone need.
pub(crate) fn namespaces() -> Vec<String> {
    installed(&NAMESPACES)
}

/// Installs what is not there; returns what still is not.
fn installed(tools: &[Tool]) -> Vec<String> {
    let absent = || tools.iter().filter(|(command, _)| find(command).is_none());
    let packages: Vec<String> = absent().map(|(_, package)| (*package).to_owned()).collect();
    if !packages.is_empty() && toolchain::can_install() {
        said(install(&packages));
    }
    absent()
        .map(|(command, package)| format!("{command} (Debian package {package})"))
        .collect()
}

/// cargo-deny, built once.
///
/// # Errors
/// It is not there and cannot be built.
pub(crate) fn deny() -> Result<PathBuf> {
    let root = workspace::cache().join("cargo-deny").join(DENY_VERSION);
    let cached = root.join("bin/cargo-deny");
    let version = |program: &PathBuf| process::ask(Command::new(program).arg("--version"));
    let found = [Some(cached.clone()), which::which("cargo-deny").ok()]
        .into_iter()
        .flatten();
    if let Some(program) = found
        .into_iter()
        .find(|it| version(it).is_some_and(|v| v.ends_with(DENY_VERSION)))
    {
        return Ok(program);
    }
    let mut command = workspace::cargo();
    command
        .args([
            "install",
            "--locked",
            "--quiet",
            "cargo-deny",
            "--version",
            DENY_VERSION,
            "--root",
        ])
        .arg(&root);
    told(&mut command, minutes(30))?;
    Ok(cached)
}

fn add_rust_src() -> Command {
    let mut command = workspace::tool("rustup");
    command.args(["component", "add", "rust-src"]);
    eprintln!(
        "setup: {} (at most {} s)",
        process::describe(&command),
        RUSTUP_LIMIT.as_secs()
    );
    command
}

fn install(packages: &[String]) -> Result<()> {
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args([
                "--quiet=2",
                "-o",
                "DPkg::Lock::Timeout=300",
                "-o",
                "Dpkg::Use-Pty=0",
            ])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // dpkg tells each package's story there; what goes wrong comes on stderr.
            .stdout(Stdio::null());
        command
    };
    // One repository of several that does not answer is no reason to stop.
    said(told(&mut apt(&["update"]), minutes(3)));
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    told(install.args(packages), minutes(15))
}

fn build_linker(llvm: u32) -> Result<()> {
    let prefix = toolchain::llvm_prefix(llvm);
    let mut command = workspace::cargo();
    command
        .args([
            "install",
            "--locked",
            "--quiet",
            "--force",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(toolchain::linker_root())
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix)
        .env("RUSTFLAGS", format!("-L{}", prefix.join("lib").display()));
    told(&mut command, minutes(20)).with_context(|| format!("building bpf-linker with LLVM {llvm}"))
}

/// Runs a step, named first.
fn told(command: &mut Command, limit: Duration) -> Result<()> {
    eprintln!(
        "setup: {} (at most {} min)",
        process::describe(command),
        limit.as_secs() / 60
    );
    process::run(command, limit)
}

/// Whether a step that has an alternative went well; says so if not.
fn said(step: Result<()>) -> bool {
    if let Err(error) = &step {
        eprintln!("setup: {error:#}; trying without it");
    }
    step.is_ok()
}

/// A program on the PATH, or where Debian keeps those of the administrator.
fn find(command: &str) -> Option<PathBuf> {
    let administrators =
        || which::which_in(command, Some("/usr/local/sbin:/usr/sbin:/sbin"), "/").ok();
    which::which(command).ok().or_else(administrators)
}

fn go_is_new_enough() -> bool {
    let version = process::ask(
        Command::new("go")
            .args(["env", "GOVERSION"])
            .current_dir("/"),
    );
    version
        .and_then(|version| go_version(&version))
        .is_some_and(|version| version >= GO_AT_LEAST)
}

fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text
        .strip_prefix("go")?
        .split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_compare_by_number() {
        assert_eq!(go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        assert!(go_version("go1.9").unwrap() < GO_AT_LEAST);
        assert_eq!(go_version("devel +abc"), None);
    }
}
