//! Which way of building the kernel programs is open on this machine.
//!
//! Needed are a rustc with the sources of `core` (the BPF target has no ready-made one) and a bpf-linker whose LLVM reads
//! that rustc's bitcode. [`Facts::find`] looks, [`choose`] decides; nothing here changes the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{process, workspace};

/// The bpf-linker this repository is tested with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// LLVM majors that bpf-linker can be built with.
const LINKER_LLVM: [u32; 3] = [21, 22, 23];
/// Debian's rustc for building browsers: much newer than the release's own, and kept up to date.
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A rustc that has the sources of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
}

/// What builds a BPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// What was found on this machine, and what may still be tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) compiler: Option<Compiler>,
    /// A bpf-linker of the right version that starts.
    pub(crate) linker: Option<PathBuf>,
    /// LLVM majors whose development files are installed.
    pub(crate) llvm: BTreeSet<u32>,
    /// rustup is here and has not refused yet.
    pub(crate) rustup: bool,
    /// apt-get is here, we are root, and it has not failed yet.
    pub(crate) apt: bool,
}

/// The next step towards a toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing is missing.
    Ready(Toolchain),
    /// Let rustup add rust-src to the toolchain in use.
    AddRustSrc,
    /// Install these Debian packages.
    Install(Vec<String>),
    /// Build bpf-linker against this LLVM.
    BuildLinker { llvm: u32 },
    /// Nothing left to try: what a person has to install.
    Missing(String),
}

/// The one decision of `setup`: what is ready is used, the least change to the machine comes first.
pub(crate) fn choose(facts: &Facts) -> Way {
    let Some(compiler) = &facts.compiler else {
        if facts.rustup {
            return Way::AddRustSrc;
        }
        if facts.apt {
            let llvm = llvm_package(LINKER_LLVM[1]);
            return Way::Install(
                DEBIAN_COMPILER
                    .into_iter()
                    .map(str::to_owned)
                    .chain([llvm])
                    .collect(),
            );
        }
        return Way::Missing(format!(
            "a Rust compiler with the sources of `core`: `rustup component add rust-src`, or as root on Debian \
             `apt-get install --no-install-recommends {} {}`",
            DEBIAN_COMPILER.join(" "),
            llvm_package(LINKER_LLVM[1]),
        ));
    };
    if let Some(linker) = &facts.linker {
        return Way::Ready(Toolchain {
            compiler: compiler.clone(),
            linker: linker.clone(),
        });
    }
    // A newer LLVM reads the bitcode of an older one, never the other way round.
    let fitting = |llvm: &&u32| LINKER_LLVM.contains(llvm);
    if let Some(&llvm) = facts.llvm.range(compiler.llvm..).find(fitting) {
        return Way::BuildLinker { llvm };
    }
    let wanted = llvm_package(compiler.llvm);
    if facts.apt {
        return Way::Install(vec![wanted]);
    }
    Way::Missing(format!(
        "bpf-linker {LINKER_VERSION} on the PATH (`cargo install bpf-linker --version {LINKER_VERSION}`), or the \
         development files of LLVM {} to build it with (Debian: {wanted})",
        compiler.llvm
    ))
}

fn llvm_package(major: u32) -> String {
    format!("llvm-{major}-dev")
}

/// Where Debian and apt.llvm.org put an LLVM.
pub(crate) fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// Where `cargo install --root` puts our bpf-linker.
pub(crate) fn linker_root() -> PathBuf {
    workspace::cache().join("bpf-linker").join(LINKER_VERSION)
}

impl Facts {
    /// Looks at the machine; well under a second.
    pub(crate) fn find() -> Self {
        Self {
            compiler: find_compiler(),
            linker: find_linker(),
            llvm: LINKER_LLVM
                .into_iter()
                .filter(|&llvm| llvm_prefix(llvm).join("include/llvm-c").is_dir())
                .collect(),
            rustup: which::which("rustup").is_ok(),
            apt: can_install(),
        }
    }
}

/// Whether Debian packages can be installed from here.
pub(crate) fn can_install() -> bool {
    rustix::process::geteuid().is_root() && which::which("apt-get").is_ok()
}

