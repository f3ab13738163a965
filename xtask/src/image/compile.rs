//! The static binary of the image, the same bytes wherever the same toolchain builds the same sources.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Arch;
use super::zig::Tools;
use crate::build::OBJECT_ENV;
use crate::process::{self, minutes};
use crate::toolchain::Toolchain;
use crate::workspace;

/// The profile of the root manifest.
const PROFILE: &str = "image";

/// Builds the agent with `object` inside for `arch` and returns the binary's path.
///
/// The standard library is built too, from the sources that the kernel programs need anyway: musl targets are not
/// among the ready-made ones of every compiler.
///
/// # Errors
/// A build that fails; cargo has said why by then.
pub(super) fn binary(
    toolchain: &Toolchain,
    tools: &Tools,
    arch: Arch,
    object: &Path,
) -> Result<PathBuf> {
    let target = arch.target();
    let underscored = target.replace('-', "_");
    let target_dir = workspace::target().join("image");
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--package", "weir", "--bin", "weir"])
        .args(["--profile", PROFILE, "--target", &target, "--target-dir"])
        .arg(&target_dir)
        .arg("-Zbuild-std=std,panic_unwind")
        .args([
            "-Ztrim-paths",
            "--config",
            "profile.image.trim-paths=\"all\"",
        ]);
    let cargo_target = format!("CARGO_TARGET_{}", underscored.to_uppercase());
    cargo
        .env("RUSTC", &toolchain.compiler.rustc)
        // Unstable flags on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(format!("{cargo_target}_LINKER"), &tools.cc)
        // zig brings what starts a C program; a second set from rustc would clash with it.
        .env(
            format!("{cargo_target}_RUSTFLAGS"),
            "-Clink-self-contained=no -Ctarget-feature=+crt-static",
        )
        .env(format!("CC_{underscored}"), &tools.cc)
        .env(format!("AR_{underscored}"), &tools.ar)
        .env(format!("CFLAGS_{underscored}"), prefix_maps())
        .env(OBJECT_ENV, object)
        // A user's own flags would replace ours, and change the bytes.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    process::run(&mut cargo, minutes(90)).with_context(|| format!("building for {target}"))?;
    Ok(target_dir.join(target).join(PROFILE).join("weir"))
}

/// What `trim-paths` does for Rust, for C: names of files, as assertions print them, without where they are here.
fn prefix_maps() -> String {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let places = [(cargo_home, "/cargo"), (Some(workspace::root()), "/weir")];
    let flags = places
        .iter()
        .filter_map(|(place, name)| Some((place.as_ref()?, name)))
        .map(|(place, name)| format!("-ffile-prefix-map={}={name}", place.display()));
    flags.collect::<Vec<_>>().join(" ")
}
