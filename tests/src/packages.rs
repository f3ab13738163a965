//! Debian's packages, unpacked and not installed: what only a test wants has no business on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::netns::run;
use crate::programs::cached;

/// The files of a package, from the cache (`~/.cache/weir/packages`), or fetched into it.
///
/// # Errors
/// apt does not know the package, or cannot fetch it.
pub fn package(name: &str) -> Result<PathBuf> {
    cached("packages", name, |out| unpack(name, out))
}

/// Fetches a package and unpacks it into a directory.
pub(crate) fn unpack(name: &str, into: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("make a directory")?;
    run(Command::new("apt-get")
        .args(["download", name])
        .current_dir(&scratch))?;
    let mut fetched = fs::read_dir(&scratch)?;
    let archive = fetched.next().context("apt-get left nothing")??.path();
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into))?;
    Ok(())
}
