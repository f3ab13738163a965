//! The logic's surroundings.

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use weir_common::abi::{
    Address, Affinity, AffinityKey, BackendState, Class, Device, Endpoint, EndpointKey, Event,
    Flow, FlowKey, FlowRef, FragmentKey, FragmentPorts, Frontend, FrontendKey, PrefixKey, Range,
    Segment, Slot, SourceKey, VerdictKey,
};
use weir_common::logic::{Env, Maps, Route, Routes, Services, nanoseconds};

use super::tables::Simulator;

#[derive(Clone, Copy)]
pub(super) struct Context<'s>(pub(super) &'s Simulator);

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
        false
    }
}

impl Services for Context<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.0.maps.frontend(key)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.0.maps.slot(index)
    }

    fn backend(&self, id: u32) -> Option<BackendState> {
        Some(self.0.maps.backend(id))
    }

    fn admits(&self, key: &SourceKey) -> bool {
        self.0.maps.admits(key)
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
        self.0.maps.control(index)
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.0.maps.endpoint(key)
    }

    fn class(&self, address: &Address) -> Option<Class> {
        self.0.maps.class(address)
    }

    fn prefix(&self, key: &PrefixKey) -> Option<Class> {
        self.0.maps.prefix(&key.address)
    }

    fn verdict(&self, key: &VerdictKey) -> Option<Segment> {
        self.0.maps.verdict(key)
    }

    fn range(&self, index: u32) -> Option<Range> {
        self.0.maps.range(index)
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
        let words = |[a, b, c, d, e, f]: [u8; 6]| [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
        let Some(hop) = self.0.routes.get(&route.destination) else {
            return false;
        };
        route.ifindex = hop.ifindex;
        (route.from, route.to) = (words(hop.from), words(hop.to));
        route.length <= hop.mtu
    }
}
