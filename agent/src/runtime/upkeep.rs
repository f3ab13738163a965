//! What has to be done again and again: a sign of life, and turning workloads' metrics.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often workloads' metrics are looked through.
const TURN: Duration = Duration::from_secs(60);

/// Tells the kernel programs that the agent is alive, until told to stop.
pub(super) async fn heartbeat(shared: Arc<Shared>, shutdown: CancellationToken) {
    repeat(HEARTBEAT, shutdown, || {
        let seconds = clock_gettime(ClockId::Boottime).tv_sec;
        shared
            .datapath()
            .heartbeat(u64::try_from(seconds).unwrap_or_default());
    })
    .await;
}

/// Lets the metrics by workload follow who is there and talks, until told to stop.
pub(super) async fn turn_workloads(shared: Arc<Shared>, shutdown: CancellationToken) {
    repeat(TURN, shutdown, || {
        let snapshot = shared.published().snapshot;
        let pods = snapshot.pods.values().filter(|pod| !pod.terminal);
        let names = pods.flat_map(|pod| [Some(pod.name.clone()), pod.workload()]);
        shared.tally.turn_workloads(&names.flatten().collect());
    })
    .await;
}

async fn repeat(period: Duration, shutdown: CancellationToken, mut work: impl FnMut()) {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => tokio::task::block_in_place(&mut work),
        }
    }
}
