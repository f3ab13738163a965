//! Finds or builds the control plane's programs.
//!
//! They come from the modules in `tests/tools`, pinned by their `go.sum`, so nothing but a Go module proxy is needed.
//! The modules ask for a Go release; an older one (since 1.21) downloads that release itself, unless `GOTOOLCHAIN` says
//! `local`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// The modules, as the crate was compiled.
const KUBERNETES: &str = include_str!("../../tools/kubernetes/go.mod");
const ETCD: &str = include_str!("../../tools/etcd/go.mod");

/// How often a build says that it goes on.
const PROGRESS: Duration = Duration::from_secs(20);

/// The longest a cold build may take on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl, of the same release.
    pub kubectl: PathBuf,
}

/// The programs of the pinned versions: from the cache (`~/.cache/weir/controlplane`), or built into it.
///
/// A first build takes minutes and prints what it does; a second process that asks meanwhile waits for it.
///
/// # Errors
/// There is no Go, or it cannot fetch or build the modules; the error holds what `go` said.
pub fn binaries() -> Result<Binaries> {
    let kubernetes = version(KUBERNETES, "k8s.io/kubernetes")?;
    let etcd = version(ETCD, "go.etcd.io/etcd/server/v3")?;
    let cache = cache_dir()?.join("weir/controlplane");
    let dir = cache.join(format!("kubernetes-{kubernetes}-etcd-{etcd}"));
    if !dir.exists() {
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        // The lock ends with the file, also when this process is killed.
        let lock = cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock()
            .context("wait for another build of the control plane")?;
        if !dir.exists() {
            build(&cache, &dir, kubernetes)?;
        }
    }
    Ok(Binaries {
        etcd: dir.join("etcd"),
        apiserver: dir.join("kube-apiserver"),
        controller_manager: dir.join("kube-controller-manager"),
        kubectl: dir.join("kubectl"),
    })
}

/// Builds everything beside `dir` and gives it that name when it is whole.
fn build(cache: &Path, dir: &Path, kubernetes: &str) -> Result<()> {
    let unfinished = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(cache)?;
    let out = unfinished.path();
    go_build("etcd", "-s -w", out, ".")?;
    // Kubernetes takes its version, which decides what it enables, from the linker.
    let (major, minor) = major_minor(kubernetes)?;
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion={kubernetes} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    );
    go_build("kubernetes", &flags, out, "tool")?;
    fs::rename(unfinished.keep(), dir).with_context(|| format!("finish {}", dir.display()))
}

/// Builds `packages` of a module in `tests/tools` into `out`, at low priority.
fn go_build(module: &str, linker_flags: &str, out: &Path, packages: &str) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools")
        .join(module);
    let errors = tempfile::NamedTempFile::new().context("make a file for go's messages")?;
    let mut go = Command::new("nice");
    go.args([
        "-n",
        "10",
        "go",
        "build",
        "-buildvcs=false",
        "-trimpath",
        "-ldflags",
        linker_flags,
        "-o",
    ])
    .arg(format!("{}/", out.display()))
    .arg(packages)
    .env("CGO_ENABLED", "0")
    .current_dir(&source)
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(errors.reopen()?);
    eprintln!("building {module} for the test control plane; the first time takes minutes");
    let start = Instant::now();
    let mut child = go.spawn().with_context(|| format!("run {go:?}"))?;
    let mut said = start;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("building {module}: {} s so far", start.elapsed().as_secs());
        }
        if start.elapsed() > BUILD_LIMIT {
            child.kill().context("stop a build that hangs")?;
        }
        thread::sleep(Duration::from_millis(100));
    };
    let said = fs::read_to_string(errors.path()).unwrap_or_default();
    ensure!(
        status.success(),
        "building {module} in {} ({status}): {}",
        source.display(),
        said.trim()
    );
    eprintln!("built {module} in {} s", start.elapsed().as_secs());
    Ok(())
}

/// The version of `module` that a go.mod requires, on a line of its own or in a block.
fn version<'a>(go_mod: &'a str, module: &str) -> Result<&'a str> {
    let mut versions = go_mod.lines().filter_map(|line| {
        let mut words = line.trim_start().trim_start_matches("require ").split(' ');
        // A replacement has "=>" there.
        (words.next()? == module)
            .then(|| words.next())
            .flatten()
            .filter(|word| word.starts_with('v'))
    });
    versions
        .next()
        .with_context(|| format!("the go.mod requires no {module}"))
}

fn major_minor(version: &str) -> Result<(&str, &str)> {
    let mut parts = version.trim_start_matches('v').split('.');
    parts
        .next()
        .zip(parts.next())
        .with_context(|| format!("{version} is no version"))
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    Ok(env::home_dir()
        .context("neither XDG_CACHE_HOME nor a home directory is known")?
        .join(".cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_modules() -> Result<()> {
        assert!(version(KUBERNETES, "k8s.io/kubernetes")?.starts_with("v1."));
        assert!(version(ETCD, "go.etcd.io/etcd/server/v3")?.starts_with("v3."));
        let replaced = "replace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)";
        assert!(
            version(replaced, "k8s.io/api").is_err(),
            "a replacement is no requirement"
        );
        assert_eq!(major_minor("v1.36.3")?, ("1", "36"));
        Ok(())
    }
}
