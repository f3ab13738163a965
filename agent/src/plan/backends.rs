//! Ids of backends. They outlive generations and the agent, because flows refer to them.

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet, Vector};
use weir_common::abi::{BACKEND_ACTIVE, BACKEND_GONE, BackendState};

use super::contents::Contents;
use super::sizes::BACKENDS;
use super::step::{Step, Table};

/// What the array of backend states holds.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    capacity: u32,
    ids: OrdMap<u32, u32>,
    states: Vector<BackendState>,
    /// What the last plan made of it; nothing while that is not known, since there was none, or it failed.
    led: Option<OrdMap<u32, BackendState>>,
    /// Elements whose content is not known for sure, since a plan failed.
    doubtful: bool,
    /// Ids without a backend; the ones of the current plan rest until the next.
    free: OrdSet<u32>,
    needs_wait: bool,
}

impl Default for Backends {
    fn default() -> Self {
        Self::new(BACKENDS)
    }
}

impl Backends {
    /// An empty array of so many elements.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            ids: OrdMap::new(),
            states: Vector::new(),
            led: None,
            doubtful: false,
            free: OrdSet::new(),
            needs_wait: false,
        }
    }

    /// Takes over what another agent process left. A fingerprint keeps its id.
    pub(super) fn adopt(&mut self, found: &[(u32, BackendState)]) {
        for (id, state) in found {
            if *state == BackendState::default() || *id >= self.capacity {
                continue;
            }
            while self.states.len() <= *id as usize {
                self.states.push_back(BackendState::default());
            }
            self.states.set(*id as usize, *state);
            let holder = self.ids.get(&state.fingerprint);
            if holder.is_none_or(|holder| self.states[*holder as usize].state == BACKEND_GONE) {
                self.ids.insert(state.fingerprint, *id);
            }
        }
        self.rest();
    }

    /// Distrusts what the array is believed to hold; the next plan writes all of it.
    pub(super) fn distrust(&mut self) {
        self.led = None;
        self.doubtful = true;
    }

    /// Whether this plan took an id that programs may still read.
    pub(super) fn needs_wait(&self) -> bool {
        self.needs_wait
    }

    /// The id of a fingerprint that [`Backends::arrive`] has seen.
    pub(super) fn id(&self, fingerprint: u32) -> u32 {
        self.ids[&fingerprint]
    }

    /// Brings in what is new or active again, before anything leads there. Those for which there is no room are returned.
    pub(super) fn arrive(
        &mut self,
        desired: &OrdMap<u32, BackendState>,
        steps: &mut Vec<Step>,
    ) -> Vec<u32> {
        let arriving = self.arriving(desired).into_iter();
        let (known, new): (Vec<_>, Vec<_>) =
            arriving.partition(|(fingerprint, _)| self.ids.contains_key(fingerprint));
        // First of all, a fingerprint keeps its id, even when it was gone.
        for (fingerprint, state) in known {
            let id = self.id(fingerprint);
            self.free.remove(&id);
            self.bring(id, state, steps);
        }
        let mut late = Vec::new();
        for (fingerprint, state) in new {
            match self.unused() {
                Some(id) => {
                    self.ids.insert(fingerprint, id);
                    self.bring(id, state, steps);
                }
                None => late.push(fingerprint),
            }
        }
        late
    }

    fn bring(&mut self, id: u32, state: BackendState, steps: &mut Vec<Step>) {
        let held = self.states[id as usize];
        if self.doubtful
            || held.state == BACKEND_GONE
            || state.state == BACKEND_ACTIVE && held != state
        {
            self.write(id, state, steps);
        }
    }

    /// Desired backends that are not known to be there.
    fn arriving(&self, desired: &OrdMap<u32, BackendState>) -> Vec<(u32, BackendState)> {
        let Some(led) = &self.led else {
            return desired.iter().map(|(key, state)| (*key, *state)).collect();
        };
        let differences = led.diff(desired);
        let arriving = differences.filter_map(|item| match item {
            DiffItem::Add(fingerprint, state)
            | DiffItem::Update {
                new: (fingerprint, state),
                ..
            } => Some((*fingerprint, *state)),
            DiffItem::Remove(..) => None,
        });
        arriving.collect()
    }

    /// Drains or ends what nothing leads to any more.
    pub(super) fn leave(&mut self, desired: &OrdMap<u32, BackendState>, steps: &mut Vec<Step>) {
        match self.led.take() {
            Some(led) => self.leave_from(&led, desired, steps),
            None => self.leave_all(desired, steps),
        }
        self.led = Some(desired.clone());
        self.doubtful = false;
        self.needs_wait = false;
    }

    /// Where all elements are as the last plan left them.
    fn leave_from(
        &mut self,
        led: &OrdMap<u32, BackendState>,
        desired: &OrdMap<u32, BackendState>,
        steps: &mut Vec<Step>,
    ) {
        for item in led.diff(desired) {
            let (fingerprint, state) = match item {
                DiffItem::Add(fingerprint, state)
                | DiffItem::Update {
                    new: (fingerprint, state),
                    ..
                } => (*fingerprint, *state),
                DiffItem::Remove(&fingerprint, _) => (
                    fingerprint,
                    BackendState {
                        fingerprint,
                        ..BackendState::default()
                    },
                ),
            };
            let id = self.id(fingerprint);
            if self.states[id as usize] != state {
                self.write(id, state, steps);
            }
            if state.state == BACKEND_GONE {
                self.free.insert(id);
            }
        }
    }

    /// Where nothing is known of an element but what was read.
    fn leave_all(&mut self, desired: &OrdMap<u32, BackendState>, steps: &mut Vec<Step>) {
        for id in 0..self.states.len() as u32 {
            let held = self.states[id as usize];
            let fingerprint = held.fingerprint;
            let state = match desired.get(&fingerprint) {
                Some(state) if self.ids.get(&fingerprint) == Some(&id) => *state,
                _ => BackendState {
                    fingerprint,
                    ..BackendState::default()
                },
            };
            let never_used = held == BackendState::default();
            if held != state || self.doubtful && state.state == BACKEND_GONE && !never_used {
                self.write(id, state, steps);
            }
        }
        self.rest();
    }

    /// An id that was never used, else that of a backend long gone.
    fn unused(&mut self) -> Option<u32> {
        if self.states.len() < self.capacity as usize {
            self.states.push_back(BackendState::default());
            return Some(self.states.len() as u32 - 1);
        }
        let id = self.free.remove_min()?;
        self.needs_wait = true;
        let former = self.states[id as usize].fingerprint;
        if self.ids.get(&former) == Some(&id) {
            self.ids.remove(&former);
        }
        Some(id)
    }

    /// Every element, as it was last written.
    pub(super) fn list(&self, contents: &mut Contents) {
        for (id, state) in (0_u32..).zip(&self.states) {
            contents.add(&id, state);
        }
    }

    fn rest(&mut self) {
        let gone = self.states.iter().zip(0_u32..);
        let gone = gone.filter(|(held, _)| held.state == BACKEND_GONE);
        self.free = gone.map(|(_, id)| id).collect();
    }

    fn write(&mut self, id: u32, state: BackendState, steps: &mut Vec<Step>) {
        self.states.set(id as usize, state);
        steps.push(Step::write(Table::Backend, &id, &state));
    }
}

