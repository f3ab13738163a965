//! What flows did between two walks over the flow table.

use std::hash::{BuildHasher as _, RandomState};

use rustc_hash::FxHashMap;
use weir_common::abi::{Address, BACKEND_SIDE, Flow, FlowKey};

use super::Counts;
use crate::flows::ends::{Ends, Place};

/// Most pairs that are told apart: whoever makes up addresses must not fill the memory.
const PAIRS: usize = 1 << 16;

/// 64 bits that stand for a flow, of a hash that nobody outside can foresee.
type Mark = u64;

/// Whom a flow was between, whatever the port of whoever opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) source: Address,
    /// What it was addressed to and the id of that Service port, if it was a Service.
    pub(super) frontend: Option<(Place, u64)>,
    pub(super) backend: Place,
    /// IP protocol number.
    pub(super) protocol: u8,
}

/// What is known from one walk to the next.
#[derive(Debug)]
pub struct Counting {
    hash: RandomState,
    /// Ticks of the clock in a second.
    rate: u32,
    /// Tick at which the last walk began. Flows from before it, which that walk has not found, were not there.
    since: u32,
    /// Number of the walk under way.
    walk: u32,
    known: FxHashMap<Mark, Known>,
    counted: Counted,
}

/// A flow as a walk has found it.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    walk: u32,
    /// They wrap; no interval has as many.
    packets: [u32; 2],
    bytes: [u64; 2],
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) pairs: FxHashMap<Pair, Counts>,
    /// What is between too many others: all of it, and that to Services.
    pub(super) surplus: [Counts; 2],
    /// Flows that the last walk has found.
    pub(super) flows: u64,
}

impl Counting {
    /// Nothing is known yet, at tick `now` of a clock that makes `rate` ticks a second: the first walk tells how things stand, and what has begun
    /// since.
    #[must_use]
    pub fn new(rate: u32, now: u32) -> Self {
        Self {
            hash: RandomState::new(),
            rate,
            since: now,
            walk: 0,
            known: FxHashMap::default(),
            counted: Counted::default(),
        }
    }

    /// Takes in an entry as it is at about tick `now`.
    pub fn visit(&mut self, key: &FlowKey, flow: &Flow, now: u32) {
        if key.claimed != 0 || flow.flags & BACKEND_SIDE == 0 {
            return;
        }
        self.counted.flows += 1;
        let mark = self.hash.hash_one((key, flow.created));
        let found = Known {
            walk: self.walk,
            packets: flow.packets.map(|packets| packets as u32),
            bytes: flow.bytes,
        };
        let before = self.known.insert(mark, found);
        let is_new = before.is_none();
        if is_new && !self.began_since(flow, now) {
            return;
        }
        let before = before.unwrap_or_default();
        let ends = Ends::of(key, flow);
        // Other CPUs write while this reads: an older value may come after a newer one.
        let packets = |side: usize| {
            let more = found.packets[side].wrapping_sub(before.packets[side]);
            u64::from(if more as i32 > 0 { more } else { 0 })
        };
        let bytes = |side: usize| found.bytes[side].saturating_sub(before.bytes[side]);
        let counts = Counts {
            connections: is_new.into(),
            packets_sent: packets(ends.own),
            packets_received: packets(ends.other),
            bytes_sent: bytes(ends.own),
            bytes_received: bytes(ends.other),
            drops: 0,
        };
        if counts == Counts::default() {
            return;
        }
        let pair = Pair {
            source: ends.source.0,
            frontend: ends.frontend.map(|frontend| (frontend, flow.service)),
            backend: ends.backend,
            protocol: key.protocol,
        };
        self.counted.add(pair, counts);
    }

    /// Whether a flow has begun since the start of the last walk. The clock wraps: an old flow may seem to be of any time but that.
    fn began_since(&self, flow: &Flow, now: u32) -> bool {
        let span = now.wrapping_sub(self.since).saturating_add(self.rate);
        flow.created.wrapping_sub(self.since) <= span
    }

    /// Ends a walk that began at tick `start`, and forgets what it has not found. What the first one has counted is told with the second.
    pub(super) fn end(&mut self, start: u32) -> Option<Counted> {
        let walk = self.walk;
        self.known.retain(|_, known| known.walk == walk);
        let is_first = walk == 0;
        self.walk += 1;
        self.since = start;
        if is_first {
            self.counted.flows = 0;
            return None;
        }
        Some(std::mem::take(&mut self.counted))
    }
}

impl Counted {
    fn add(&mut self, pair: Pair, counts: Counts) {
        if self.pairs.len() < PAIRS || self.pairs.contains_key(&pair) {
            *self.pairs.entry(pair).or_default() += counts;
            return;
        }
        let [all, to_services] = &mut self.surplus;
        *all += counts;
        if pair.frontend.is_some() {
            *to_services += counts;
        }
    }
}
