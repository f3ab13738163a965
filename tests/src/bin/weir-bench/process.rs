//! What this process has.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// Bytes of this process in memory.
pub(crate) fn resident() -> Result<u64> {
    let status = procfs::process::Process::myself()?.status()?;
    Ok(status.vmrss.context("VmRSS")? * 1024)
}

/// Bytes of all BPF maps that this process has open, as the kernel counts them.
pub(crate) fn maps() -> Result<u64> {
    let mut maps: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The directory's own is gone by now.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}
