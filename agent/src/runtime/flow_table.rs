//! Walks over the flow table: flows that have ended are told, entries whose time is long over removed, the others counted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weir_common::abi::{Flow, FlowKey};

use super::shared::Shared;
use crate::datapath::{self, FlowTable, FlowWalk};
use crate::flows::{Counts, Idle, Ticks, Walks};

/// How often the table is walked over where ends are not wanted.
const USUAL: Duration = Duration::from_secs(30);
/// Pause after the kernel has refused.
const PAUSE: Duration = Duration::from_secs(10);

/// Walks until told to stop, once in `period`; `None` where ends of flows are not wanted.
pub(super) async fn walk(
    shared: Arc<Shared>,
    period: Option<Duration>,
    shutdown: CancellationToken,
) {
    let start = shared.ticks();
    let mut walks = Walks::new(start.rate, start.now);
    let walking = async {
        loop {
            let Err(error) = again_and_again(&shared, &mut walks, period).await;
            tracing::warn!("cannot walk over the flow table: {error}");
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = walking => {}
    }
}

async fn again_and_again(
    shared: &Shared,
    walks: &mut Walks,
    period: Option<Duration>,
) -> Result<Infallible, datapath::Error> {
    let table = shared.datapath().flow_table()?;
    let time = period.unwrap_or(USUAL);
    loop {
        let begin = Instant::now();
        let (idle, counts) = if shared.compiled.initialized() {
            let idle = once(shared, &table, walks, time, period.is_some()).await?;
            (idle, walks.counts())
        } else {
            // What ends before anything has a name is told when there are names, if it is still there.
            let start = shared.ticks();
            let mut unnamed = Walks::new(start.rate, start.now);
            let idle = once(shared, &table, &mut unnamed, time, false).await?;
            let entries = unnamed.counts().entries;
            (
                idle,
                Counts {
                    entries,
                    ..walks.counts()
                },
            )
        };
        let removed = remove(shared, &idle, time).await?;
        shared.tally.walked(counts, removed);
        shared.set_flow_entries(counts.entries.saturating_sub(removed));
        sleep_until(begin + time).await;
    }
}

/// Pause between two steps: a full table takes half the time to walk over and half to remove, so that no burst of work holds a processor.
fn pace(shared: &Shared, time: Duration) -> Duration {
    let steps = shared.datapath().flow_capacity() / FlowWalk::STEP + 1;
    time / (2 * steps)
}

/// One walk, in steps; gives what can be removed.
async fn once(
    shared: &Shared,
    table: &FlowTable,
    walks: &mut Walks,
    time: Duration,
    tell: bool,
) -> Result<Vec<Idle>, datapath::Error> {
    let (mut walk, pace) = block_in_place(|| {
        let datapath = shared.datapath();
        let walk = walks.begin(datapath.flows_inserted(), datapath.now());
        drop(datapath);
        (walk, pace(shared, time))
    });
    let mut entries = table.walk();
    loop {
        let step = || -> Result<bool, datapath::Error> {
            let ticks = shared.ticks();
            let mut ended = Vec::new();
            let more = entries.step(|key, flow| {
                if walk.visit(&key, &flow, ticks.now) && tell {
                    ended.push((key, flow));
                }
            });
            shared.tell_ended(&ended, ticks);
            more
        };
        match block_in_place(step) {
            Ok(true) => sleep(pace).await,
            Ok(false) => return Ok(walk.end()),
            Err(error) => {
                walk.give_up();
                return Err(error);
            }
        }
    }
}

/// Removes what is idle, in steps; gives how many there were.
async fn remove(shared: &Shared, idle: &[Idle], time: Duration) -> Result<u64, datapath::Error> {
    let pace = block_in_place(|| pace(shared, time));
    let mut removed = 0;
    for step in idle.chunks(FlowWalk::STEP as usize) {
        removed += block_in_place(|| shared.expire(step))?;
        sleep(pace).await;
    }
    Ok(removed)
}

impl Shared {
    /// This moment on the flow table's clock and everybody's.
    pub(super) fn ticks(&self) -> Ticks {
        let datapath = self.datapath();
        Ticks {
            now: datapath.now(),
            rate: datapath.ticks_per_second(),
            time: Timestamp::now(),
        }
    }

    /// Makes records of flows that were found over.
    fn tell_ended(&self, ended: &[(FlowKey, Flow)], ticks: Ticks) {
        if ended.is_empty() {
            return;
        }
        let directory = self.published().directory;
        for (key, flow) in ended {
            let record = directory.ended(key, flow, ticks);
            self.hits().count(&record);
            self.keep(record);
        }
    }

    /// Removes entries that have had no packet meanwhile; gives how many.
    fn expire(&self, idle: &[Idle]) -> Result<u64, datapath::Error> {
        let mut removed = 0;
        for (key, last_seen) in idle {
            removed += u64::from(self.datapath().expire_flow(key, *last_seen)?);
        }
        Ok(removed)
    }
}
