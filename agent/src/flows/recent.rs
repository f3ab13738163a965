//! The newest records.

use std::collections::VecDeque;

use super::Record;

/// The newest records, at most a fixed number of them.
#[derive(Debug)]
pub struct Recent {
    records: VecDeque<Record>,
    capacity: usize,
}

impl Recent {
    /// Room for `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            records: VecDeque::new(),
            capacity,
        }
    }

    /// Adds a record; the oldest one goes when there is no room.
    pub fn push(&mut self, record: Record) {
        while self.records.len() >= self.capacity.max(1) {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Record> {
        self.records.iter().cloned().collect()
    }
}
