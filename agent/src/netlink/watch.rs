//! Follows changes: a dump after every burst of notifications.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::dump::dump;
use super::questions::Questions;
use super::resolve::{Local, Owners, Question, resolve};
use super::table::{LinkKind, LinkTable};
use crate::model::DeviceFacts;

/// A burst of changes (a CNI plugin at work) is over when this long nothing came, or after `BURST`.
const QUIET: Duration = Duration::from_millis(20);
/// Longest time that changes wait for a burst to end.
const BURST: Duration = Duration::from_millis(200);
/// Notifications can be lost when the socket's buffer overflows.
const REFRESH: Duration = Duration::from_secs(60);

/// Sends the devices of local pods whenever they change, until the sender of `local` or the receiver of `facts` is gone.
/// `owners` is what a call learned for the next.
///
/// # Errors
/// When the kernel cannot be asked; calling again is right after a pause.
pub async fn watch(
    local: watch::Receiver<Local>,
    facts: watch::Sender<DeviceFacts>,
    owners: &mut Owners,
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
        result = follow(&handle, changes, local, facts, owners) => result,
        () = connection => Err(Error::Ended),
        () = changes_connection => Err(Error::Ended),
    }
}

async fn follow<T>(
    handle: &Handle,
    mut changes: UnboundedReceiver<T>,
    mut local: watch::Receiver<Local>,
    facts: watch::Sender<DeviceFacts>,
    owners: &mut Owners,
) -> Result<(), Error> {
    let mut questions = Questions::default();
    let mut appeared = None;
    // When the first notice came of what the next dump shows.
    let mut noticed = SystemTime::now();
    loop {
        let table = dump(handle).await?;
        let mut resolution = resolve(&table, &local.borrow_and_update(), owners);
        *owners = resolution.owners;
        let known = appearances(appeared.take(), &table, noticed);
        let told = known.iter();
        resolution.facts.appeared = told
            .filter_map(|(ifindex, moment)| Some((*ifindex, (*moment)?)))
            .collect();
        appeared = Some(known);
        facts.send_if_modified(|current| {
            // When devices appeared matters once they lead somewhere.
            current.appeared.clone_from(&resolution.facts.appeared);
            let changed = *current != resolution.facts;
            *current = resolution.facts;
            changed
        });
        let due = questions.due(&resolution.ask, Instant::now());
        for (address, question) in due {
            if let Err(error) = ask(handle, address, question).await {
                tracing::debug!(%address, bridge = question.bridge, %error, "cannot ask for a neighbour");
            }
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
                noticed = SystemTime::now();
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

/// When each veth appeared; `None` for those of the first dump, which may have been there for long.
fn appearances(
    known: Option<BTreeMap<u32, Option<SystemTime>>>,
    table: &LinkTable,
    noticed: SystemTime,
) -> BTreeMap<u32, Option<SystemTime>> {
    let veths = table.links.iter();
    veths
        .filter(|(_, link)| link.kind == LinkKind::Veth)
        .map(|(ifindex, _)| {
            let moment = known
                .as_ref()
                .and_then(|known| known.get(ifindex).copied().unwrap_or(Some(noticed)));
            (*ifindex, moment)
        })
        .collect()
}

/// Waits for a burst of changes to end.
async fn settle<T>(changes: &mut UnboundedReceiver<T>) {
    let burst = async { while let Ok(Some(_)) = timeout(QUIET, changes.next()).await {} };
    // Either way the changes so far are in the dump that follows.
    let _ = timeout(BURST, burst).await;
}

/// Makes the kernel resolve an address, as if it had a packet for it: the answer passes the bridge, which learns the port.
async fn ask(
    handle: &Handle,
    address: IpAddr,
    question: &Question,
) -> Result<(), rtnetlink::Error> {
    let mut request = handle
        .neighbours()
        .add(question.bridge, address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if !question.outdated {
        return request.execute().await;
    }
    // `Use` alone does nothing for a reachable neighbour, and for a stale one it asks only the old Ethernet address. A live pod
    // that has this entry loses one round trip.
    let entry = request.message_mut().clone();
    let forgotten = handle.neighbours().del(entry).execute().await;
    request.execute().await.and(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Link;

    fn table(veths: &[u32]) -> LinkTable {
        let link = |kind| Link {
            name: "link".to_owned(),
            kind,
            ethernet: true,
            controller: None,
        };
        let links = veths.iter().map(|ifindex| (*ifindex, link(LinkKind::Veth)));
        LinkTable {
            links: links.chain([(1, link(LinkKind::Bridge))]).collect(),
            ..LinkTable::default()
        }
    }

    #[test]
    fn a_veth_appears_with_the_first_notice_of_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first = appearances(None, &table(&[2, 3]), at(10));
        assert_eq!(first, [(2, None), (3, None)].into());
        let second = appearances(Some(first), &table(&[3, 4]), at(20));
        assert_eq!(second, [(3, None), (4, Some(at(20)))].into());
        let third = appearances(Some(second), &table(&[4, 5]), at(30));
        assert_eq!(third, [(4, Some(at(20))), (5, Some(at(30)))].into());
    }
}
