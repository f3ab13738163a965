//! The loop: events in, one sync for all that came together.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::engine::{Ask, Engine};
use super::last_known::LastKnown;
use super::shared::Shared;
use crate::model::{DeviceFacts, Event};
use crate::netlink::Local;

/// Time from a change to the sync that carries it out, for what arrives with it.
const GATHER: Duration = Duration::from_millis(1);
/// Least time from one sync to the next, so that the many changes of a deployment share some.
const REST: Duration = Duration::from_millis(20);
/// Events taken in at once.
const EVENTS: usize = 4096;
/// Pause after a failed sync; doubles each time up to `RETRY_MOST`.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// See `RETRY_FIRST`.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// Longest wait for a changed state after a failure: the change may be the remedy.
const RETRY_CHANGED: Duration = Duration::from_secs(1);
/// Longest time from one sync to the next: somebody may have taken programs away, which nothing tells.
const CHECK: Duration = Duration::from_secs(10);
/// How long the source gets to list everything before what an earlier agent last knew is taken instead.
const RECALL: Duration = Duration::from_secs(5);
/// Time that netlink gets to find the devices of local pods before the first sync.
const FIRST_DEVICES: Duration = Duration::from_millis(500);

/// When to sync.
#[derive(Debug, Default)]
struct Schedule {
    due: Option<Instant>,
    last: Option<Instant>,
    not_before: Option<Instant>,
    pause: Option<Duration>,
}

impl Schedule {
    /// Something changed.
    fn changed(&mut self, now: Instant) {
        let rested = self.last.map(|last| last + REST);
        let soonest = [rested, self.not_before].into_iter().flatten();
        let soonest = soonest.fold(now + GATHER, Instant::max);
        self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// A pod's start waits for a change. After a failure it waits as every other.
    fn urgent(&mut self, now: Instant) {
        let soonest = self
            .not_before
            .map_or(now, |not_before| not_before.max(now));
        self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// A sync is over.
    fn synced(&mut self, now: Instant, failed: bool) {
        if failed {
            let pause = self
                .pause
                .map_or(RETRY_FIRST, |pause| (pause * 2).min(RETRY_MOST));
            self.pause = Some(pause);
            self.due = Some(now + pause);
            self.not_before = Some(now + pause.min(RETRY_CHANGED));
        } else {
            *self = Self {
                due: Some(now + CHECK),
                ..Self::default()
            };
        }
        self.last = Some(now);
    }
}

/// Ends of the channels that the loop listens and talks to.
pub(super) struct Ports {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) facts: watch::Receiver<DeviceFacts>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) local: watch::Sender<Local>,
}

