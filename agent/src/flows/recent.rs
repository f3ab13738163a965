//! The newest records, and who follows them.

use std::collections::VecDeque;

use tokio::sync::broadcast;

use super::Record;

/// Records that a follower may be behind; of more it misses some, and is told how many.
const BEHIND: usize = 4096;

/// The newest records, at most a fixed number of them.
#[derive(Debug)]
pub struct Recent {
    records: VecDeque<Record>,
    capacity: usize,
    followers: broadcast::Sender<Record>,
}

impl Recent {
    /// Room for `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            records: VecDeque::new(),
            capacity,
            followers: broadcast::Sender::new(BEHIND),
        }
    }

    /// Adds a record; the oldest one goes when there is no room.
    pub fn push(&mut self, record: Record) {
        while self.records.len() >= self.capacity.max(1) {
            self.records.pop_front();
        }
        if self.followers.receiver_count() > 0 {
            // That the last one has just left is no error.
            let _ = self.followers.send(record.clone());
        }
        self.records.push_back(record);
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Record> {
        self.records.iter().cloned().collect()
    }

    /// Those that come from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Record> {
        self.followers.subscribe()
    }
}