#[cfg(test)]
mod tests {
    use weir_common::abi::{BACKEND_DRAINING, IN_CLUSTER_SET, IN_LOCAL_SET};

    use super::*;

    fn active(fingerprints: impl IntoIterator<Item = u32>) -> OrdMap<u32, BackendState> {
        let all = fingerprints.into_iter();
        all.map(|fingerprint| {
            let state = BackendState {
                fingerprint,
                state: BACKEND_ACTIVE,
                ..BackendState::default()
            };
            (fingerprint, state)
        })
        .collect()
    }

    /// One plan's worth of changes; whether there was room, and whether it must wait.
    fn plan(backends: &mut Backends, desired: &OrdMap<u32, BackendState>) -> (bool, bool) {
        let mut steps = Vec::new();
        let room = backends.arrive(desired, &mut steps).is_empty();
        let waits = backends.needs_wait();
        backends.leave(desired, &mut steps);
        (room, waits)
    }

    #[test]
    fn ids_are_taken_from_the_gone_only_when_there_are_no_others() {
        let mut backends = Backends::default();
        assert_eq!(plan(&mut backends, &active(1..=BACKENDS)), (true, false));
        let one_less = active(2..=BACKENDS);
        assert_eq!(plan(&mut backends, &one_less), (true, false));
        assert_eq!(backends.id(1), 0, "it may return");

        let one_else = active(2..=BACKENDS + 1);
        assert_eq!(
            plan(&mut backends, &one_else),
            (true, true),
            "programs may still read what the id stood for"
        );
        assert_eq!(backends.id(BACKENDS + 1), 0);
        assert!(!backends.ids.contains_key(&1));
    }