/// Runs until told to stop or until the source ends. Stopping leaves the kernel as it is.
pub(super) async fn cycle(
    mut engine: Engine,
    last_known: Option<LastKnown>,
    shared: Arc<Shared>,
    ports: Ports,
    shutdown: CancellationToken,
) {
    let Ports {
        mut events,
        mut facts,
        mut asks,
        local,
    } = ports;
    let mut schedule = Schedule::default();
    let mut devices_deadline: Option<Instant> = None;
    let mut recall = last_known
        .filter(|_| engine.knows_nothing())
        .map(|file| (file, Instant::now() + RECALL));
    loop {
        let due = schedule.due;
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => {
                let Some(event) = event else { return };
                let mut batch = vec![event];
                while batch.len() < EVENTS && let Ok(event) = events.try_recv() {
                    batch.push(event);
                }
                let changed = tokio::task::block_in_place(|| engine.apply(batch));
                if engine.synced() {
                    tell(&local, engine.local());
                }
                changed
            }
            Some(ask) = asks.recv() => {
                let mut batch = vec![ask];
                while let Ok(ask) = asks.try_recv() {
                    batch.push(ask);
                }
                let changed = tokio::task::block_in_place(|| engine.hear(batch));
                if engine.synced() {
                    tell(&local, engine.local());
                    if changed {
                        schedule.urgent(Instant::now());
                    }
                }
                changed
            }
            Ok(()) = facts.changed() => {
                let facts = facts.borrow_and_update().clone();
                engine.set_devices(facts)
            }
            () = shared.suspicion.notified() => {
                engine.suspect();
                true
            }
            () = until(recall.as_ref().map(|(_, moment)| *moment)) => {
                let file = recall.take().filter(|_| engine.knows_nothing());
                let recalled = file.is_some_and(|(file, _)| {
                    tokio::task::block_in_place(|| remember(&mut engine, &file, &shared.node))
                });
                if recalled {
                    tell(&local, engine.local());
                }
                recalled
            }
            () = until(due) => {
                // The first sync of a restarted agent should know the devices that the kernel's maps already have.
                let deadline = *devices_deadline.get_or_insert(Instant::now() + FIRST_DEVICES);
                if shared.published().last_sync.is_none() && engine.lacks_devices() && Instant::now() < deadline {
                    schedule.due = Some(deadline.min(Instant::now() + REST));
                    continue;
                }
                let result = tokio::task::block_in_place(|| engine.sync());
                if let Err(error) = &result {
                    tracing::error!("the kernel is not in line: {error}; trying again");
                }
                schedule.synced(Instant::now(), result.is_err());
                false
            }
        };
        if changed && engine.synced() {
            schedule.changed(Instant::now());
            shared.publish(|published| {
                published
                    .waiting_since
                    .get_or_insert(std::time::Instant::now());
            });
        }
    }
}

/// Has the engine take what an earlier agent last knew; whether there was anything.
fn remember(engine: &mut Engine, file: &LastKnown, node: &str) -> bool {
    match file.load(node) {
        Ok(Some(events)) => {
            tracing::warn!(
                "the API server has not told of all objects: pods are isolated as an earlier agent last knew"
            );
            engine.recall(events);
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::warn!("cannot read what an earlier agent last knew: {error}");
            false
        }
    }
}

/// Tells netlink whose devices are to be found, if they are others than before.
fn tell(local: &watch::Sender<Local>, wanted: &Local) {
    local.send_if_modified(|local| {
        let differs = local != wanted;
        if differs {
            local.clone_from(wanted);
        }
        differs
    });
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_carried_out_at_once_and_many_share_a_sync_that_is_never_put_off() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let changes = |schedule: &mut Schedule| {
            for millisecond in 0..100 {
                schedule.changed(start + Duration::from_millis(millisecond));
            }
        };
        changes(&mut schedule);
        assert_eq!(schedule.due, Some(start + GATHER));
        schedule.synced(start, false);
        assert_eq!(schedule.due, Some(start + CHECK));
        changes(&mut schedule);
        assert_eq!(schedule.due, Some(start + REST));
        let later = start + REST * 2;
        schedule.synced(start, false);
        schedule.changed(later);
        assert_eq!(schedule.due, Some(later + GATHER));
    }

    #[test]
    fn a_pods_start_waits_for_no_rest_but_for_the_pause_after_a_failure() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.synced(start, false);
        schedule.urgent(start);
        assert_eq!(schedule.due, Some(start));
        // What else changes does not put it off.
        schedule.changed(start);
        assert_eq!(schedule.due, Some(start));
        schedule.synced(start, true);
        schedule.urgent(start);
        assert_eq!(schedule.due, Some(start + RETRY_FIRST));
    }

    #[test]
    fn failures_are_retried_with_growing_pauses() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.synced(start, true);
            pauses.push(schedule.due.unwrap() - start);
        }
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], RETRY_MOST);
        // A change is tried sooner, but not at once.
        schedule.changed(start);
        assert_eq!(schedule.due, Some(start + RETRY_CHANGED));
        schedule.synced(start, false);
        schedule.changed(start);
        assert_eq!(schedule.due, Some(start + REST));
    }
}
