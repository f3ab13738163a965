//! What this process has.

use anyhow::{Context as _, Result};

/// Bytes of this process in memory.
pub(crate) fn resident() -> Result<u64> {
    let status = procfs::process::Process::myself()?.status()?;
    Ok(status.vmrss.context("VmRSS")? * 1024)
}
