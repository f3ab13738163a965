//! What has to be done again and again: a sign of life, and clearing the flow table.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use weir_common::abi::{
    Address, BACKEND_SIDE, FRONTEND_SIDE, Flow, FlowKey, HAIRPIN, NAT, NETFILTER, SHARED,
};
use weir_common::logic::{HAIRPIN_V4, HAIRPIN_V6, timeout_seconds};

use super::shared::Shared;
use crate::datapath;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often the flow table is walked.
const COLLECTION: Duration = Duration::from_secs(30);
/// How often workloads' metrics are looked through.
const TURN: Duration = Duration::from_secs(60);
/// Seconds that an entry is left alone after its time was over. It is harmless, and a client that opens many connections is about to
/// reuse its ports: the kernel replaces such an entry itself, and must not lose the new one to us.
const GRACE: u32 = 120;

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

/// Removes flows whose time is over, and counts the others, until told to stop.
pub(super) async fn collect_flows(shared: Arc<Shared>, shutdown: CancellationToken) {
    repeat(COLLECTION, shutdown, || {
        if let Err(error) = collect(&shared) {
            tracing::warn!("cannot clear the flow table: {error}");
        }
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

fn collect(shared: &Shared) -> Result<(), datapath::Error> {
    let datapath = shared.datapath();
    let mut sweep = Sweep {
        now: datapath.now(),
        rate: datapath.ticks_per_second(),
        ..Sweep::default()
    };
    datapath.for_each_flow(|key, flow| sweep.visit(key, &flow))?;
    let entries = sweep.entries;
    let expired = sweep.expired();
    let mut removed = 0;
    for (key, last_seen) in &expired {
        removed += u64::from(datapath.expire_flow(key, *last_seen)?);
    }
    drop(datapath);
    shared.tally.expired(removed);
    shared.set_flow_entries(entries.saturating_sub(removed));
    Ok(())
}

/// An entry and when it was last seen.
type Idle = (FlowKey, u32);

/// One walk over the flow table.
#[derive(Debug, Default)]
struct Sweep {
    now: u32,
    rate: u32,
    entries: u64,
    over: Vec<Idle>,
    /// Entries that lead to another one, with the key of that one. They see the opener's packets only.
    idle_fronts: Vec<(Idle, FlowKey)>,
    /// Translated flows that are alive.
    live: FxHashSet<FlowKey>,
}

impl Sweep {
    fn visit(&mut self, key: FlowKey, flow: &Flow) {
        self.entries += 1;
        let [low, high] = flow.tcp_flags;
        let idle = self.now.wrapping_sub(flow.last_seen);
        let timeout = timeout_seconds(key.protocol, low, high) + GRACE;
        // A packet may have come after `now` was read.
        let live = idle as i32 <= 0 || idle <= timeout.saturating_mul(self.rate);
        if flow.flags & FRONTEND_SIDE != 0 {
            if !live {
                self.idle_fronts
                    .push(((key, flow.last_seen), behind(&key, flow)));
            }
        } else if !live {
            self.over.push((key, flow.last_seen));
        } else if flow.flags & BACKEND_SIDE != 0 && flow.flags & (NAT | SHARED) != 0 {
            self.live.insert(key);
        }
    }

    /// What can go. A frontend-side entry goes with the flow that it leads to: alone, it would let a connection that is only
    /// quiet choose another backend.
    fn expired(self) -> Vec<Idle> {
        let fronts = self.idle_fronts.into_iter();
        let fronts = fronts.filter(|(_, behind)| !self.live.contains(behind));
        self.over
            .into_iter()
            .chain(fronts.map(|(front, _)| front))
            .collect()
    }
}

/// Key of the entry that a frontend-side entry leads to.
fn behind(key: &FlowKey, front: &Flow) -> FlowKey {
    let opener = front.opener() as usize;
    let (client, port) = if front.flags & NETFILTER != 0 {
        (front.source_address, front.source_port)
    } else {
        let port = front.other_client_port().unwrap_or(key.ports[opener]);
        (own_client(key, front), port)
    };
    FlowKey::new(
        &client,
        port,
        &front.nat_address,
        front.nat_port,
        key.protocol,
    )
    .0
}

/// The client's address as its backend sees it.
fn own_client(key: &FlowKey, front: &Flow) -> Address {
    let opener = front.opener() as usize;
    if front.flags & HAIRPIN == 0 {
        key.addresses[opener]
    } else if key.addresses[opener].is_v4() {
        HAIRPIN_V4
    } else {
        HAIRPIN_V6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use weir_common::abi::{OPENER_HIGH, Side};
    use weir_common::logic::protocol;

    const RATE: u32 = 250;
    const ACK: u8 = 0x10;
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
    const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn sweep(now: u32) -> Sweep {
        Sweep {
            now,
            rate: RATE,
            ..Sweep::default()
        }
    }

    fn key(to: Ipv4Addr, port: u16) -> (FlowKey, Side) {
        let [from, to] = [CLIENT, to].map(Address::from);
        FlowKey::new(&from, 40_000, &to, port, protocol::TCP)
    }

    fn flow(side: Side, flags: u16, tcp_flags: [u8; 2], last_seen: u32) -> Flow {
        let opener = match side {
            Side::Low => 0,
            Side::High => OPENER_HIGH,
        };
        Flow {
            flags: flags | opener,
            tcp_flags,
            last_seen,
            ..Flow::default()
        }
    }

    /// The two entries of a connection to a Service, last heard of at tick 1000.
    fn connection() -> [(FlowKey, Flow); 2] {
        let (front_key, side) = key(SERVICE, 80);
        let mut seen = [0; 2];
        seen[side as usize] = ACK;
        let mut front = flow(side, FRONTEND_SIDE | NAT, seen, 1000);
        front.nat_address = BACKEND.into();
        front.nat_port = 8080;
        let (back_key, side) = key(BACKEND, 8080);
        let back = flow(side, BACKEND_SIDE | NAT, [ACK; 2], 1000);
        [(front_key, front), (back_key, back)]
    }

    fn expired(now: u32, flows: &[(FlowKey, Flow)]) -> Vec<FlowKey> {
        let mut sweep = sweep(now);
        for (key, flow) in flows {
            sweep.visit(*key, flow);
        }
        assert_eq!(sweep.entries, flows.len() as u64);
        sweep.expired().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_quiet_connection_keeps_both_entries() {
        let hour = 3600 * RATE;
        let flows = connection();
        assert!(expired(1000 + hour, &flows).is_empty());
        let [front, back] = flows;
        let late = 1000 + 7 * hour;
        assert_eq!(expired(late, &flows), [back.0, front.0]);
        // One whose flow was evicted goes.
        assert_eq!(expired(1000 + hour, &[front]), [front.0]);
        assert_eq!(expired(1000 + RATE, &[front]), []);
    }

    /// Netfilter translates it, and masquerades the client.
    #[test]
    fn a_quiet_connection_of_netfilters_keeps_both_entries_too() {
        let hour = 3600 * RATE;
        let [(front_key, mut front), (_, mut back)] = connection();
        front.flags |= NETFILTER;
        (front.source_address, front.source_port) = (Ipv4Addr::new(172, 30, 0, 1).into(), 7);
        let (back_key, _) = FlowKey::new(
            &front.source_address,
            front.source_port,
            &front.nat_address,
            front.nat_port,
            protocol::TCP,
        );
        back.flags = BACKEND_SIDE | SHARED;
        back.last_seen = 1000 + 7 * hour;
        let flows = [(front_key, front), (back_key, back)];
        assert!(expired(1000 + 7 * hour, &flows).is_empty());
        assert_eq!(expired(1000 + 7 * hour, &flows[..1]), [front_key]);
    }

    #[test]
    fn the_clock_may_wrap_and_be_overtaken() {
        let (key, side) = key(BACKEND, 8080);
        let before_wrap = flow(side, BACKEND_SIDE, [ACK; 2], u32::MAX - 10);
        assert!(expired(10, &[(key, before_wrap)]).is_empty());
        let after = flow(side, BACKEND_SIDE, [0; 2], 2000);
        assert!(expired(1999, &[(key, after)]).is_empty());
        // Over, but its ports may be in use again any moment.
        assert!(expired(2000 + 61 * RATE, &[(key, after)]).is_empty());
        assert_eq!(expired(2000 + (61 + GRACE) * RATE, &[(key, after)]), [key]);
    }
}
