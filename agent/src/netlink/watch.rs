//! Follows changes: a dump after every burst of notifications.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::dump::dump;
use super::resolve::{Local, resolve};
use crate::model::DeviceFacts;

/// A burst of changes (a CNI plugin at work) is over when this long nothing came, or after `BURST`.
const QUIET: Duration = Duration::from_millis(20);
/// Longest time that changes wait for a burst to end.
const BURST: Duration = Duration::from_millis(200);
/// Notifications can be lost when the socket's buffer overflows.
const REFRESH: Duration = Duration::from_secs(60);
/// Time until a pod that did not answer is asked again; doubles each time up to `ASK_MOST`.
const ASK_FIRST: Duration = Duration::from_secs(1);
/// See `ASK_FIRST`.
const ASK_MOST: Duration = Duration::from_secs(60);
/// Most pods asked in one go.
const ASK_AT_ONCE: usize = 64;

/// Sends the devices of local pods whenever they change, until the sender of `local` or the receiver of `facts` is gone.
///
/// # Errors
/// When the kernel cannot be asked; calling again is right after a pause.
pub async fn watch(
    local: watch::Receiver<Local>,
    facts: watch::Sender<DeviceFacts>,
) -> Result<(), Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (changes_connection, _, changes) =
        rtnetlink::new_multicast_connection(&groups).map_err(Error::Open)?;
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    tokio::select! {
        result = follow(&handle, changes, local, facts) => result,
        () = connection => Err(Error::Ended),
        () = changes_connection => Err(Error::Ended),
    }
}

async fn follow<T>(
    handle: &Handle,
    mut changes: UnboundedReceiver<T>,
    mut local: watch::Receiver<Local>,
    facts: watch::Sender<DeviceFacts>,
) -> Result<(), Error> {
    let mut questions = Questions::default();
    loop {
        let table = dump(handle).await?;
        let resolution = {
            let local = local.borrow_and_update();
            resolve(&table, &local, &facts.borrow())
        };
        facts.send_if_modified(|current| {
            let changed = *current != resolution.facts;
            *current = resolution.facts;
            changed
        });
        let due = questions.due(&resolution.ask, Instant::now());
        for (address, bridge) in &due {
            ask(handle, *bridge, *address).await;
        }
        let wait = questions
            .next(Instant::now())
            .unwrap_or(REFRESH)
            .min(REFRESH);
        tokio::select! {
            change = changes.next() => {
                if change.is_none() {
                    return Err(Error::Ended);
                }
                settle(&mut changes).await;
            }
            changed = local.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = facts.closed() => return Ok(()),
            () = sleep(wait) => {}
        }
    }
}

/// Waits for a burst of changes to end.
async fn settle<T>(changes: &mut UnboundedReceiver<T>) {
    let burst = async { while let Ok(Some(_)) = timeout(QUIET, changes.next()).await {} };
    // Either way the changes so far are in the dump that follows.
    let _ = timeout(BURST, burst).await;
}

/// Makes the kernel resolve an address, as if it had a packet for it: the answer passes the bridge, which learns the port.
async fn ask(handle: &Handle, bridge: u32, address: IpAddr) {
    let request = handle
        .neighbours()
        .add(bridge, address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if let Err(error) = request.execute().await {
        tracing::debug!(%address, bridge, %error, "cannot ask for a neighbour");
    }
}

/// When which address was asked for.
#[derive(Debug, Default)]
struct Questions {
    asked: BTreeMap<IpAddr, Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    again: Instant,
    pause: Duration,
}

impl Questions {
    /// Which of the open questions are to be asked now; the others are forgotten or wait.
    fn due(&mut self, open: &BTreeMap<IpAddr, u32>, now: Instant) -> BTreeMap<IpAddr, u32> {
        self.asked.retain(|address, _| open.contains_key(address));
        let due: BTreeMap<_, _> = open
            .iter()
            .filter(|(address, _)| {
                self.asked
                    .get(*address)
                    .is_none_or(|asked| asked.again <= now)
            })
            .take(ASK_AT_ONCE)
            .map(|(address, bridge)| (*address, *bridge))
            .collect();
        for address in due.keys() {
            let pause = self
                .asked
                .get(address)
                .map_or(ASK_FIRST, |asked| (asked.pause * 2).min(ASK_MOST));
            let again = now + pause;
            self.asked.insert(*address, Question { again, pause });
        }
        // What did not fit into this round has its turn in the next.
        for address in open.keys().filter(|address| !due.contains_key(*address)) {
            let next = Question {
                again: now + ASK_FIRST,
                pause: ASK_FIRST / 2,
            };
            self.asked.entry(*address).or_insert(next);
        }
        due
    }

    /// Time until the next question.
    fn next(&self, now: Instant) -> Option<Duration> {
        let next = self.asked.values().map(|question| question.again).min()?;
        Some(next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded_in_rate() {
        let mut questions = Questions::default();
        let start = Instant::now();
        let open: BTreeMap<IpAddr, u32> =
            (0..100).map(|last| ([10, 0, 0, last].into(), 7)).collect();
        assert_eq!(questions.due(&open, start).len(), ASK_AT_ONCE);
        assert_eq!(questions.due(&open, start).len(), 0);
        assert_eq!(questions.next(start), Some(ASK_FIRST));

        let one: BTreeMap<IpAddr, u32> = [([10, 0, 0, 1].into(), 7)].into();
        let mut asked = 0;
        let hour = 3600;
        for second in 0..hour {
            asked += questions
                .due(&one, start + Duration::from_secs(second))
                .len();
        }
        assert!(
            (hour / 60..hour / 60 + 10).contains(&(asked as u64)),
            "{asked}"
        );
        assert!(questions.due(&BTreeMap::new(), start).is_empty());
        assert_eq!(questions.next(start), None);
    }
}
