//! Debian's kernels for virtual machines, from its package archive into a cache.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::packages::unpack;

/// What the tests need that Debian builds as modules, in an order in which they can be loaded.
const MODULES: [&str; 5] = [
    "drivers/net/veth",
    "net/sched/sch_ingress",
    "net/sched/cls_bpf",
    "net/ipv4/inet_diag",
    "net/ipv4/udp_diag",
];

/// An unpacked kernel.
#[derive(Debug)]
pub struct Kernel {
    /// What `uname -r` says in it.
    pub release: String,
    /// Modules to load, in order.
    pub(super) modules: Vec<PathBuf>,
    directory: PathBuf,
}

impl Kernel {
    fn cached(cache: &Path, release: &str) -> Self {
        let directory = cache.join(release);
        let modules = MODULES
            .iter()
            .map(|module| directory.join(module_file(module)))
            .collect();
        Self {
            release: release.to_owned(),
            modules,
            directory,
        }
    }

    /// Whether everything is there: an earlier version of this may have needed fewer modules.
    fn is_complete(&self) -> bool {
        self.modules.iter().all(|module| module.exists())
    }

    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }
}

/// A kernel of a series such as "6.1", from the cache (`~/.cache/weir/kernels`), or fetched into it: the newest that apt knows.
///
/// # Errors
/// apt knows none or cannot fetch it.
pub fn kernel(series: &str) -> Result<Kernel> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // The lock ends with the file, also when this process is killed.
    let lock =
        fs::File::create(cache.join("lock")).context("create the lock of the kernels' cache")?;
    lock.lock().context("wait for another download")?;
    let mut cached = Vec::new();
    for entry in fs::read_dir(&cache)? {
        cached.extend(entry?.file_name().into_string());
    }
    let prefix = format!("{series}.");
    let complete = cached
        .iter()
        .filter(|name| name.starts_with(&prefix) && Kernel::cached(&cache, name).is_complete());
    if let Some(release) = newest(complete) {
        return Ok(Kernel::cached(&cache, release));
    }
    let prefix = format!("linux-image-{prefix}");
    let known = String::from_utf8(run(Command::new("apt-cache").args(["pkgnames", &prefix]))?)?;
    let packages = known.lines().filter(|name| name.ends_with("-cloud-amd64"));
    let package = newest(packages)
        .with_context(|| format!("apt knows no {prefix}*-cloud-amd64 (apt-get update may help)"))?;
    let release = package.trim_start_matches("linux-image-");
    fetch(&cache, package, release)?;
    Ok(Kernel::cached(&cache, release))
}

fn fetch(cache: &Path, package: &str, release: &str) -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("fetch-")
        .tempdir_in(cache)?;
    let unpacked = scratch.path().join("unpacked");
    unpack(package, &unpacked)?;
    let kept = scratch.path().join("kept");
    fs::create_dir(&kept)?;
    fs::rename(
        unpacked.join("boot").join(format!("vmlinuz-{release}")),
        kept.join("vmlinuz"),
    )
    .context("find the kernel's image")?;
    for module in MODULES {
        let from = unpacked
            .join("lib/modules")
            .join(release)
            .join("kernel")
            .join(format!("{module}.ko"));
        let packed = from.with_extension("ko.xz");
        if packed.exists() {
            run(Command::new("xz").arg("-d").arg(&packed))?;
        }
        fs::rename(&from, kept.join(module_file(module)))
            .with_context(|| format!("find {}", from.display()))?;
    }
    let place = cache.join(release);
    if place.exists() {
        fs::rename(&place, scratch.path().join("incomplete"))?;
    }
    fs::rename(&kept, &place).with_context(|| format!("create {}", place.display()))
}

fn module_file(module: &str) -> String {
    let name = module.rsplit('/').next().unwrap_or(module);
    format!("{name}.ko")
}

/// The name with the highest numbers in it.
fn newest<N: AsRef<str>>(names: impl Iterator<Item = N>) -> Option<N> {
    names.min_by_key(|name| {
        let words = name.as_ref().split(|letter: char| !letter.is_ascii_digit());
        Reverse(
            words
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<u64>>(),
        )
    })
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn cache_directory() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|directory| !directory.is_empty()) {
        Some(directory) => directory.into(),
        None => env::home_dir()
            .context("neither XDG_CACHE_HOME nor a home directory is known")?
            .join(".cache"),
    };
    Ok(cache.join("weir/kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_which_is_newest() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-6-cloud-amd64",
        ];
        assert_eq!(newest(names.iter()), Some(&names[1]));
        assert_eq!(newest([""; 0].iter()), None);
    }
}
