//! The newest records, and who follows them.

use std::collections::VecDeque;

use tokio::sync::broadcast;

use super::Record;

/// Records that a follower may be behind; of more it misses some, and is told how many.
const BEHIND: usize = 4096;

/// The newest records, at most a fixed number of them. Ends of flows are kept apart: there are more of them, and they must not drive out
/// drops.
#[derive(Debug)]
pub struct Recent {
    packets: VecDeque<Record>,
    ends: VecDeque<Record>,
    capacity: usize,
    pushed: u64,
    followers: broadcast::Sender<Record>,
}

impl Recent {
    /// Room for `capacity` records of packets, and as many ends of flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            packets: VecDeque::new(),
            ends: VecDeque::new(),
            capacity,
            pushed: 0,
            followers: broadcast::Sender::new(BEHIND),
        }
    }

    /// Adds a record; the oldest one goes when there is no room.
    pub fn push(&mut self, record: Record) {
        if self.followers.receiver_count() > 0 {
            // That the last one has just left is no error.
            let _ = self.followers.send(record.clone());
        }
        self.pushed += 1;
        self.add(record);
    }

    fn add(&mut self, record: Record) {
        let records = if record.ended.is_some() {
            &mut self.ends
        } else {
            &mut self.packets
        };
        while records.len() >= self.capacity.max(1) {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len() + self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most that there can be.
    #[must_use]
    pub const fn room(&self) -> usize {
        2 * self.capacity
    }

    /// Records ever pushed.
    #[must_use]
    pub const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Puts older records, oldest first, before those that there are.
    pub fn restore(&mut self, older: Vec<Record>) {
        let newer = self.to_vec();
        self.packets.clear();
        self.ends.clear();
        older.into_iter().chain(newer).for_each(|it| self.add(it));
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.packets.iter().chain(&self.ends).cloned().collect();
        records.sort_by_key(|record| record.time);
        records
    }

    /// Those that come from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Record> {
        self.followers.subscribe()
    }
}
