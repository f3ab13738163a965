//! What walks over the kernel's flow table find: flows that have ended since the last one, entries that nobody needs, and how many went
//! without having been seen to end.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};

use rustc_hash::FxHashSet;
use weir_common::abi::{
    Address, BACKEND_SIDE, FRONTEND_SIDE, Flow, FlowKey, HAIRPIN, NAT, NETFILTER, SHARED,
};
use weir_common::logic::{HAIRPIN_V4, HAIRPIN_V6, is_closing, overdue, protocol};

/// Seconds that an entry is left alone after its time was over. It is harmless, and a client that opens many connections is about to
/// reuse its ports: the kernel replaces such an entry itself, and must not lose the new one to us.
const GRACE: u32 = 120;
/// Seconds without a packet after which a closed connection is told: the last acknowledgement comes after both FINs, and is to be counted.
const REST: u32 = 1;

/// An entry and when it was last seen.
pub type Idle = (FlowKey, u32);

/// 64 bits that stand for an entry, of a hash that nobody outside can foresee: in one full table of some five hundred million two entries have
/// the same. What was told takes a fifth of the memory so.
type Mark = u64;

/// What is known from one walk to the next. Walks do not overlap.
#[derive(Debug)]
pub struct Walks {
    hash: RandomState,
    /// Ticks of the clock in a second.
    rate: u32,
    /// What was over at this tick is no news.
    since: u32,
    /// Entries that the last walk found over; `None` before the first one.
    over: Option<FxHashSet<Mark>>,
    /// Entries that first walks have told which were given up.
    told: FxHashSet<Mark>,
    /// Entries that had been put into the table before the first walk and are of no account since: they were over or gone.
    before: u64,
    counts: Counts,
}

/// What became of the entries of the table, of which a flow to a Service has two or three. Since the first walk as many have ended, are lost or live
/// as were put into the table, but for those that lived then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries in the table, as the last walk found it.
    pub entries: u64,
    /// Flows that have ended.
    pub flows_ended: u64,
    /// Entries that were seen to be over, a frontend-side one when the flow that it leads to is.
    pub entries_ended: u64,
    /// Entries that were gone before a walk found them over: evicted, replaced, or without room from the beginning. Never falls.
    pub entries_lost: u64,
}

/// A walk under way.
#[derive(Debug)]
pub struct Walk<'w> {
    walks: &'w mut Walks,
    /// Entries ever put into the table, and the tick, when it began.
    inserted: u64,
    start: u32,
    entries: u64,
    over: FxHashSet<Mark>,
    /// Those of them that it was the first to find.
    found: FxHashSet<Mark>,
    /// Entries of before the start that live.
    live: u64,
    /// Entries of after the start that are over already.
    over_early: u64,
    fronts: Vec<Front>,
    /// Translated flows that live, by the mark of their keys.
    live_behind: FxHashSet<Mark>,
    /// Entries whose time was over long ago.
    idle: Vec<Idle>,
    /// The same of those that lead to another one, of which this is the mark. They see the opener's packets only.
    idle_fronts: Vec<(Idle, Mark)>,
}

/// An entry that leads to another one, and is over when that is.
#[derive(Debug)]
struct Front {
    own: Mark,
    behind: Mark,
}

impl Walks {
    /// Before the first walk, of a clock that makes `rate` ticks a second. What was over at tick `since` is not told.
    #[must_use]
    pub fn new(rate: u32, since: u32) -> Self {
        Self {
            hash: RandomState::new(),
            rate,
            since,
            over: None,
            told: FxHashSet::default(),
            before: 0,
            counts: Counts::default(),
        }
    }

    /// What there was so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Begins a walk at tick `now`, when `inserted` entries had ever been put into the table (read before `now`).
    pub fn begin(&mut self, inserted: u64, now: u32) -> Walk<'_> {
        Walk {
            walks: self,
            inserted,
            start: now,
            entries: 0,
            over: FxHashSet::default(),
            found: FxHashSet::default(),
            live: 0,
            over_early: 0,
            fronts: Vec::new(),
            live_behind: FxHashSet::default(),
            idle: Vec::new(),
            idle_fronts: Vec::new(),
        }
    }

    /// Whether the packet logic takes the flow for over.
    fn is_over(&self, key: &FlowKey, flow: &Flow, now: u32) -> bool {
        let [low, high] = flow.tcp_flags;
        let idle = now.wrapping_sub(flow.last_seen);
        let rests = idle as i32 > 0 && idle >= REST * self.rate;
        let closed = key.protocol == protocol::TCP && is_closing(low, high);
        closed && rests || overdue(key.protocol, flow, now, self.rate).is_some()
    }
}

