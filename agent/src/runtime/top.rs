//! What `weir top` shows. Nothing of it is done while nobody asks, and once for all who do.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast};
use tokio::task::{block_in_place, yield_now};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use weir_common::abi::control;

use super::shared::Shared;
use crate::datapath;
use crate::flows::top::{Activity, Over, Span};
use crate::flows::{Directory, Outcome, Record};

/// Time from one walk over the flow table to the next, unless a walk takes long.
const PERIOD: Duration = Duration::from_secs(1);
/// Walks may take one part in so many of a processor's time.
const SHARE: u32 = 10;
/// Spans that somebody who asks may be behind.
const BEHIND: usize = 16;
/// Pause after the kernel has refused.
const PAUSE: Duration = Duration::from_secs(10);

/// Whoever asks.
#[derive(Debug)]
pub(super) struct Top {
    spans: broadcast::Sender<Arc<Activity>>,
    asked: Notify,
}

impl Default for Top {
    fn default() -> Self {
        Self {
            spans: broadcast::Sender::new(BEHIND),
            asked: Notify::new(),
        }
    }
}

impl Top {
    /// What comes from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<Activity>> {
        let spans = self.spans.subscribe();
        self.asked.notify_one();
        spans
    }

    fn is_asked(&self) -> bool {
        self.spans.receiver_count() > 0
    }
}

/// Counts while somebody asks, until told to stop.
pub(super) async fn count(shared: Arc<Shared>, shutdown: CancellationToken) {
    let counting = async {
        // There are no names before.
        shared.compiled.wait().await;
        loop {
            shared.top.asked.notified().await;
            while let Err(error) = while_asked(&shared).await {
                tracing::warn!("cannot count for `weir top`: {error}");
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = counting => {}
    }
}

async fn while_asked(shared: &Shared) -> Result<(), datapath::Error> {
    let table = shared.datapath().flow_table()?;
    let mut records = shared.coming_records();
    let start = shared.ticks();
    let mut span = Span::new(start.rate, start.now);
    let mut before = Marks::read(shared)?;
    while shared.top.is_asked() {
        let directory = shared.published().directory;
        let (now, tick) = (Marks::read(shared)?, shared.ticks().now);
        let mut walk = table.walk();
        loop {
            let step = || walk.step(|key, flow| span.flows().visit(&key, &flow, tick));
            if !block_in_place(step)? {
                break;
            }
            // No more may come during a long walk than can wait.
            while let Some(record) = waiting(&mut records) {
                take_in(&mut span, record, &directory);
            }
            yield_now().await;
        }
        let activity = span.end(&directory, before.over(&now, tick));
        if let Some(activity) = activity {
            // That the last one has just left is no error.
            let _ = shared.top.spans.send(Arc::new(activity));
        }
        let next = now.instant + PERIOD.max(now.instant.elapsed() * SHARE);
        before = now;
        let until_next = async {
            while let Some(record) = next_of(&mut records).await {
                take_in(&mut span, record, &directory);
            }
        };
        // Dropped in between, it loses nothing: a record is taken in as soon as it is there.
        let _ = timeout_at(next, until_next).await;
    }
    Ok(())
}

/// A record, or how many were missed.
type Heard = Result<Record, u64>;

/// The next one that comes; `None` when none comes any more.
async fn next_of(records: &mut broadcast::Receiver<Record>) -> Option<Heard> {
    match records.recv().await {
        Ok(record) => Some(Ok(record)),
        Err(RecvError::Lagged(missed)) => Some(Err(missed)),
        Err(RecvError::Closed) => None,
    }
}

/// The next one that has come.
fn waiting(records: &mut broadcast::Receiver<Record>) -> Option<Heard> {
    match records.try_recv() {
        Ok(record) => Some(Ok(record)),
        Err(TryRecvError::Lagged(missed)) => Some(Err(missed)),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}

fn take_in(span: &mut Span, heard: Heard, directory: &Directory) {
    match heard {
        Ok(record) => span.record(&record, directory),
        Err(missed) => span.missed(missed),
    }
}

/// What the kernel has counted at a moment.
struct Marks {
    time: Timestamp,
    instant: Instant,
    refused: u64,
    events_lost: u64,
}

impl Marks {
    fn read(shared: &Shared) -> Result<Self, datapath::Error> {
        let datapath = shared.datapath();
        let refused = datapath.counters()?.into_iter();
        let refused = refused.filter(|(_, reason, _)| Outcome::of_reason(*reason).is_refusal());
        Ok(Self {
            time: Timestamp::now(),
            instant: Instant::now(),
            refused: refused.fold(0, |sum, (.., it)| sum.wrapping_add(it.packets)),
            events_lost: datapath.control(control::EVENTS_LOST),
        })
    }

    /// The span from here to `now`.
    fn over(&self, now: &Self, tick: u32) -> Over {
        Over {
            tick,
            time: now.time,
            seconds: (now.instant - self.instant).as_secs_f64(),
            refused: now.refused.wrapping_sub(self.refused),
            events_lost: now.events_lost.wrapping_sub(self.events_lost),
        }
    }
}
