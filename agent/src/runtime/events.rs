//! Reads the ring buffer of events.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::datapath::EventReader;
use crate::flows::{Decoded, decode};
use crate::metrics::FlowKind;

/// Events taken before other tasks get their turn.
const AT_ONCE: usize = 1024;

/// Turns events into counts and records until told to stop.
///
/// # Errors
/// When the ring buffer cannot be waited for.
pub(super) async fn read(
    shared: Arc<Shared>,
    mut reader: EventReader,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // What came while no agent ran waits in the ring until there are names for it.
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        _ = shared.compiled.wait() => {}
    }
    loop {
        let mut batch = Vec::new();
        let reading = reader.read(AT_ONCE, |bytes| match decode(bytes) {
            Ok(decoded) => batch.push(decoded),
            Err(error) => tracing::warn!("an event cannot be read: {error}"),
        });
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            result = reading => result?,
        }
        take_in(&shared, &batch);
        tokio::task::yield_now().await;
    }
}

fn take_in(shared: &Shared, batch: &[Decoded]) {
    let directory = shared.published().directory;
    let now = Timestamp::now();
    let clock = monotonic_nanoseconds();
    for decoded in batch {
        shared.tally.flow(FlowKind {
            verdict: decoded.outcome,
            direction: decoded.direction,
            protocol: decoded.metric_protocol(),
        });
        let age = Duration::from_nanos(clock.saturating_sub(decoded.event.time));
        let record = directory.record(decoded, now, age);
        shared.tally.talked(&record);
        shared.hits().count(&record);
        shared.keep(record);
    }
}

fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
