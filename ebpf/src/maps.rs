//! The maps. Names are those of pins and metrics.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage,
};
use aya_ebpf::macros::btf_map;
use weir_common::abi::{
    self, Address, Affinity, AffinityKey, BackendState, Class, Counter, DEVICES, Device, Endpoint,
    EndpointKey, Event, Flow, FlowKey, FragmentKey, FragmentPorts, Frontend, FrontendKey,
    GENERATIONS, Hook, Pair, Pairs, Range, Segment, Slot, SourceKey, SourceScope, VerdictKey,
    control,
};
use weir_common::logic::Scratch;
use weir_common::reason::Reason;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
// Lets inner arrays of any length into the outer map.
const INNER_ARRAY: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

#[btf_map(name = "control")]
pub(crate) static CONTROL: Array<u64, { control::ENTRIES as usize }, MMAPABLE> = Array::new();
#[btf_map(name = "counter")]
pub(crate) static COUNTER: PerCpuArray<Counter, { (Hook::COUNT * Reason::SLOTS) as usize }> =
    PerCpuArray::new();
// The agent sets the capacity when it loads.
#[btf_map(name = "flow")]
pub(crate) static FLOW: LruHashMap<FlowKey, Flow, 262_144> = LruHashMap::new();
#[btf_map(name = "fragment")]
pub(crate) static FRAGMENT: LruHashMap<FragmentKey, FragmentPorts, 8_192> = LruHashMap::new();
#[btf_map(name = "backend")]
static BACKEND: Array<BackendState, 1_048_576, MMAPABLE> = Array::new();
#[btf_map(name = "device")]
pub(crate) static DEVICE: HashMap<u32, Device, { DEVICES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<Event, 1_048_576> = RingBuf::new();
#[btf_map(name = "socket")]
pub(crate) static SOCKET: SkStorage<Pairs> = SkStorage::new();
#[btf_map(name = "connected")]
pub(crate) static CONNECTED: LruHashMap<u64, Pair, { abi::CONNECTED as usize }> = LruHashMap::new();
#[btf_map(name = "affinity")]
static AFFINITY: LruHashMap<AffinityKey, Affinity, { abi::AFFINITIES as usize }> =
    LruHashMap::new();
#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, { Hook::COUNT as usize }> = PerCpuArray::new();

// One map per generation. The agent makes them, of any size; the size here is that of a template.
#[btf_map(name = "frontend")]
static FRONTEND: ArrayOfMaps<
    HashMap<FrontendKey, Frontend, 1, NO_PREALLOC>,
    { GENERATIONS as usize },
> = ArrayOfMaps::new();
#[btf_map(name = "slot")]
static SLOT: ArrayOfMaps<Array<Slot, 1, INNER_ARRAY>, { GENERATIONS as usize }> =
    ArrayOfMaps::new();
#[btf_map(name = "source")]
static SOURCE: ArrayOfMaps<LpmTrie<SourceScope, u32, 1>, { GENERATIONS as usize }> =
    ArrayOfMaps::new();
#[btf_map(name = "endpoint")]
pub(crate) static ENDPOINT: ArrayOfMaps<
    HashMap<EndpointKey, Endpoint, 1, NO_PREALLOC>,
    { GENERATIONS as usize },
> = ArrayOfMaps::new();
#[btf_map(name = "class")]
pub(crate) static CLASS: ArrayOfMaps<
    HashMap<Address, Class, 1, NO_PREALLOC>,
    { GENERATIONS as usize },
> = ArrayOfMaps::new();
#[btf_map(name = "prefix")]
pub(crate) static PREFIX: ArrayOfMaps<LpmTrie<Address, Class, 1>, { GENERATIONS as usize }> =
    ArrayOfMaps::new();
#[btf_map(name = "verdict")]
pub(crate) static VERDICT: ArrayOfMaps<
    HashMap<VerdictKey, Segment, 1, NO_PREALLOC>,
    { GENERATIONS as usize },
> = ArrayOfMaps::new();
#[btf_map(name = "range")]
pub(crate) static RANGE: ArrayOfMaps<Array<Range, 1, INNER_ARRAY>, { GENERATIONS as usize }> =
    ArrayOfMaps::new();

/// 1 in the copy of the programs that only answers what would happen: the verifier removes every write.
#[unsafe(no_mangle)]
static DRY_RUN: Global<u32> = Global::new(0);
/// 1 in the copy that tests load: clock and random number come with the packet.
#[unsafe(no_mangle)]
static REPLAY: Global<u32> = Global::new(0);
/// CONFIG_HZ of the running kernel.
#[unsafe(no_mangle)]
static TICKS_PER_SECOND: Global<u32> = Global::new(250);
/// Cookie of the node's network namespace, whose sockets are the node's own processes'; 0 if the kernel does not tell.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u64> = Global::new(0);
/// 1 if pods' sockets are served, too.
#[unsafe(no_mangle)]
static SERVES_PODS: Global<u32> = Global::new(0);
/// 1 if the kernel lets a socket program choose the error of the system call.
#[unsafe(no_mangle)]
static CHOOSES_ERROR: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn dry_run() -> bool {
    DRY_RUN.load() != 0
}

#[inline(always)]
pub(crate) fn replay() -> bool {
    REPLAY.load() != 0
}

#[inline(always)]
pub(crate) fn ticks_per_second() -> u32 {
    TICKS_PER_SECOND.load()
}

#[inline(always)]
pub(crate) fn node_netns() -> u64 {
    NODE_NETNS.load()
}

#[inline(always)]
pub(crate) fn serves_pods() -> bool {
    SERVES_PODS.load() != 0
}

#[inline(always)]
pub(crate) fn chooses_error() -> bool {
    CHOOSES_ERROR.load() != 0
}

/// The generation in force. Read once for each packet or call: what one generation's tables refer to means something else in another's.
#[inline(always)]
pub(crate) fn selected() -> u32 {
    CONTROL
        .get(control::SELECTED)
        .map_or(0, |selected| *selected as u32 & 1)
}

/// Copies a map value, which may be reused at any time.
#[inline(always)]
pub(crate) fn copy<T: Copy>(value: *mut T) -> T {
    // SAFETY: map memory stays readable for the run of the program.
    unsafe { *value }
}

#[inline(always)]
pub(crate) fn frontend(generation: u32, key: &FrontendKey) -> Option<Frontend> {
    FRONTEND.get_value_ptr_mut(generation, key).map(copy)
}

#[inline(always)]
pub(crate) fn slot(generation: u32, index: u32) -> Option<Slot> {
    SLOT.get_value(generation, &index).copied()
}

#[inline(always)]
pub(crate) fn backend(id: u32) -> Option<BackendState> {
    BACKEND.get(id).copied()
}

#[inline(always)]
pub(crate) fn admits(generation: u32, key: &SourceKey) -> bool {
    SOURCE
        .get_value_ptr_mut(generation, &Key::new(key.bits, key.scope))
        .is_some()
}

#[inline(always)]
pub(crate) fn affinity(key: &AffinityKey) -> Option<Affinity> {
    AFFINITY.get_ptr_mut(key).map(copy)
}

#[inline(always)]
pub(crate) fn remember(key: &AffinityKey, affinity: &Affinity) {
    // Without room the client's next connection may go elsewhere.
    let _ = AFFINITY.insert(key, affinity, 0);
}

/// Working memory of this CPU and hook. Hooks have their own: a packet can meet the second while the first handles another.
#[inline(always)]
pub(crate) fn scratch(hook: Hook) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(hook as u32)?;
    // SAFETY: the element lives as long as the map, and softirqs, in which hooks run, do not interrupt each other on one CPU.
    Some(unsafe { &mut *scratch })
}
