//! Walks over a table that changes meanwhile, against a model that knows each entry by a number of its own.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What happens to the table, or to the walk over it.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A client's port opens a connection, to the Service or to the backend itself, over whatever is there.
    Open { port: u16, service: bool },
    /// A packet of a connection that is there, with flags of both ends.
    Packet { port: u16, tcp_flags: [u8; 2] },
    /// The table needs room.
    Evict { port: u16, front: bool },
    /// Time goes by.
    Rest(u32),
    /// The walk goes on by so many entries; it begins anew after it has ended.
    Step(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let port = 1..=4_u16;
    let rests = prop_oneof![Just(1), Just(RATE), Just(11 * RATE), Just(61 * RATE)];
    let flags = || prop::sample::select(vec![ACK, ACK | FIN, ACK | RST]);
    prop_oneof![
        (port.clone(), any::<bool>()).prop_map(|(port, service)| Act::Open { port, service }),
        (port.clone(), flags(), flags()).prop_map(|(port, low, high)| Act::Packet {
            port,
            tcp_flags: [low, high]
        }),
        (port, any::<bool>()).prop_map(|(port, front)| Act::Evict { port, front }),
        rests.prop_map(Act::Rest),
        (1..6_usize).prop_map(Act::Step),
        Just(Act::Step(9)),
    ]
}

/// Number of an entry, which none other ever has.
type Id = u64;

#[derive(Debug, Default)]
struct World {
    now: u32,
    table: BTreeMap<FlowKey, (Id, Flow)>,
    /// Entries ever inserted.
    inserted: Id,
    /// Entries that a walk has found over.
    over: BTreeSet<Id>,
    /// Entries that were gone before the first walk.
    unseen: BTreeSet<Id>,
    ends: u64,
    lost: u64,
}

/// A walk as the model sees it.
#[derive(Debug, Default)]
struct Seen {
    live: BTreeSet<Id>,
    live_keys: BTreeSet<FlowKey>,
    fronts: Vec<(Id, FlowKey)>,
}

fn keys(port: u16) -> [(FlowKey, Side); 2] {
    let back = key(port, BACKEND, 8080, protocol::TCP);
    [back, key(port, SERVICE, 80, protocol::TCP)]
}

impl World {
    fn insert(&mut self, key: FlowKey, mut flow: Flow) {
        (flow.created, flow.last_seen) = (self.now, self.now);
        self.inserted += 1;
        self.table.insert(key, (self.inserted, flow));
    }

    fn apply(&mut self, act: Act) {
        // No two packets come at one tick here.
        self.now = self.now.wrapping_add(1);
        let now = self.now;
        match act {
            Act::Open { port, service } => {
                let [(back, side), (front, front_side)] = keys(port);
                let nat = if service { NAT } else { 0 };
                self.insert(back, flow(side, BACKEND_SIDE | nat, [ACK; 2]));
                if service {
                    let mut entry = flow(front_side, FRONTEND_SIDE | NAT, [ACK; 2]);
                    (entry.nat_address, entry.nat_port) = (BACKEND.into(), 8080);
                    self.insert(front, entry);
                }
            }
            Act::Packet { port, tcp_flags } => {
                let entry = self.table.get_mut(&keys(port)[0].0);
                // What is over by its time is not touched any more, but replaced.
                if let Some((_, flow)) = entry.filter(|(_, flow)| !is_late(flow, now)) {
                    flow.last_seen = now;
                    for (seen, new) in flow.tcp_flags.iter_mut().zip(tcp_flags) {
                        *seen |= new;
                    }
                }
            }
            Act::Evict { port, front } => {
                let [(back, _), (other, _)] = keys(port);
                self.table.remove(if front { &other } else { &back });
            }
            Act::Rest(ticks) => self.now = now.wrapping_add(ticks),
            Act::Step(_) => {}
        }
    }

