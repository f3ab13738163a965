//! `cargo xtask image`: the agent as an OCI image, without a container engine.
//!
//! One static binary on an empty base, with the kernel programs inside. The same commit, compiler and zig give the same
//! bytes: paths are trimmed, time stamps are the commit's (or `SOURCE_DATE_EPOCH`), entries are sorted and owned by root.

mod compile;
mod layout;
mod sbom;
mod zig;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand};
use jiff::Timestamp;

use crate::build::{self, Object};
use crate::toolchain::Toolchain;
use crate::{process, setup, workspace};
use layout::Image;
use sbom::Subject;
use zig::Tools;

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Processor architecture of the nodes
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Name of the image [default: weir:VERSION]
    #[arg(long, value_name = "REPOSITORY:TAG")]
    name: Option<String>,
    /// Where the archive goes, its list of contents beside it as .cdx.json [default: target/image/weir-VERSION-ARCH.tar]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Architectures, by the names that images use (GOARCH).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Arch {
    #[default]
    Amd64,
    Arm64,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As compilers call it.
    fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.machine())
    }
}

/// An image, and what it was made of.
pub(crate) struct Built {
    /// The image as an archive.
    pub(crate) archive: PathBuf,
    /// The agent in it.
    pub(crate) binary: PathBuf,
    /// The kernel programs in the agent.
    pub(crate) object: PathBuf,
}

/// Builds what the options ask for.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build(&setup::toolchain()?, &zig::tools(options.arch)?, options)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the image for this machine; nothing, and says so, where there is no compiler for it.
///
/// # Errors
/// A build that fails.
pub(crate) fn local(toolchain: &Toolchain) -> Result<Option<Built>> {
    let arch = if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::Amd64
    };
    let options = Options {
        arch,
        name: None,
        output: None,
    };
    match zig::tools(arch) {
        Ok(tools) => build(toolchain, &tools, &options).map(Some),
        Err(error) => {
            eprintln!("setup: missing: {error:#}; what needs the image is skipped");
            Ok(None)
        }
    }
}

/// Builds, packs, writes.
fn build(toolchain: &Toolchain, tools: &Tools, options: &Options) -> Result<Built> {
    let arch = options.arch;
    let object = build::object(toolchain, Object::Release)?;
    let program = compile::binary(toolchain, tools, arch, &object)?;
    let binary = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;

    let metadata = MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", &arch.target()].map(str::to_owned))
        .exec()?;
    let version = version(&metadata)?;
    let created = created()?;
    let name = full_name(&options.name.clone().unwrap_or(format!("weir:{version}")));
    let archive = Image {
        name: &name,
        architecture: arch.name(),
        created,
        labels: labels(&version, &created),
        program: "weir",
        binary: &binary,
    }
    .archive()?;
    let rustc = process::ask(Command::new(&toolchain.compiler.rustc).arg("--version"));
    let rustc = rustc.context("asking rustc for its version")?;
    let contents = sbom::document(
        &metadata,
        &Subject {
            image: &name,
            created,
            binary: &layout::hex(&binary),
            rust: rustc.split(' ').nth(1).unwrap_or(&rustc),
            musl: zig::MUSL_VERSION,
        },
    )?;

    let output = options.output.clone().unwrap_or_else(|| {
        let file = format!("weir-{version}-{}.tar", arch.name());
        workspace::target().join("image").join(file)
    });
    write(&output, &archive)?;
    let list = output.with_extension("cdx.json");
    write(&list, format!("{contents:#}\n").as_bytes())?;
    eprintln!("image     {name} for linux/{}", arch.name());
    for (what, path, bytes) in [
        ("archive", &output, archive.len()),
        ("contents", &list, contents.to_string().len()),
    ] {
        eprintln!("{what:<9} {} ({bytes} bytes)", path.display());
    }
    println!("sha256:{}  {}", layout::hex(&archive), output.display());
    Ok(Built {
        archive: output,
        binary: program,
        object,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn version(metadata: &Metadata) -> Result<String> {
    let packages = metadata.workspace_packages();
    let weir = packages.iter().find(|package| package.name == "weir");
    Ok(weir
        .context("cargo metadata knows no weir")?
        .version
        .to_string())
}

/// The time stamp of everything: `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>), else
/// the commit's, else the beginning of time.
fn created() -> Result<Timestamp> {
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = given.or_else(|| git(&["log", "-1", "--format=%ct"]));
    let seconds = seconds.unwrap_or_else(|| "0".to_owned());
    let wrong = || format!("{seconds:?} is no number of seconds since 1970");
    Timestamp::from_second(seconds.parse().with_context(wrong)?).with_context(wrong)
}

/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md>
fn labels(version: &str, created: &Timestamp) -> BTreeMap<String, String> {
    let revision = git(&[
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty",
        "--exclude=*",
    ]);
    let labels = [
        ("title", Some("Weir".to_owned())),
        (
            "description",
            Some("Kubernetes Services and NetworkPolicy in eBPF".to_owned()),
        ),
        ("licenses", Some("Apache-2.0".to_owned())),
        ("version", Some(version.to_owned())),
        ("revision", revision),
        ("created", Some(created.to_string())),
    ];
    let named = |(key, value): (&str, Option<String>)| {
        Some((format!("org.opencontainers.image.{key}"), value?))
    };
    labels.into_iter().filter_map(named).collect()
}

/// What git says about the sources; nothing for sources outside a repository.
fn git(args: &[&str]) -> Option<String> {
    process::ask(workspace::tool("git").args(args))
}

/// The name in full: what containerd asks for when a manifest says `weir:1`.
fn full_name(name: &str) -> String {
    let tagged = match name.rsplit_once('/').map_or(name, |(_, last)| last) {
        last if last.contains(':') => name.to_owned(),
        _ => format!("{name}:latest"),
    };
    match tagged.split_once('/') {
        None => format!("docker.io/library/{tagged}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_those_that_containerd_asks_for() {
        for (given, full) in [
            ("weir", "docker.io/library/weir:latest"),
            ("weir:1", "docker.io/library/weir:1"),
            ("me/weir:1", "docker.io/me/weir:1"),
            ("localhost/weir", "localhost/weir:latest"),
            (
                "registry.example:5000/weir",
                "registry.example:5000/weir:latest",
            ),
            ("registry.example/a/weir:1", "registry.example/a/weir:1"),
        ] {
            assert_eq!(full_name(given), full);
        }
    }

    #[test]
    fn labels_have_the_names_of_the_specification() {
        let labels = labels("0.1.0", &Timestamp::UNIX_EPOCH);
        assert_eq!(labels["org.opencontainers.image.version"], "0.1.0");
        assert_eq!(
            labels["org.opencontainers.image.created"],
            "1970-01-01T00:00:00Z"
        );
        assert!(labels.values().all(|value| !value.is_empty()), "{labels:?}");
    }
}
