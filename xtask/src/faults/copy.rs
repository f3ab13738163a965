//! A copy of the repository, to plant faults in.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Fault;

/// A copy of the repository as it is, changes that are not committed included.
#[derive(Debug)]
pub(super) struct Copy {
    /// Its root.
    pub(super) source: PathBuf,
    /// What is built of it.
    pub(super) build: PathBuf,
    /// Held while the copy is in use: two processes would plant into each other's faults.
    _lock: File,
}

impl Copy {
    /// Brings the copy of `root` in `directory` up to date. What is the same keeps its time stamp, and is not built again.
    pub(super) fn make(root: &Path, directory: &Path) -> Result<Self> {
        let source = directory.join("source");
        fs::create_dir_all(&source)?;
        let lock = File::create(directory.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!(
                "{} is in use by another `cargo xtask faults`",
                directory.display()
            );
        }
        let files = files(root)?;
        for file in &files {
            let (from, to) = (root.join(file), source.join(file));
            let bytes = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
            if fs::read(&to).is_ok_and(|held| held == bytes) {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
        }
        remove_others(&source, &source, &files)?;
        let build = directory.join("build");
        Ok(Self {
            source,
            build,
            _lock: lock,
        })
    }

    /// The text of the file of a fault, in which its place is there once.
    pub(super) fn find(&self, fault: &Fault) -> Result<String> {
        let file = self.source.join(fault.file);
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        match text.matches(fault.find).count() {
            1 => Ok(text),
            count => bail!(
                "the fault {:?} is stale: {:?} is there {count} times in {}",
                fault.name,
                fault.find,
                fault.file
            ),
        }
    }

    /// Carries out `work` with a fault in its place.
    pub(super) fn with<T>(&self, fault: &Fault, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let text = self.find(fault)?;
        let file = self.source.join(fault.file);
        fs::write(&file, text.replacen(fault.find, fault.replace, 1))?;
        let done = work();
        fs::write(&file, text).with_context(|| format!("mending {}", file.display()))?;
        done
    }
}

/// The files that git knows, or would take.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let output = git
        .current_dir(root)
        .output()
        .context("asking git for the files")?;
    if !output.status.success() {
        bail!(
            "git ls-files: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    // One that was removed is still known until that is committed.
    Ok(names
        .map(PathBuf::from)
        .filter(|name| root.join(name).is_file())
        .collect())
}

/// Removes what tests left behind, and files that are gone.
fn remove_others(source: &Path, directory: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(source, &path, files)?;
        } else if !files.contains(path.strip_prefix(source)?) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
