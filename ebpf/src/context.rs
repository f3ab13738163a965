//! What a program of any kind has: the context that the kernel gave it, and the maps.

use core::arch::asm;
use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::lpm_trie::Key;
use weir_common::abi::{
    Address, Affinity, AffinityKey, BackendState, Class, Device, Endpoint, EndpointKey, Event,
    Flow, FlowKey, FlowRef, FragmentKey, FragmentPorts, Frontend, FrontendKey, PrefixKey, Range,
    Segment, Slot, SourceKey, VerdictKey, control,
};
use weir_common::logic::{Maps, Services};

use crate::maps::{
    self, CLASS, CONTROL, COUNTER, DEVICE, ENDPOINT, EVENTS, FLOW, FRAGMENT, PREFIX, RANGE,
    VERDICT, copy,
};

/// A program's context, of the kernel's type for its hook. The maps are the same at all hooks.
#[derive(Clone, Copy)]
pub(crate) struct Context<K> {
    raw: *mut K,
    generation: u32,
}

impl<K> Context<K> {
    /// Takes the pointer that the kernel called the program with.
    #[inline(always)]
    pub(crate) fn new(context: *mut K) -> Self {
        Self {
            raw: context,
            generation: maps::selected(),
        }
    }

    /// The pointer, for helpers.
    #[inline(always)]
    pub(crate) fn raw(self) -> *mut K {
        self.raw
    }

    /// Reads a field.
    #[inline(always)]
    pub(crate) fn field<T: Copy>(self, field: impl FnOnce(*mut K) -> *mut T) -> T {
        // SAFETY: the kernel gave us this context; the verifier checks every field access.
        unsafe { *field(self.raw) }
    }
}

impl<K> Services for Context<K> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        maps::frontend(self.generation, key)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        maps::slot(self.generation, index)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<BackendState> {
        maps::backend(id)
    }

    #[inline(always)]
    fn admits(&self, key: &SourceKey) -> bool {
        maps::admits(self.generation, key)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        maps::affinity(key)
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        maps::remember(key, affinity);
    }
}

impl<K> Maps for Context<K> {
    #[inline(always)]
    fn control(&self, index: u32) -> u64 {
        CONTROL.get(index).map_or(0, |word| *word)
    }

    #[inline(always)]
    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        ENDPOINT.get_value_ptr_mut(self.generation, key).map(copy)
    }

    #[inline(always)]
    fn class(&self, address: &Address) -> Option<Class> {
        CLASS.get_value_ptr_mut(self.generation, address).map(copy)
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<Class> {
        PREFIX
            .get_value_ptr_mut(self.generation, &Key::new(key.bits, key.address))
            .map(copy)
    }

    #[inline(always)]
    fn verdict(&self, key: &VerdictKey) -> Option<Segment> {
        VERDICT.get_value_ptr_mut(self.generation, key).map(copy)
    }

    #[inline(always)]
    fn range(&self, index: u32) -> Option<Range> {
        RANGE.get_value(self.generation, &index).copied()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        let flow = NonNull::new(FLOW.get_ptr_mut(key)?)?;
        // SAFETY: elements stay mapped for the run of the program.
        Some(unsafe { FlowRef::new(flow) })
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> bool {
        increment(control::FLOWS_INSERTED);
        FLOW.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn insert_new_flow(&self, key: &FlowKey, flow: &Flow) -> bool {
        if key.claimed == 0 {
            increment(control::FLOWS_INSERTED);
        }
        FLOW.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn delete_flow(&self, key: &FlowKey) {
        // That it is gone already is as good.
        let _ = FLOW.remove(key);
    }

    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<Device> {
        DEVICE.get_ptr_mut(ifindex).map(copy)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        FRAGMENT.get_ptr_mut(key).map(copy)
    }

    #[inline(always)]
    fn insert_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // A full table costs a fragmented datagram, which is then counted as such.
        let _ = FRAGMENT.insert(key, ports, 0);
    }

    #[inline(always)]
    fn count(&self, counter: u32, bytes: u32) {
        if let Some(counter) = COUNTER.get_ptr_mut(counter) {
            // SAFETY: this CPU's element.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn emit(&self, event: &Event) {
        if EVENTS.output(event, 0).is_err() {
            increment(control::EVENTS_LOST);
        }
    }
}

/// Adds 1 to a word of the control array.
#[inline(always)]
fn increment(index: u32) {
    if let Some(word) = CONTROL.get_ptr_mut(index) {
        // Shared with other CPUs, hence atomic; core has no atomic addition for this target.
        // SAFETY: an aligned element of the array.
        unsafe {
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) 1u64, options(nostack));
        };
    }
}
