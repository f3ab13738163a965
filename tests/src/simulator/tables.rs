//! What the kernel keeps in maps, here.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use weir::plan::MemoryMaps;
use weir_common::abi::{
    Address, Affinity, AffinityKey, Counter, Device, Event, Flow, FlowKey, FragmentKey,
    FragmentPorts, Hook, Verdict,
};
use weir_common::logic::{self, Route, Scratch};

use super::context::Context;

/// A node's data path: the maps that the agent fills, and those that packets fill.
pub struct Simulator {
    /// What the agent wrote.
    pub maps: MemoryMaps,
    /// Uplinks and tunnel devices.
    pub devices: BTreeMap<u32, Device>,
    /// Where packets to these addresses go on; to others there is no way.
    pub routes: BTreeMap<Address, NextHop>,
    /// What routing was asked.
    pub asked: RefCell<Vec<Route>>,
    /// Whether packets leave no trace.
    pub dry_run: bool,
    /// Bytes of the next packet that can be read before the others are asked for; of those after it, all.
    pub at_hand: Cell<usize>,
    #[expect(
        clippy::vec_box,
        reason = "what the packet at hand refers to must stay where it is"
    )]
    pub(super) deleted: RefCell<Vec<Box<UnsafeCell<Flow>>>>,
    pub(super) flows: RefCell<BTreeMap<FlowKey, Box<UnsafeCell<Flow>>>>,
    pub(super) fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    pub(super) affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
    pub(super) counters: RefCell<BTreeMap<u32, Counter>>,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) packet: RefCell<Vec<u8>>,
    pub(super) step: Cell<Step>,
    pub(super) ticks_per_second: u32,
    /// What the packet at hand finds after so many more lookups.
    pub(super) held_up: RefCell<Option<(u32, Rc<MemoryMaps>)>>,
    scratch: RefCell<[Scratch; Hook::COUNT as usize]>,
}

/// A known neighbour, and the way to it.
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    /// The device.
    pub ifindex: u32,
    /// Its MTU.
    pub mtu: u32,
    /// Its Ethernet address.
    pub from: [u8; 6],
    /// The neighbour's Ethernet address.
    pub to: [u8; 6],
}

/// Where, when and with what luck a packet comes by.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The hook.
    pub hook: Hook,
    /// Its device.
    pub ifindex: u32,
    /// The device that the packet came in by, 0 if it was born on the host.
    pub ingress_ifindex: u32,
    /// Clock in ticks.
    pub clock: u32,
    /// The random number.
    pub random: u32,
}

impl Simulator {
    /// A node whose agent has written `maps`, without flows, on a kernel with that clock.
    #[must_use]
    pub fn new(maps: MemoryMaps, ticks_per_second: u32) -> Self {
        let nowhere = Step {
            hook: Hook::FromPod,
            ifindex: 0,
            ingress_ifindex: 0,
            clock: 0,
            random: 0,
        };
        Self {
            maps,
            devices: BTreeMap::new(),
            routes: BTreeMap::new(),
            asked: RefCell::default(),
            dry_run: false,
            at_hand: Cell::new(usize::MAX),
            deleted: RefCell::default(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            affinities: RefCell::default(),
            counters: RefCell::default(),
            events: RefCell::default(),
            packet: RefCell::default(),
            step: Cell::new(nowhere),
            ticks_per_second,
            held_up: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// Sends a packet past a hook; gives the verdict and what the packet has become.
    pub fn run(&self, step: Step, packet: &[u8]) -> (Verdict, u8, Vec<u8>) {
        self.step.set(step);
        self.packet.replace(packet.to_vec());
        let mut scratch = self.scratch.borrow_mut();
        let scratch = &mut scratch[step.hook as usize];
        let context = Context(self);
        let outcome = match step.hook {
            Hook::FromPod => logic::from_pod(context, scratch),
            Hook::ToPod => logic::to_pod(context, scratch),
            Hook::FromNet => logic::from_net(context, scratch),
            Hook::ToNet => logic::to_net(context, scratch),
        };
        self.deleted.borrow_mut().clear();
        self.at_hand.set(usize::MAX);
        (outcome.verdict(), outcome.reason(), self.packet.take())
    }

    /// Sends a packet past a hook as [`Self::run`] does, by a processor that is held up after `lookups` lookups in maps of the agent, until
    /// those are as in `later`; says, too, whether the packet needed that many. What it changes in tables of its own counts.
    pub fn run_held_up(
        &self,
        step: Step,
        packet: &[u8],
        lookups: u32,
        later: &Rc<MemoryMaps>,
    ) -> ((Verdict, u8, Vec<u8>), bool) {
        self.held_up.replace(Some((lookups, Rc::clone(later))));
        let outcome = self.run(step, packet);
        let left = self.held_up.take();
        (outcome, left.is_some_and(|(lookups, _)| lookups == 0))
    }

    /// Sends a packet past the XDP hook of `step.ifindex`, before its other hooks; as [`Self::run`] does.
    pub fn run_xdp(&self, step: Step, packet: &[u8]) -> (Verdict, u8, Vec<u8>) {
        self.step.set(step);
        self.packet.replace(packet.to_vec());
        let scratch = &mut self.scratch.borrow_mut()[Hook::FromNet as usize];
        let outcome = logic::xdp_net(Context(self), scratch);
        (outcome.verdict(), outcome.reason(), self.packet.take())
    }

    /// All flows.
    pub fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        // SAFETY: nothing writes to an entry outside `run`.
        self.flows
            .borrow()
            .iter()
            .map(|(key, flow)| (*key, unsafe { *flow.get() }))
            .collect()
    }

    /// Enters a flow, as an agent does.
    pub fn enter_flow(&self, key: FlowKey, flow: Flow) {
        let entry = Box::new(UnsafeCell::new(flow));
        self.flows.borrow_mut().insert(key, entry);
    }

    /// Forgets the flows that are chosen, as the kernel forgets what it has no room for.
    pub fn forget_flow(&self, chosen: impl Fn(&Flow) -> bool) {
        let keep = |flow: &mut Box<UnsafeCell<Flow>>| !chosen(flow.get_mut());
        self.flows.borrow_mut().retain(|_, flow| keep(flow));
    }

    /// Forgets all flows, and where clients went.
    pub fn forget_flows(&self) {
        self.flows.borrow_mut().clear();
        self.affinities.borrow_mut().clear();
    }

    /// Where clients of Services with affinity went.
    pub fn affinities(&self) -> BTreeMap<AffinityKey, Affinity> {
        self.affinities.borrow().clone()
    }

    /// Counters that are not zero, by [`Hook::counter`].
    pub fn counters(&self) -> BTreeMap<u32, Counter> {
        self.counters.borrow().clone()
    }

    /// Takes the events sent so far.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }
}