    /// Whether an entry that a walk meets is to be told.
    fn meets(&mut self, seen: &mut Seen, key: FlowKey, start: Id, since: Option<u32>) -> bool {
        let (id, flow) = self.table[&key];
        if flow.flags & FRONTEND_SIDE != 0 {
            let port = key.ports.into_iter().find(|port| *port != 80).unwrap();
            if id <= start {
                seen.fronts.push((id, keys(port)[0].0));
            }
            return false;
        }
        if !is_over(&flow, self.now) {
            seen.live.insert(id);
            // Another connection of the same ports, past the Service, is none that a frontend leads to.
            if flow.flags & NAT != 0 {
                seen.live_keys.insert(key);
            }
            return false;
        }
        let is_news = since.is_none_or(|since| !is_over(&flow, since));
        let told = self.over.insert(id) && is_news;
        self.ends += u64::from(told);
        told
    }

    fn ends(&mut self, mut seen: Seen, start: Id, is_first: bool) {
        for (front, behind) in seen.fronts {
            if self.over.contains(&front) {
                continue;
            }
            let entries = if seen.live_keys.contains(&behind) {
                &mut seen.live
            } else {
                &mut self.over
            };
            entries.insert(front);
        }
        let gone = (1..=start).filter(|id| !self.over.contains(id) && !seen.live.contains(id));
        let gone: BTreeSet<Id> = gone.collect();
        if is_first {
            self.unseen.clone_from(&gone);
        }
        let lost = gone.difference(&self.unseen).count() as u64;
        self.lost = self.lost.max(lost);
    }
}

fn is_closed(flow: &Flow) -> bool {
    let [low, high] = flow.tcp_flags;
    (low | high) & RST != 0 || low & FIN != 0 && high & FIN != 0
}

/// No case is long enough for the six hours of an open connection.
fn is_late(flow: &Flow, now: u32) -> bool {
    is_closed(flow) && now.wrapping_sub(flow.last_seen) > 10 * RATE
}

fn is_over(flow: &Flow, now: u32) -> bool {
    // Of a flow of after that moment, the difference is as good as no time.
    let idle = now.wrapping_sub(flow.last_seen);
    is_closed(flow) && (RATE..u32::MAX / 2).contains(&idle)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_end_is_told_once_and_what_is_lost_is_counted(
        before in prop::collection::vec(act(), 0..20),
        acts in prop::collection::vec(act(), 1..120),
        clock in prop::sample::select(vec![7, u32::MAX - 3000]),
    ) {
        let mut world = World { now: clock, ..World::default() };
        for act in before {
            world.apply(act);
        }
        let since = world.now;
        let mut walks = Walks::new(RATE, since);
        let mut acts = acts.into_iter();
        // Two walks more after the last act, for what they find of the time before.
        let mut more = 3;
        let mut is_first = true;
        while more > 0 {
            world.apply(Act::Rest(1));
            let start = world.inserted;
            let mut walk = walks.begin(start, world.now);
            world.apply(Act::Rest(1));
            let mut seen = Seen::default();
            let mut next = world.table.first_key_value().map(|(key, _)| *key);
            while let Some(key) = next {
                let steps = match acts.next() {
                    Some(Act::Step(steps)) => steps,
                    Some(act) => {
                        world.apply(act);
                        0
                    }
                    None => usize::MAX,
                };
                // What is behind the walk's place is not met again, whatever comes there.
                let ahead: Vec<_> = world.table.range(key..).map(|(key, _)| *key).collect();
                let (met, rest) = ahead.split_at(steps.min(ahead.len()));
                for key in met {
                    let entry = world.table[key].1;
                    let told = world.meets(&mut seen, *key, start, is_first.then_some(since));
                    prop_assert_eq!(walk.visit(key, &entry, world.now), told, "{:?}", key);
                }
                next = rest.first().copied();
            }
            let _ = walk.end();
            world.ends(seen, start, is_first);
            is_first = false;
            let counts = walks.counts();
            prop_assert_eq!((counts.flows_ended, counts.entries_lost), (world.ends, world.lost));
            if let Some(act) = acts.next() {
                world.apply(act);
            } else {
                more -= 1;
            }
        }
    }
}
