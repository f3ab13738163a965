//! What the operating system says of the agent's own process.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo as _};

use crate::metrics;

/// As of now; zeros where /proc does not tell.
pub(super) fn usage() -> metrics::Process {
    read().unwrap_or_else(|error| {
        tracing::debug!("cannot tell what the process uses: {error}");
        metrics::Process::default()
    })
}

fn read() -> ProcResult<metrics::Process> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second();
    let seconds = |count: u64| count as f64 / ticks as f64;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(most) => most,
        LimitValue::Unlimited => u64::MAX,
    };
    Ok(metrics::Process {
        cpu_seconds: seconds(stat.utime + stat.stime),
        start_seconds: procfs::boot_time_secs()? as f64 + seconds(stat.starttime),
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count()? as u64,
        max_fds,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_is_measured() {
        let usage = read().unwrap();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        assert!(usage.virtual_bytes >= usage.resident_bytes, "{usage:?}");
        assert!(usage.open_fds >= 3, "{usage:?}");
        assert!(usage.max_fds >= usage.open_fds, "{usage:?}");
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - usage.start_seconds;
        // A test process is young; the kernel counts its start in hundredths from a boot time in seconds.
        assert!((-2.0..3600.0).contains(&age), "{usage:?} is {age} s old");
    }
}
