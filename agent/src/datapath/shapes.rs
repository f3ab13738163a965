//! What every map looks like: the contract with the object file, checked against pins.

use weir_common::abi::{
    AFFINITIES, Address, Affinity, AffinityKey, BackendState, CONNECTED, Class, Counter, DEVICES,
    Device, Endpoint, EndpointKey, Flow, FlowKey, FragmentKey, FragmentPorts, Frontend,
    FrontendKey, GENERATIONS, Hook, Pair, Pairs, PrefixKey, Range, Segment, Slot, SourceKey,
    VerdictKey, control,
};
use weir_common::reason::Reason;

use super::bpf::{Shape, map_type};
use crate::plan::Table;

/// Pinned maps that exist once.
pub(crate) const SHARED: [&str; 10] = [
    "control",
    "counter",
    "flow",
    "fragment",
    "backend",
    "device",
    "events",
    "socket",
    "connected",
    "affinity",
];

/// Shape of a pinned map; `None` for its entries where they are the operator's choice.
pub(crate) fn shared(name: &str) -> Option<(Shape, bool)> {
    let fixed = |shape| Some((shape, true));
    let sized = |shape| Some((shape, false));
    match name {
        "control" => fixed(shape::<u32, u64>(
            map_type::ARRAY,
            control::ENTRIES,
            Shape::MMAPABLE,
        )),
        "counter" => fixed(shape::<u32, Counter>(
            map_type::PERCPU_ARRAY,
            Hook::COUNT * Reason::SLOTS,
            0,
        )),
        "flow" => sized(shape::<FlowKey, Flow>(map_type::LRU_HASH, 0, 0)),
        "fragment" => sized(shape::<FragmentKey, FragmentPorts>(
            map_type::LRU_HASH,
            0,
            0,
        )),
        "backend" => sized(shape::<u32, BackendState>(
            map_type::ARRAY,
            0,
            Shape::MMAPABLE,
        )),
        "device" => fixed(shape::<u32, Device>(
            map_type::HASH,
            DEVICES,
            Shape::NO_PREALLOC,
        )),
        "socket" => fixed(shape::<u32, Pairs>(
            map_type::SK_STORAGE,
            0,
            Shape::NO_PREALLOC,
        )),
        "connected" => fixed(shape::<u64, Pair>(map_type::LRU_HASH, CONNECTED, 0)),
        "affinity" => fixed(shape::<AffinityKey, Affinity>(
            map_type::LRU_HASH,
            AFFINITIES,
            0,
        )),
        "events" => sized(shape::<(), ()>(map_type::RINGBUF, 0, 0)),
        _ => Table::GENERATION
            .into_iter()
            .any(|table| table.name() == name)
            .then(|| (root(), true)),
    }
}

/// Shape of the map of maps that holds a table of both generations.
pub(crate) const fn root() -> Shape {
    shape::<u32, u32>(map_type::ARRAY_OF_MAPS, GENERATIONS, 0)
}

/// Shape of one generation's map of a table.
pub(crate) const fn inner(table: Table, entries: u32) -> Shape {
    const SPARSE: u32 = Shape::NO_PREALLOC;
    const ARRAY: u32 = Shape::INNER | Shape::MMAPABLE;
    match table {
        Table::Frontend => shape::<FrontendKey, Frontend>(map_type::HASH, entries, SPARSE),
        Table::Slot => shape::<u32, Slot>(map_type::ARRAY, entries, ARRAY),
        Table::Source => shape::<SourceKey, u32>(map_type::LPM_TRIE, entries, SPARSE),
        Table::Endpoint => shape::<EndpointKey, Endpoint>(map_type::HASH, entries, SPARSE),
        Table::Class => shape::<Address, Class>(map_type::HASH, entries, SPARSE),
        Table::Prefix => shape::<PrefixKey, Class>(map_type::LPM_TRIE, entries, SPARSE),
        Table::Verdict => shape::<VerdictKey, Segment>(map_type::HASH, entries, SPARSE),
        Table::Range => shape::<u32, Range>(map_type::ARRAY, entries, ARRAY),
        Table::Backend => shape::<u32, BackendState>(map_type::ARRAY, entries, Shape::MMAPABLE),
    }
}

const fn shape<K, V>(kind: u32, entries: u32, flags: u32) -> Shape {
    Shape {
        kind,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
        flags,
    }
}