/// The toolchain in use, else rustup's nightly, else Debian's.
fn find_compiler() -> Option<Compiler> {
    let in_use = process::ask(workspace::tool("rustc").args(["--print", "sysroot"]));
    let nightly =
        || process::ask(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
    let in_use = in_use.map(|sysroot| Path::new(&sysroot).join("bin/rustc"));
    in_use
        .and_then(|rustc| with_sources(&rustc))
        .or_else(|| with_sources(Path::new(&nightly()?)))
        .or_else(|| with_sources(Path::new(DEBIAN_RUSTC)))
}

fn with_sources(rustc: &Path) -> Option<Compiler> {
    let sysroot = process::ask(Command::new(rustc).args(["--print", "sysroot"]))?;
    if !Path::new(&sysroot)
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .exists()
    {
        return None;
    }
    let version = process::ask(Command::new(rustc).arg("-vV"))?;
    Some(Compiler {
        rustc: rustc.to_owned(),
        llvm: llvm_major(&version)?,
    })
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Ours from the cache, else the one on the PATH: of our version, and able to start (its libLLVM may be gone).
fn find_linker() -> Option<PathBuf> {
    let cached = linker_root().join("bin/bpf-linker");
    [Some(cached), which::which("bpf-linker").ok()]
        .into_iter()
        .flatten()
        .find(|linker| {
            let version = process::ask(Command::new(linker).arg("--version"));
            version.is_some_and(|version| version == format!("bpf-linker {LINKER_VERSION}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(llvm: u32) -> Option<Compiler> {
        Some(Compiler {
            rustc: "/r/rustc".into(),
            llvm,
        })
    }

    #[test]
    fn what_is_ready_is_used_though_more_could_be_installed() {
        let linker = Some(PathBuf::from("/l/bpf-linker"));
        let facts = Facts {
            compiler: compiler(22),
            linker,
            rustup: true,
            apt: true,
            ..Facts::default()
        };
        let Way::Ready(toolchain) = choose(&facts) else {
            panic!("{:?}", choose(&facts))
        };
        assert_eq!(toolchain.compiler.rustc, Path::new("/r/rustc"));
        assert_eq!(toolchain.linker, Path::new("/l/bpf-linker"));
    }

    #[test]
    fn rustup_is_asked_before_debian_and_debian_when_rustup_refused() {
        let mut facts = Facts {
            rustup: true,
            apt: true,
            ..Facts::default()
        };
        assert_eq!(choose(&facts), Way::AddRustSrc);
        facts.rustup = false;
        assert_eq!(
            choose(&facts),
            Way::Install(vec![
                "rustc-web".into(),
                "rust-web-src".into(),
                "llvm-22-dev".into()
            ])
        );
    }

    #[test]
    fn without_root_it_says_what_is_missing() {
        let Way::Missing(what) = choose(&Facts::default()) else {
            panic!()
        };
        assert!(
            what.contains("rust-src") && what.contains("apt-get install"),
            "{what}"
        );
        let Way::Missing(what) = choose(&Facts {
            compiler: compiler(23),
            ..Facts::default()
        }) else {
            panic!()
        };
        assert!(
            what.contains("bpf-linker") && what.contains("llvm-23-dev"),
            "{what}"
        );
    }

    #[test]
    fn the_linker_is_built_with_an_llvm_not_older_than_the_compilers() {
        let with = |llvm: &[u32], apt| {
            choose(&Facts {
                compiler: compiler(22),
                llvm: llvm.iter().copied().collect(),
                apt,
                ..Facts::default()
            })
        };
        assert_eq!(with(&[21, 22, 23], true), Way::BuildLinker { llvm: 22 });
        assert_eq!(with(&[21, 23], true), Way::BuildLinker { llvm: 23 });
        assert_eq!(with(&[21], true), Way::Install(vec!["llvm-22-dev".into()]));
        assert!(
            matches!(with(&[21, 99], false), Way::Missing(_)),
            "bpf-linker cannot use LLVM 99"
        );
    }

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        let text = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }
}
