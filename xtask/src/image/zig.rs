//! The C compiler and linker of the image: zig, which brings musl and an unwinder for every architecture.
//!
//! Debian has no musl for other architectures, and a C library that is the same on every machine is what makes the same
//! sources give the same bytes. The Python package index has it ready-made; a zig of that version on the PATH does as well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Arch;
use crate::process::{self, minutes};
use crate::workspace;

/// The zig that images are built with.
pub(super) const VERSION: &str = "0.15.2";
/// The musl inside that zig (its lib/libc/musl/src/internal/version.h).
pub(super) const MUSL_VERSION: &str = "1.2.5";

/// Programs as cargo and C build scripts want them: one word each.
#[derive(Debug)]
pub(super) struct Tools {
    /// Compiles and links C for the image's architecture.
    pub(super) cc: PathBuf,
    /// Makes archives.
    pub(super) ar: PathBuf,
}

/// zig for an architecture, installed if need be.
///
/// # Errors
/// It is not there and cannot be installed.
pub(super) fn tools(arch: Arch) -> Result<Tools> {
    let home = workspace::cache().join("zig").join(VERSION);
    let zig = find(&home).map_or_else(|| install(&home), Ok)?;
    let directory = home.join("tools");
    let tools = Tools {
        cc: directory.join(format!("cc-{}", arch.machine())),
        ar: directory.join("ar"),
    };
    // The last -target counts: build scripts name the architecture in a form that zig does not know. The sanitizer that
    // zig adds to unoptimised C needs a library that is not here.
    let target = format!(
        "cc \"$@\" -target {}-linux-musl -fno-sanitize=undefined",
        arch.machine()
    );
    script(&tools.cc, &zig, &home, &target)?;
    script(&tools.ar, &zig, &home, "ar \"$@\"")?;
    Ok(tools)
}

fn find(home: &Path) -> Option<PathBuf> {
    let ours = home.join("ziglang/zig");
    let fits = |zig: &PathBuf| {
        process::ask(Command::new(zig).arg("version")).is_some_and(|version| version == VERSION)
    };
    [Some(ours), which::which("zig").ok()]
        .into_iter()
        .flatten()
        .find(fits)
}

fn install(home: &Path) -> Result<PathBuf> {
    let mut pip = workspace::tool("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(home)
        .arg(format!("ziglang=={VERSION}"));
    eprintln!("image: {} (at most 10 min)", process::describe(&pip));
    process::run(&mut pip, minutes(10)).with_context(|| {
        format!("installing zig {VERSION}; or put a zig of that version on the PATH")
    })?;
    let zig = home.join("ziglang/zig");
    ensure!(
        zig.exists(),
        "the package ziglang {VERSION} has no {}",
        zig.display()
    );
    Ok(zig)
}

/// Writes a script that calls zig; left alone if it is the same, so that nothing is compiled again for its time stamp.
fn script(path: &Path, zig: &Path, home: &Path, command: &str) -> Result<()> {
    let text = format!(
        "#!/bin/sh\nZIG_GLOBAL_CACHE_DIR={} exec {} {command}\n",
        quoted(&home.join("cache")),
        quoted(zig),
    );
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(home))?;
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for path in ["/a b/c", "/it's/$HOME/`x`"] {
            let shell = format!("printf %s {}", quoted(Path::new(path)));
            let said = process::ask(Command::new("sh").args(["-c", &shell]));
            assert_eq!(said.as_deref(), Some(path));
        }
    }
}
