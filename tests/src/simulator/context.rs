//! The logic's surroundings.

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use weir::plan::MemoryMaps;
use weir_common::abi::{
    Address, Affinity, AffinityKey, BackendState, Class, Device, Endpoint, EndpointKey, Event,
    Flow, FlowKey, FlowRef, FragmentKey, FragmentPorts, Frontend, FrontendKey, PrefixKey, Range,
    Segment, Slot, SourceKey, VerdictKey, control,
};
use weir_common::logic::{Env, Maps, Route, Routes, Services, nanoseconds};

use super::tables::Simulator;

#[derive(Clone, Copy)]
pub(super) struct Context<'s>(pub(super) &'s Simulator);

impl Context<'_> {
    /// Looks into what all generations share.
    fn shared<T>(self, look: impl FnOnce(&MemoryMaps) -> T) -> T {
        match &mut *self.0.held_up.borrow_mut() {
            Some((0, later)) => look(later),
            Some((lookups, _)) => {
                *lookups -= 1;
                look(&self.0.maps)
            }
            None => look(&self.0.maps),
        }
    }

    /// Looks into the maps of a generation: for the whole packet that which was selected when it came.
    fn config<T>(self, look: impl FnOnce(&MemoryMaps) -> T) -> T {
        let began = &self.0.maps;
        self.shared(|maps| {
            let same = maps.control(control::SELECTED) == began.control(control::SELECTED);
            look(if same { maps } else { began })
        })
    }
}

impl Env for Context<'_> {
    fn now(&self) -> u32 {
        self.0.step.get().clock
    }

    fn ticks_per_second(&self) -> u32 {
        self.0.ticks_per_second
    }

    fn time(&self) -> u64 {
        nanoseconds(self.now(), self.ticks_per_second())
    }

    fn random(&self) -> u32 {
        self.0.step.get().random
    }

    fn ifindex(&self) -> u32 {
        self.0.step.get().ifindex
    }

    fn ingress_ifindex(&self) -> u32 {
        self.0.step.get().ingress_ifindex
    }

    fn dry_run(&self) -> bool {
        self.0.dry_run
    }
}

impl Services for Context<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.config(|maps| maps.frontend(key))
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.config(|maps| maps.slot(index))
    }

    fn backend(&self, id: u32) -> Option<BackendState> {
        Some(self.shared(|maps| maps.backend(id)))
    }

    fn admits(&self, key: &SourceKey) -> bool {
        self.config(|maps| maps.admits(key))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.0.affinities.borrow().get(key).copied()
    }

    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        self.0.affinities.borrow_mut().insert(*key, *affinity);
    }
}

impl Maps for Context<'_> {
    fn control(&self, index: u32) -> u64 {
        self.shared(|maps| maps.control(index))
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.config(|maps| maps.endpoint(key))
    }

    fn class(&self, address: &Address) -> Option<Class> {
        self.config(|maps| maps.class(address))
    }

    fn prefix(&self, key: &PrefixKey) -> Option<Class> {
        self.config(|maps| maps.prefix(&key.address))
    }

    fn verdict(&self, key: &VerdictKey) -> Option<Segment> {
        self.config(|maps| maps.verdict(key))
    }

    fn range(&self, index: u32) -> Option<Range> {
        self.config(|maps| maps.range(index))
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        let flows = self.0.flows.borrow();
        let flow = NonNull::new(flows.get(key)?.get())?;
        // SAFETY: entries are boxed and only dropped between packets.
        Some(unsafe { FlowRef::new(flow) })
    }

    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> bool {
        let mut flows = self.0.flows.borrow_mut();
        match flows.get(key) {
            // SAFETY: no reference to the value exists, only `FlowRef`s, which copy.
            Some(entry) => unsafe { *entry.get() = *flow },
            None => {
                flows.insert(*key, Box::new(UnsafeCell::new(*flow)));
            }
        }
        true
    }

    fn insert_new_flow(&self, key: &FlowKey, flow: &Flow) -> bool {
        let new = !self.0.flows.borrow().contains_key(key);
        new && self.insert_flow(key, flow)
    }

    fn delete_flow(&self, key: &FlowKey) {
        let flow = self.0.flows.borrow_mut().remove(key);
        // The packet at hand may still refer to it, as it may in the kernel.
        self.0.deleted.borrow_mut().extend(flow);
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        self.0.devices.get(&ifindex).copied()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.0.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.0.fragments.borrow_mut().insert(*key, *ports);
    }

    fn count(&self, counter: u32, bytes: u32) {
        let mut counters = self.0.counters.borrow_mut();
        let counter = counters.entry(counter).or_default();
        counter.packets += 1;
        counter.bytes += u64::from(bytes);
    }

    fn emit(&self, event: &Event) {
        self.0.events.borrow_mut().push(*event);
    }
}

impl Routes for Context<'_> {
    fn route(&self, route: &mut Route) -> bool {
        self.0.asked.borrow_mut().push(*route);
        let words = |[a, b, c, d, e, f]: [u8; 6]| [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
        let Some(hop) = self.0.routes.get(&route.destination) else {
            return false;
        };
        route.ifindex = hop.ifindex;
        (route.from, route.to) = (words(hop.from), words(hop.to));
        route.length <= hop.mtu
    }
}