    #[test]
    fn a_backend_too_many_is_refused() {
        let mut backends = Backends::default();
        assert_eq!(plan(&mut backends, &active(1..=BACKENDS)), (true, false));
        // Swapped within one plan: the id that becomes free rests until the next.
        let late = backends.arrive(&active(2..=BACKENDS + 1), &mut Vec::new());
        assert_eq!(late, [BACKENDS + 1]);
    }

    fn state(fingerprint: u32, state: u16, sets: u16) -> BackendState {
        BackendState {
            fingerprint,
            state,
            sets,
        }
    }

    /// What is written before anything leads to a backend, and after.
    fn written(backends: &mut Backends, desired: &[BackendState]) -> [usize; 2] {
        let desired = desired.iter().map(|it| (it.fingerprint, *it)).collect();
        let mut before = Vec::new();
        assert!(backends.arrive(&desired, &mut before).is_empty());
        let mut after = Vec::new();
        backends.leave(&desired, &mut after);
        [before, after].map(|steps| steps.len())
    }

    #[test]
    fn a_backend_gets_better_before_it_is_led_to_and_worse_when_it_is_not() {
        let active = state(7, BACKEND_ACTIVE, IN_CLUSTER_SET);
        let local = state(7, BACKEND_ACTIVE, IN_LOCAL_SET);
        let draining = state(7, BACKEND_DRAINING, 0);
        // Of an agent that goes on, and of one that comes after it: from the second plan on, or with the array as it was read.
        for restarts in [false, true] {
            let mut backends = Backends::new(2);
            for (desired, expected) in [
                (&[draining][..], [1, 0]),
                (&[active], [1, 0]),
                (&[active], [0, 0]),
                (&[local], [1, 0]),
                (&[draining], [0, 1]),
                (&[], [0, 1]),
                (&[], [0, 0]),
                (&[draining], [1, 0]),
            ] {
                if restarts {
                    let found: Vec<_> = (0..).zip(backends.states.iter().copied()).collect();
                    backends = Backends::new(2);
                    backends.adopt(&found);
                }
                let found = written(&mut backends, desired);
                assert_eq!(found, expected, "{desired:?}, restarts: {restarts}");
            }
        }
    }

    #[test]
    fn of_what_a_failed_plan_may_have_left_everything_is_written() {
        let mut backends = Backends::new(4);
        let [kept, gone] = [1, 2].map(|fingerprint| state(fingerprint, BACKEND_ACTIVE, 0));
        assert_eq!(written(&mut backends, &[kept, gone]), [2, 0]);
        assert_eq!(written(&mut backends, &[kept]), [0, 1]);
        backends.distrust();
        assert_eq!(written(&mut backends, &[kept]), [1, 1]);
        assert_eq!(written(&mut backends, &[kept]), [0, 0]);
    }

    #[test]
    fn an_array_is_taken_over_as_far_as_it_was_used() {
        let none = BackendState::default();
        let gone = state(7, BACKEND_GONE, 0);
        let alive = state(7, BACKEND_ACTIVE, 0);
        let adopted = |found: &[BackendState]| {
            let mut backends = Backends::new(2);
            let found: Vec<_> = (0..).zip(found.iter().copied()).collect();
            backends.adopt(&found);
            backends
        };
        let mut backends = adopted(&[none, none, alive]);
        let two = active([1, 2]);
        assert_eq!(plan(&mut backends, &two), (true, false), "never used");

        let mut backends = adopted(&[gone, state(8, BACKEND_GONE, 0)]);
        assert_eq!(plan(&mut backends, &two), (true, true), "long gone");

        // Two elements of one fingerprint: the one that is alive is kept, else the first.
        for (found, id, rest) in [
            ([gone, alive], 1, 0),
            ([alive, gone], 0, 1),
            ([alive, alive], 0, 1),
        ] {
            let mut backends = adopted(&found);
            assert_eq!(backends.id(7), id, "{found:?}");
            plan(&mut backends, &active([7]));
            assert_eq!(backends.states[rest as usize], gone, "{found:?}");
        }
    }
}
