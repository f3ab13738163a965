//! Room in the arrays of a generation: runs are taken, given back, and rest before they are taken again.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use rustc_hash::FxBuildHasher;
use weir_common::abi::Segment;

/// Allocator of runs of array elements.
///
/// A program may still read a run when the plan that replaced it is done. A run given back in one plan can therefore be taken
/// only in a later one, and unless a grace period has passed meanwhile, that plan must begin with one ([`Space::needs_wait`]).
/// Room that needs none is preferred, so that they are rare.
#[derive(Clone, Debug)]
pub(super) struct Space {
    capacity: u32,
    next: u32,
    /// Runs that no program reads any more.
    free: BTreeMap<u32, u32>,
    /// Runs of former plans, still to be followed by a grace period.
    resting: Vec<(u32, u32)>,
    /// Runs of the current plan.
    given_back: Vec<(u32, u32)>,
    needs_wait: bool,
}

impl Space {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            next: 0,
            free: BTreeMap::new(),
            resting: Vec::new(),
            given_back: Vec::new(),
            needs_wait: false,
        }
    }

    /// Starts a plan.
    pub(super) fn begin(&mut self) {
        self.needs_wait = false;
        self.resting.append(&mut self.given_back);
    }

    /// Whether this plan took a run that programs may still read.
    pub(super) fn needs_wait(&self) -> bool {
        self.needs_wait
    }

    /// The plan begins with a grace period: what rested is free.
    pub(super) fn settle(&mut self) {
        for (base, count) in std::mem::take(&mut self.resting) {
            self.insert_free(base, count);
        }
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        if let Some(base) = self.take_free(count) {
            return Some(base);
        }
        if self.capacity - self.next >= count {
            self.next += count;
            return Some(self.next - count);
        }
        self.settle();
        self.needs_wait = true;
        self.take_free(count)
    }

    fn take_free(&mut self, count: u32) -> Option<u32> {
        let (&base, &room) = self.free.iter().find(|(_, room)| **room >= count)?;
        self.free.remove(&base);
        if room > count {
            self.free.insert(base + count, room - count);
        }
        Some(base)
    }

    fn insert_free(&mut self, mut base: u32, mut count: u32) {
        if let Some((&before, &room)) = self.free.range(..base).next_back()
            && before + room == base
        {
            self.free.remove(&before);
            base = before;
            count += room;
        }
        if let Some(room) = self.free.remove(&(base + count)) {
            count += room;
        }
        self.free.insert(base, count);
    }
}

/// The runs of an array by their content: equal content has one run.
#[derive(Clone, Debug)]
pub(super) struct Segments<T> {
    pub(super) space: Space,
    runs: GenericHashMap<Arc<[T]>, Run, FxBuildHasher, DefaultSharedPtr>,
}

/// Where content is, and how many use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    base: u32,
    users: u32,
}

impl<T: Copy + Eq + Hash> Segments<T> {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            space: Space::new(capacity),
            runs: GenericHashMap::default(),
        }
    }

    /// The run with this content, for one more user. A new one is handed to `write` element by element; `None` if there is no room.
    pub(super) fn place(
        &mut self,
        content: &Arc<[T]>,
        mut write: impl FnMut(u32, T),
    ) -> Option<Segment> {
        let count = content.len() as u32;
        if count == 0 {
            return Some(Segment::default());
        }
        if let Some(&Run { base, users }) = self.runs.get(content) {
            let users = users + 1;
            self.runs.insert(content.clone(), Run { base, users });
            return Some(Segment { base, count });
        }
        let base = self.space.take(count)?;
        for (index, element) in (base..).zip(content.iter()) {
            write(index, *element);
        }
        self.runs.insert(content.clone(), Run { base, users: 1 });
        Some(Segment { base, count })
    }

    /// Where content is that is in use.
    pub(super) fn segment(&self, content: &Arc<[T]>) -> Segment {
        let count = content.len() as u32;
        let base = self.runs.get(content).map(|run| run.base);
        base.map_or_else(Segment::default, |base| Segment { base, count })
    }

    /// What the runs in use hold, by index.
    pub(super) fn elements(&self) -> impl Iterator<Item = (u32, T)> {
        self.runs
            .iter()
            .flat_map(|(content, run)| (run.base..).zip(content.iter().copied()))
    }

    /// One user less of the run with this content: the last one gives it back.
    pub(super) fn release(&mut self, content: &Arc<[T]>) {
        let Some(&Run { base, users }) = self.runs.get(content) else {
            // Nothing takes no room.
            return;
        };
        if users > 1 {
            let users = users - 1;
            self.runs.insert(content.clone(), Run { base, users });
        } else {
            self.runs.remove(content);
            self.space.given_back.push((base, content.len() as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segments: &mut Segments<u32>, content: &[u32]) -> Option<u32> {
        segments
            .place(&content.into(), |_, _| ())
            .map(|segment| segment.base)
    }

    fn release(segments: &mut Segments<u32>, content: &[u32]) {
        segments.release(&content.into());
    }

    #[test]
    fn a_run_given_back_rests_until_the_next_plan_and_then_asks_for_a_wait() {
        let mut segments = Segments::new(4);
        assert_eq!(place(&mut segments, &[1, 2]), Some(0));
        assert_eq!(place(&mut segments, &[3]), Some(2));
        assert_eq!(
            place(&mut segments, &[1, 2]),
            Some(0),
            "equal content, one run"
        );
        release(&mut segments, &[1, 2]);
        segments.space.begin();
        assert_eq!(place(&mut segments, &[4, 5]), None, "still in use");
        release(&mut segments, &[1, 2]);
        assert_eq!(place(&mut segments, &[4, 5]), None, "still read");

        segments.space.begin();
        assert_eq!(place(&mut segments, &[6]), Some(3), "unused room first");
        assert!(!segments.space.needs_wait());
        assert_eq!(place(&mut segments, &[4, 5]), Some(0));
        assert!(segments.space.needs_wait());
    }

    #[test]
    fn neighbouring_runs_join() {
        let mut segments = Segments::new(3);
        for content in [[1], [2], [3]] {
            place(&mut segments, &content);
        }
        for content in [[2], [1], [3]] {
            release(&mut segments, &content);
        }
        segments.space.begin();
        assert_eq!(place(&mut segments, &[4, 5, 6]), Some(0));
    }
}
