//! Builds the Go programs that suites run, and keeps them by version.
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

/// How often a build says that it goes on.
const PROGRESS: Duration = Duration::from_secs(20);

/// The longest a cold build may take on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// A Go module in `tests/tools`.
pub(crate) struct Module {
    /// Its directory there.
    pub(crate) name: &'static str,
    /// Its `go.mod`, as the crate was compiled.
    pub(crate) go_mod: &'static str,
    /// The requirement whose version is the version of the programs.
    pub(crate) pinned: &'static str,
    /// Whether the programs are made of C too.
    pub(crate) cgo: bool,
}

/// What to build of a module.
pub(crate) enum Part {
    /// Main packages; each makes a program of its name.
    Commands(&'static [&'static str]),
    /// The tests of a package, as a program of this name.
    Tests(&'static str, &'static str),
}

/// Programs that are built and kept together.
pub(crate) struct Set {
    /// Where they are kept, below the cache.
    pub(crate) name: &'static str,
    /// What they are made of.
    pub(crate) parts: &'static [(&'static Module, Part)],
}

/// Kubernetes of the release that everything here is built for.
pub(crate) const KUBERNETES: Module = Module {
    name: "kubernetes",
    go_mod: include_str!("../tools/kubernetes/go.mod"),
    pinned: "k8s.io/kubernetes",
    cgo: false,
};

impl Module {
    /// The pinned version, as `v1.2.3`.
    pub(crate) fn version(&self) -> Result<&'static str> {
        version(self.go_mod, self.pinned)
    }

    /// Builds into `out`, at low priority.
    fn build(&self, part: &Part, out: &Path) -> Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tools")
            .join(self.name);
        let errors = tempfile::NamedTempFile::new().context("make a file for go's messages")?;
        let mut go = Command::new("nice");
        go.args(["-n", "10", "go"]);
        match part {
            Part::Commands(_) => go.args(["build", "-buildvcs=false"]),
            Part::Tests(..) => go.args(["test", "-c"]),
        };
        go.args(["-trimpath", "-ldflags", &self.linker_flags()?, "-o"]);
        match part {
            Part::Commands(packages) => go.arg(format!("{}/", out.display())).args(*packages),
            Part::Tests(name, package) => go.arg(out.join(name)).arg(package),
        };
        go.env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .current_dir(&source)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.reopen()?);
        let name = self.name;
        eprintln!("building programs of {name} for the suites; the first time takes minutes");
        let start = Instant::now();
        let mut child = go.spawn().with_context(|| format!("run {go:?}"))?;
        let mut said = start;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                eprintln!("building {name}: {} s so far", start.elapsed().as_secs());
            }
            if start.elapsed() > BUILD_LIMIT {
                child.kill().context("stop a build that hangs")?;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let said = fs::read_to_string(errors.path()).unwrap_or_default();
        ensure!(
            status.success(),
            "building {name} in {} ({status}): {}",
            source.display(),
            said.trim()
        );
        eprintln!("built {name} in {} s", start.elapsed().as_secs());
        Ok(())
    }

    fn linker_flags(&self) -> Result<String> {
        let strip = "-s -w";
        if self.name != KUBERNETES.name {
            return Ok(strip.to_owned());
        }
        // Kubernetes takes its version, which decides what it enables, from the linker.
        let version = self.version()?;
        let (major, minor) = major_minor(version)?;
        let package = "k8s.io/component-base/version";
        Ok(format!(
            "{strip} -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        ))
    }
}

impl Set {
    /// The versions of the modules, each once: `kubernetes-v1.2.3-etcd-v4.5.6`.
    pub(crate) fn key(&self) -> Result<String> {
        let mut key: Vec<String> = Vec::new();
        for (module, _) in self.parts {
            let version = format!("{}-{}", module.name, module.version()?);
            if !key.contains(&version) {
                key.push(version);
            }
        }
        Ok(key.join("-"))
    }

    /// The directory of the programs, built first where the cache has none.
    ///
    /// A first build takes minutes and prints what it does; a second process that asks meanwhile waits for it.
    ///
    /// # Errors
    /// There is no Go, or it cannot fetch or build the modules; the error holds what `go` said.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        cached(self.name, &self.key()?, |out| {
            self.parts
                .iter()
                .try_for_each(|(module, part)| module.build(part, out))
        })
    }
}

/// The directory `KIND/KEY` of the cache (`~/.cache/weir`); if there is none, `make` fills one, which gets that name when it is whole.
///
/// Other processes that want to fill a directory of the same kind wait meanwhile.
pub(crate) fn cached(
    kind: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache_dir()?.join(kind);
    let dir = cache.join(key);
    if !dir.exists() {
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        // The lock ends with the file, also when this process is killed.
        let lock = cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock()
            .with_context(|| format!("wait for another build of {}", dir.display()))?;
        if !dir.exists() {
            let unfinished = tempfile::Builder::new()
                .prefix("build-")
                .tempdir_in(&cache)?;
            make(unfinished.path())?;
            fs::rename(unfinished.keep(), &dir)
                .with_context(|| format!("finish {}", dir.display()))?;
        }
    }
    Ok(dir)
}

/// Where the project keeps what takes long to make: `~/.cache/weir`, or below `XDG_CACHE_HOME`.
///
/// # Errors
/// There is neither that variable nor a home directory.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => env::home_dir()
            .context("neither XDG_CACHE_HOME nor a home directory is known")?
            .join(".cache"),
    };
    Ok(base.join("weir"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_modules() -> Result<()> {
        assert!(KUBERNETES.version()?.starts_with("v1."));
        let replaced = "replace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)";
        assert!(
            version(replaced, "k8s.io/api").is_err(),
            "a replacement is no requirement"
        );
        assert_eq!(major_minor("v1.36.3")?, ("1", "36"));
        Ok(())
    }

    #[test]
    fn a_set_is_named_by_each_module_once() -> Result<()> {
        const OTHER: Module = Module {
            name: "other",
            go_mod: "require example.org/other v7.8.9\n",
            pinned: "example.org/other",
            cgo: false,
        };
        let set = Set {
            name: "set",
            parts: &[
                (&OTHER, Part::Commands(&["a"])),
                (&OTHER, Part::Commands(&["b"])),
            ],
        };
        assert_eq!(set.key()?, "other-v7.8.9");
        Ok(())
    }
}