impl Walk<'_> {
    /// Takes in an entry as it is at tick `now`. Whether it is a flow that has ended, and has not been told.
    pub fn visit(&mut self, key: &FlowKey, flow: &Flow, now: u32) -> bool {
        // No flow: a processor is replacing one.
        if key.claimed != 0 {
            return false;
        }
        self.entries += 1;
        let own = self.walks.hash.hash_one((key, flow.created));
        let age = now.wrapping_sub(self.start);
        let known = self.walks.over.as_ref();
        // The clock wraps: an old entry may seem to be from any time but that of the walk. `now` may be some time ago. Of an entry from the tick of
        // the start nobody knows whether it is counted; it must not seem lost, neither at the first walk nor after it.
        let first_tick = u32::from(known.is_some());
        let since_start = flow.created.wrapping_sub(self.start);
        let is_new = (first_tick..=age.saturating_add(self.walks.rate)).contains(&since_start);
        let overdue = overdue(key.protocol, flow, now, self.walks.rate);
        let is_idle = overdue.is_some_and(|ticks| ticks > GRACE * self.walks.rate);
        if flow.flags & FRONTEND_SIDE != 0 {
            let behind = self.walks.hash.hash_one(behind(key, flow));
            if is_idle {
                self.idle_fronts.push(((*key, flow.last_seen), behind));
            }
            if !is_new {
                self.fronts.push(Front { own, behind });
            }
            return false;
        }
        // One that is closed may get packets yet, and is not to be told again when it rests.
        let was_over = known.unwrap_or(&self.walks.told).contains(&own);
        let is_over = self.walks.is_over(key, flow, now);
        if !is_over && flow.flags & BACKEND_SIDE != 0 && flow.flags & (NAT | SHARED) != 0 {
            self.live_behind.insert(self.walks.hash.hash_one(key));
        }
        if !is_over && !was_over {
            self.live += u64::from(!is_new);
            return false;
        }
        if is_idle {
            self.idle.push((*key, flow.last_seen));
        }
        self.over.insert(own);
        let is_old = known.is_none() && self.walks.is_over(key, flow, self.walks.since);
        if was_over || is_old {
            return false;
        }
        self.found.insert(own);
        self.over_early += u64::from(is_new);
        self.walks.counts.entries_ended += 1;
        let is_flow = flow.flags & BACKEND_SIDE != 0;
        self.walks.counts.flows_ended += u64::from(is_flow);
        is_flow
    }

    /// Gives up a walk that cannot go on: what it has told stays told.
    pub fn give_up(self) {
        match &mut self.walks.over {
            Some(over) => over.extend(self.over),
            None => self.walks.told.extend(self.found),
        }
    }

    /// Ends the walk: entries that can go. A frontend-side entry goes with the flow that it leads to: alone, it would let a connection that is only
    /// quiet choose another backend.
    #[must_use]
    pub fn end(mut self) -> Vec<Idle> {
        let counts = &mut self.walks.counts;
        let known = self.walks.over.as_ref();
        for front in &self.fronts {
            let told = known.is_some_and(|over| over.contains(&front.own));
            if told {
                self.over.insert(front.own);
            } else if self.live_behind.contains(&front.behind) {
                self.live += 1;
            } else {
                self.over.insert(front.own);
                counts.entries_ended += u64::from(known.is_some());
            }
        }
        counts.entries = self.entries;
        let accounted = counts.entries_ended - self.over_early + self.live;
        let gone = self.inserted.saturating_sub(accounted);
        if known.is_none() {
            self.walks.before = gone;
        }
        let lost = gone.saturating_sub(self.walks.before);
        counts.entries_lost = counts.entries_lost.max(lost);
        self.walks.over = Some(self.over);
        self.walks.told = FxHashSet::default();
        let fronts = self.idle_fronts.into_iter();
        let fronts = fronts.filter(|(_, behind)| !self.live_behind.contains(behind));
        self.idle
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
