//! Keys and values of every BPF map, as both sides of the kernel border see them.
//!
//! All types are `repr(C)` without padding (zerocopy's derive proves it), so that hashing a key hashes no garbage.
//! Integers are in host byte order except [`Address`], which keeps the bytes as they are on the wire.
//! A change of any layout must change [`LAYOUT`]: pinned maps of another layout are not adopted.

mod address;
mod conntrack;
mod device;
mod event;
mod policy;
mod service;
mod socket;
#[cfg(test)]
mod tests;

pub use address::{Address, PrefixKey};
pub use conntrack::{
    BACKEND_SIDE, EXTERNAL, End, FAST, FRONTEND_SIDE, Flow, FlowKey, FlowRef, FragmentKey,
    FragmentPorts, HAIRPIN, NAT, NETFILTER, OPENER_HIGH, ROLE_OPENER, ROLE_RESPONDER, SHARED,
    SOURCE_SIDE, Side,
};
pub use device::{DEVICES, Device};
pub use event::{Counter, Event, Hook, Verdict};
pub use policy::{
    CLASS_UNSET, CLASS_WORLD, Class, Endpoint, EndpointKey, ROW_ABSENT, ROW_OPEN, RULE_HAIRPIN,
    RULE_NODE, RULE_NONE, RULE_NOT_ISOLATED, RULE_RESERVED, Range, Rows, Segment, VerdictKey,
    range_bound,
};
pub use service::{
    AFFINITIES, AFFINITY, Affinity, AffinityKey, BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_GONE,
    BACKEND_UNREADY, BackendState, DROP_EXTERNAL, DROP_INTERNAL, Frontend, FrontendKey,
    IN_CLUSTER_SET, IN_LOCAL_SET, NODE_OUTSIDE, NODE_PORT, SERVICES_ONLY, SOURCE_RANGES, Slot,
    SourceKey, SourceScope, WILDCARD,
};
pub use socket::{CONNECTED, Pair, Pairs};

/// Number of this layout; part of the pin path.
pub const LAYOUT: u32 = 3;

/// Generations of configuration maps that exist at once: the selected one and the one being built.
pub const GENERATIONS: u32 = 2;

/// Slots of the pinned `control` array (`u64` each).
pub mod control {
    /// Which generation of the configuration maps programs read: 0 or 1.
    pub const SELECTED: u32 = 0;
    /// Bit 0 says which version of two-version elements (rows, classes) is in force.
    pub const VERSION: u32 = 1;
    /// Policy epoch: an approval given at another epoch is judged again.
    pub const EPOCH: u32 = 2;
    /// Last sign of life of the agent, seconds of CLOCK_BOOTTIME.
    pub const HEARTBEAT: u32 = 3;
    /// One of this many allowed new flows is reported in the ring buffer; 0 reports none. Drops are always reported.
    pub const SAMPLE: u32 = 4;
    /// Events that found the ring buffer full.
    pub const EVENTS_LOST: u32 = 5;
    /// Flows inserted since the map was made; with the entries present this counts evictions.
    pub const FLOWS_INSERTED: u32 = 6;
    /// 1 if TCP connections to backends that are gone are reset; 0 if they are kept.
    pub const RESET_GONE: u32 = 7;
    /// Not 0 while connections that netfilter tracks are entered into the table: packets of others that are not known wait.
    pub const TAKING_OVER: u32 = 8;
    /// 1 if a pod may send with addresses that are not its own, and answers for them; 0 if such packets are dropped.
    pub const FOREIGN_SOURCES: u32 = 9;
    /// Number of slots.
    pub const ENTRIES: u32 = 16;
}
