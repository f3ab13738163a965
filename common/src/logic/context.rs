//! What the logic needs from its surroundings.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::parse::Headers;
use crate::abi::{
    Address, Affinity, AffinityKey, BackendState, Class, Device, Endpoint, EndpointKey, Event,
    Flow, FlowKey, FlowRef, FragmentKey, FragmentPorts, Frontend, FrontendKey, PrefixKey, Range,
    Segment, Side, Slot, SourceKey, VerdictKey,
};

/// The packet, from its Ethernet header on. Offsets and lengths are bytes.
pub trait Packet: Copy {
    /// Length of the whole packet.
    fn length(&self) -> u32;

    /// The bytes at `offset`, or `None` when they are not at hand (too short, or see [`Packet::pull`]).
    fn load<T: FromBytes + Copy>(&self, offset: u32) -> Option<T>;

    /// Overwrites bytes; false if they are not at hand.
    fn store<T: IntoBytes + Immutable + Copy>(&self, offset: u32, value: T) -> bool;

    /// Makes as many header bytes as possible available to `load`; false if that brought nothing new.
    fn pull(&self) -> bool;

    /// Corrects the transport checksum at `offset` by a [`super::difference`]. `pseudo` says that the pseudo header changed (else
    /// bytes under the checksum did), `optional` that a checksum of zero means there is none (UDP).
    fn fix_checksum(
        &self,
        offset: u32,
        difference: u32,
        pseudo: bool,
        optional: bool,
        v6: bool,
    ) -> bool;

    /// [`super::crc32c_effect`], wherever it is best done.
    fn crc32c_effect(&self, change: u32, length: u32, polynomial: u32) -> u32 {
        super::crc32c_effect(change, length, polynomial)
    }

    /// Cuts the packet to `length`.
    fn trim(&self, length: u32) -> bool;

    /// Makes room for `bytes` between the Ethernet header and what follows.
    fn insert_after_ethernet(&self, bytes: u32) -> bool;
}

/// Clock, randomness and where we are.
pub trait Env {
    /// The clock, in ticks; wraps.
    fn now(&self) -> u32;

    /// Ticks per second.
    fn ticks_per_second(&self) -> u32;

    /// CLOCK_MONOTONIC in nanoseconds, for events.
    fn time(&self) -> u64;

    /// A random number.
    fn random(&self) -> u32;

    /// The hook's device.
    fn ifindex(&self) -> u32;

    /// The device that the packet came in by; 0 for packets born on this host.
    fn ingress_ifindex(&self) -> u32;

    /// Whether nothing may be written to any map: the answer is all that is wanted.
    fn dry_run(&self) -> bool;
}

/// What [`Env::time`] gives where the clock in ticks is all there is: in replays and in the simulator.
#[inline(always)]
#[must_use]
pub const fn nanoseconds(ticks: u32, ticks_per_second: u32) -> u64 {
    // Never by zero, for a program cannot panic.
    match ticks_per_second {
        0 => 0,
        rate => ticks as u64 * (1_000_000_000 / rate as u64),
    }
}

/// The maps of Services. Lookups copy, for an element may be reused while we look at it.
pub trait Services {
    /// A Service frontend.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// A backend of a set.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// What became of a backend.
    fn backend(&self, id: u32) -> Option<BackendState>;
    /// Whether a client is in a range of a Service port.
    fn admits(&self, key: &SourceKey) -> bool;
    /// Where a client's last connection went.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Notes where a client's connection goes.
    fn remember(&self, key: &AffinityKey, affinity: &Affinity);
}

/// The maps. Lookups copy as those of Services do; flows are the exception.
pub trait Maps: Services {
    /// A word of the control array.
    fn control(&self, index: u32) -> u64;
    /// A local pod.
    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint>;
    /// Class of exactly this address.
    fn class(&self, address: &Address) -> Option<Class>;
    /// Class of the longest prefix around this address.
    fn prefix(&self, key: &PrefixKey) -> Option<Class>;
    /// What a row allows to a class.
    fn verdict(&self, key: &VerdictKey) -> Option<Segment>;
    /// A range of a segment.
    fn range(&self, index: u32) -> Option<Range>;
    /// A tracked flow.
    fn flow(&self, key: &FlowKey) -> Option<FlowRef>;
    /// Inserts or replaces a flow; false if the map takes none.
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Inserts a flow where there is none; false if there is one, or the map takes none.
    fn insert_new_flow(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Forgets a flow.
    fn delete_flow(&self, key: &FlowKey);
    /// An uplink or tunnel device.
    fn device(&self, ifindex: u32) -> Option<Device>;
    /// Ports of a datagram whose first fragment was seen.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Notes the ports of a first fragment.
    fn insert_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);
    /// Adds one packet of `bytes` to a counter, see [`crate::abi::Hook::counter`].
    fn count(&self, counter: u32, bytes: u32);
    /// Sends an event, or counts it as lost.
    fn emit(&self, event: &Event);
}

/// A question to the kernel's routing tables, and the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Route {
    /// Where the packet comes from, as the backend or client at the far end is called.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// In host byte order.
    pub source_port: u16,
    /// In host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: [u8; 3],
    /// 1 for IPv6.
    pub v6: u32,
    /// IPv4: type of service. IPv6: traffic class and flow label, as on the wire.
    pub class: u32,
    /// Bytes from the IP header on, which must fit the MTU; 0 if they need not.
    pub length: u32,
    /// The device that it leaves by.
    pub ifindex: u32,
    /// Ethernet address of that device.
    pub from: [u16; 3],
    /// Ethernet address of the neighbour that it goes to.
    pub to: [u16; 3],
}

/// The kernel's routing tables, for packets that go past its network stack.
pub trait Routes {
    /// Where a packet that came in by this device goes on; false where anything but sending it to a known neighbour is due.
    fn route(&self, route: &mut Route) -> bool;
}

/// Everything at once; small and passed by value.
pub trait Context: Packet + Env + Maps {}

impl<C: Packet + Env + Maps> Context for C {}

/// Two ends and a protocol, with the key that they give.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuple {
    /// Canonical key.
    pub key: FlowKey,
    /// 0 if the source is the low end, 1 if it is the high end.
    pub source_side: u32,
}

impl Tuple {
    /// Which end the packet's source is.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Side {
        if self.source_side == 0 {
            Side::Low
        } else {
            Side::High
        }
    }

    /// The tuple of a packet between these ends.
    #[inline(always)]
    #[must_use]
    pub fn new(
        source: &Address,
        source_port: u16,
        destination: &Address,
        destination_port: u16,
        protocol: u8,
    ) -> Self {
        let (key, side) =
            FlowKey::new(source, source_port, destination, destination_port, protocol);
        Self {
            key,
            source_side: side as u32,
        }
    }
}

/// Whether the packet's destination was a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Translation {
    /// It was not.
    #[default]
    None,
    /// The packet goes to a backend.
    ToBackend,
    /// The packet goes back to the pod that sent it.
    ToItself,
}

/// Which of a pod's rows judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// What comes to it.
    #[default]
    Ingress,
    /// What it sends.
    Egress,
}

/// ICMP errors of about a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors {
    /// Clock of its beginning, in the kernel's ticks.
    pub since: u32,
    /// How many were made since.
    pub made: u32,
}

/// Working memory of one packet: an element of a per-CPU map, since the stack is too small. It holds what the last packet left
/// there; every field but `errors` is written before it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Scratch {
    /// The parsed packet.
    pub headers: Headers,
    /// The packet inside an ICMP error.
    pub inner: Headers,
    /// The packet's own tuple.
    pub tuple: Tuple,
    /// 1 if the table had an entry at that tuple when the packet came, see `known::meet`.
    pub met: u32,
    /// The tuple that policy judges: with the backend in place of the frontend.
    pub judged: Tuple,
    /// Where the packet goes instead of to a frontend.
    pub slot: Slot,
    /// The port that the backend sees there as the client's. In an ICMP error about such a connection: the port of the client that the
    /// error's reader knows, 0 where it is the quoted one.
    pub source_port: u16,
    /// How it gets there. Here and not in an argument: of a constant that reaches a function called, Linux 6.1's verifier
    /// (measured on 6.1.192) lost the paths of the other constants.
    pub translation: Translation,
    /// 1 where the client is outside the cluster. Here for the same reason.
    pub external: u32,
    /// Service of that frontend.
    pub service: u64,
    /// That frontend.
    pub frontend: Frontend,
    /// The client of a Service that asks for affinity.
    pub client: AffinityKey,
    /// Where that client goes.
    pub affinity: Affinity,
    /// The pod at this device.
    pub endpoint: Endpoint,
    /// Which version of the two-version elements judges the packet: 0 or 1.
    pub version: u32,
    /// The device that the packet leaves by.
    pub device: Device,
    /// How it gets to the next machine.
    pub route: Route,
    /// Which way that pod is being judged.
    pub direction: Direction,
    /// An entry about to be inserted.
    pub flow: Flow,
    /// An event about to be sent.
    pub event: Event,
    /// ICMP errors that this processor made at this hook. It outlives the packet.
    pub errors: Errors,
    /// Rule of the last verdict.
    pub rule: u32,
    /// [`crate::abi::Hook`] we are at.
    pub hook: u32,
}
