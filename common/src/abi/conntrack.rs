//! Flows and fragments.

use core::ptr::NonNull;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Which end of a flow, as indexes of the arrays in [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end with the lower address and port.
    Low = 0,
    /// The other end.
    High = 1,
}

impl Side {
    /// The opposite end.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Key of map `flow`: the two ends in canonical order, so that both directions find one entry.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct FlowKey {
    /// Addresses, low end first.
    pub addresses: [Address; 2],
    /// Ports, low end first. An ICMP echo has its identifier at the end that asks and one more at the
    /// other; protocols without ports have 0.
    pub ports: [u16; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 1 in the key of a [`FlowKey::claim`], else 0.
    pub claimed: u8,
    /// Always 0.
    pub reserved: [u8; 2],
}

impl FlowKey {
    /// The key that a processor inserts, as the only one, while it replaces the dead entry at `self`. No packet has it.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self) -> Self {
        Self {
            claimed: 1,
            ..*self
        }
    }

    /// The key of a packet's flow, and which end its source is.
    #[inline(always)]
    #[must_use]
    pub fn new(
        source: &Address,
        source_port: u16,
        destination: &Address,
        destination_port: u16,
        protocol: u8,
    ) -> (Self, Side) {
        let (claimed, reserved) = (0, [0; 2]);
        if precedes(source, source_port, destination, destination_port) {
            let key = Self {
                addresses: [*source, *destination],
                ports: [source_port, destination_port],
                protocol,
                claimed,
                reserved,
            };
            (key, Side::Low)
        } else {
            let key = Self {
                addresses: [*destination, *source],
                ports: [destination_port, source_port],
                protocol,
                claimed,
                reserved,
            };
            (key, Side::High)
        }
    }
}

/// Any total order will do; this one needs no byte swaps.
#[inline(always)]
fn precedes(a: &Address, a_port: u16, b: &Address, b_port: u16) -> bool {
    // The last word first: it tells most pairs apart in both families.
    if a.words[3] != b.words[3] {
        return a.words[3] < b.words[3];
    }
    if a.words[2] != b.words[2] {
        return a.words[2] < b.words[2];
    }
    if a.words[1] != b.words[1] {
        return a.words[1] < b.words[1];
    }
    if a.words[0] != b.words[0] {
        return a.words[0] < b.words[0];
    }
    a_port <= b_port
}

/// Flag of [`Flow`]: this entry is the one at the addresses that the two ends of the connection really have.
pub const BACKEND_SIDE: u16 = 1 << 0;
/// Flag of [`Flow`]: this entry only leads from a client's view (its destination is a Service) to the backend-side entry.
pub const FRONTEND_SIDE: u16 = 1 << 1;
/// Flag of [`Flow`]: `nat_address` and `nat_port` count. Backend side: what the opener believes to talk to. Frontend side: the backend.
pub const NAT: u16 = 1 << 2;
/// Flag of [`Flow`]: the client is its own backend.
pub const HAIRPIN: u16 = 1 << 3;
/// Flag of [`Flow`]: the high end opened the flow.
pub const OPENER_HIGH: u16 = 1 << 4;

/// Flag of [`Flow`]: the opener is outside the cluster: the network's hooks translate, the pods' do not.
pub const EXTERNAL: u16 = 1 << 5;
/// Flag of [`Flow`]: this entry holds a port of the node, from which a client outside reaches a backend on another node, and leads
/// the answers back: `nat_address` and `nat_port` are the client's.
pub const SOURCE_SIDE: u16 = 1 << 6;

/// Flag of [`Flow`], frontend side: netfilter translates the flow, which was opened before Weir served here; `source_address` and
/// `source_port` are what the backend sees as the client's.
pub const NETFILTER: u16 = 1 << 7;

/// Flag of [`Flow`]: a `NETFILTER` entry leads here. Others may have the same ends: netfilter gives them another port.
pub const SHARED: u16 = 1 << 8;
/// Flag of [`Flow`]: XDP has carried this flow alone, and the node's network stack knows nothing of it.
pub const FAST: u16 = 1 << 9;

/// Role in [`End`]: this end sent the first packet, its egress side was judged.
pub const ROLE_OPENER: u32 = 1;
/// Role in [`End`]: this end received the first packet, its ingress side was judged.
pub const ROLE_RESPONDER: u32 = 2;

/// Approval of a flow by the pod at one of its ends. An end that is not a local pod stays all zero.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct End {
    /// Endpoint id of the pod that was judged.
    pub endpoint: u64,
    /// 0 (not approved), `ROLE_OPENER` or `ROLE_RESPONDER`.
    pub role: u32,
    /// Policy epoch of the approval.
    pub epoch: u32,
    /// Rule that allowed the flow.
    pub rule: u32,
    /// Device of the pod; a packet from another one is judged again.
    pub ifindex: u32,
}

/// A tracked flow: value of map `flow`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Flow {
    /// Clock of the last packet, in the kernel's ticks (wraps).
    pub last_seen: u32,
    /// Clock of the first packet.
    pub created: u32,
    /// `BACKEND_SIDE`, `NAT`, ...
    pub flags: u16,
    /// TCP flags seen from each end.
    pub tcp_flags: [u8; 2],
    /// See `NAT`.
    pub nat_port: u16,
    /// With `source_address`, see there. Else, unless 0: frontend side, the port that the backend sees as the client's; backend
    /// side, the client's own.
    pub source_port: u16,
    /// See `NAT`.
    pub nat_address: Address,
    /// Id of the backend, when NAT.
    pub backend: u32,
    /// Fingerprint of the backend.
    pub fingerprint: u32,
    /// Stable hash of the Service port, when NAT.
    pub service: u64,
    /// Approvals, low end first.
    pub ends: [End; 2],
    /// Packets sent by each end, counted once per node.
    pub packets: [u64; 2],
    /// Bytes sent by each end.
    pub bytes: [u64; 2],
    /// See `NETFILTER`. `EXTERNAL` and backend side: the node's address and port that the backend sees as the client's, once the flow has left by an uplink.
    pub source_address: Address,
}

impl Flow {
    /// The end that opened the flow.
    #[inline(always)]
    #[must_use]
    pub const fn opener(&self) -> Side {
        if self.flags & OPENER_HIGH == 0 {
            Side::Low
        } else {
            Side::High
        }
    }

    /// The client's port as the other entry of the connection has it, where that differs.
    #[must_use]
    pub fn other_client_port(&self) -> Option<u16> {
        let differs = self.flags & (EXTERNAL | NETFILTER) == 0 && self.source_port != 0;
        differs.then_some(self.source_port)
    }
}

/// A flow in map memory that other CPUs read and write at the same time.
///
/// Fields are read and written one by one with volatile accesses: a torn counter is possible, a torn decision is not, since an
/// approval counts only when role, epoch and device agree.
#[derive(Clone, Copy)]
pub struct FlowRef {
    entry: NonNull<Flow>,
}

impl FlowRef {
    /// Wraps a map value.
    ///
    /// # Safety
    /// `entry` must point to a `Flow`, aligned to 8 bytes, that stays mapped and writable until the packet at hand is decided:
    /// in the kernel for the run of the program (RCU), in the simulator for the life of the table.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(entry: NonNull<Flow>) -> Self {
        Self { entry }
    }

    /// A copy of the whole entry.
    #[inline(always)]
    #[must_use]
    pub fn read(self) -> Flow {
        // SAFETY: `new` demands a valid, aligned entry; any bit pattern is a valid `Flow`.
        unsafe { self.entry.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn get<T: Copy>(self, field: impl FnOnce(*mut Flow) -> *mut T) -> T {
        // SAFETY: callers in this file project to a field of the entry that `new` vouched for.
        unsafe { field(self.entry.as_ptr()).read_volatile() }
    }

    #[inline(always)]
    fn set<T: Copy>(self, field: impl FnOnce(*mut Flow) -> *mut T, value: T) {
        // SAFETY: as in `get`; the entry is writable.
        unsafe { field(self.entry.as_ptr()).write_volatile(value) }
    }

    /// See [`Flow::flags`].
    #[inline(always)]
    #[must_use]
    pub fn flags(self) -> u16 {
        // SAFETY: projection to a field of a valid entry.
        self.get(|flow| unsafe { &raw mut (*flow).flags })
    }

    /// Sets or clears [`FAST`], the one flag that changes while an entry lives.
    #[inline(always)]
    pub fn set_fast(self, fast: bool) {
        let others = self.flags() & !FAST;
        let flags = if fast { others | FAST } else { others };
        // SAFETY: projection to a field of a valid entry.
        self.set(|flow| unsafe { &raw mut (*flow).flags }, flags);
    }

    /// See [`Flow::opener`].
    #[inline(always)]
    #[must_use]
    pub fn opener(self) -> Side {
        if self.flags() & OPENER_HIGH == 0 {
            Side::Low
        } else {
            Side::High
        }
    }

    /// See [`Flow::last_seen`].
    #[inline(always)]
    #[must_use]
    pub fn last_seen(self) -> u32 {
        // SAFETY: projection to a field of a valid entry.
        self.get(|flow| unsafe { &raw mut (*flow).last_seen })
    }

    /// See [`Flow::tcp_flags`].
    #[inline(always)]
    #[must_use]
    pub fn tcp_flags(self) -> [u8; 2] {
        // SAFETY: projection to a field of a valid entry.
        self.get(|flow| unsafe { &raw mut (*flow).tcp_flags })
    }

    /// Address and port that `NAT` speaks of.
    #[inline(always)]
    #[must_use]
    pub fn nat(self) -> (Address, u16) {
        // SAFETY: projections to fields of a valid entry.
        unsafe {
            (
                self.get(|flow| &raw mut (*flow).nat_address),
                self.get(|flow| &raw mut (*flow).nat_port),
            )
        }
    }

    /// See [`Flow::source_address`].
    #[inline(always)]
    #[must_use]
    pub fn source(self) -> (Address, u16) {
        // SAFETY: projections to fields of a valid entry.
        unsafe {
            (
                self.get(|flow| &raw mut (*flow).source_address),
                self.get(|flow| &raw mut (*flow).source_port),
            )
        }
    }

    /// See [`Flow::source_port`].
    #[inline(always)]
    #[must_use]
    pub fn source_port(self) -> u16 {
        // SAFETY: projection to a field of a valid entry.
        self.get(|flow| unsafe { &raw mut (*flow).source_port })
    }

    /// Sets the client's stand-in.
    #[inline(always)]
    pub fn set_source(self, address: Address, port: u16) {
        // SAFETY: projections to fields of a valid entry.
        unsafe {
            self.set(|flow| &raw mut (*flow).source_address, address);
            self.set(|flow| &raw mut (*flow).source_port, port);
        }
    }

    /// Id and fingerprint of the backend.
    #[inline(always)]
    #[must_use]
    pub fn backend(self) -> (u32, u32) {
        // SAFETY: projections to fields of a valid entry.
        unsafe {
            (
                self.get(|flow| &raw mut (*flow).backend),
                self.get(|flow| &raw mut (*flow).fingerprint),
            )
        }
    }

    /// Id of the Service port.
    #[inline(always)]
    #[must_use]
    pub fn service(self) -> u64 {
        // SAFETY: projection to a field of a valid entry.
        self.get(|flow| unsafe { &raw mut (*flow).service })
    }

    /// Approval at one end.
    #[inline(always)]
    #[must_use]
    pub fn end(self, side: Side) -> End {
        // SAFETY: projection to an element of a field of a valid entry; `Side` is 0 or 1.
        self.get(|flow| unsafe { (&raw mut (*flow).ends).cast::<End>().add(side as usize) })
    }

    /// Sets the approval of one end.
    #[inline(always)]
    pub fn set_end(self, side: Side, end: End) {
        // SAFETY: as in `end`.
        self.set(
            |flow| unsafe { (&raw mut (*flow).ends).cast::<End>().add(side as usize) },
            end,
        );
    }

    /// Notes a packet at `now` ticks.
    #[inline(always)]
    pub fn touch(self, now: u32) {
        // SAFETY: projection to a field of a valid entry.
        self.set(|flow| unsafe { &raw mut (*flow).last_seen }, now);
    }

    /// Notes TCP flags of a packet sent by `side`; stores only what is new, to keep the line clean on other CPUs.
    #[inline(always)]
    pub fn see_tcp_flags(self, side: Side, flags: u8) {
        // SAFETY: projection to an element of a field of a valid entry.
        let field = |flow: *mut Flow| unsafe {
            (&raw mut (*flow).tcp_flags).cast::<u8>().add(side as usize)
        };
        let seen = self.get(field);
        if seen | flags != seen {
            self.set(field, seen | flags);
        }
    }

    /// Counts a packet sent by `side`. Not atomic: two CPUs that handle one flow at once may lose a count.
    #[inline(always)]
    pub fn count(self, side: Side, bytes: u32) {
        // SAFETY: projections to elements of fields of a valid entry.
        let packets = |flow: *mut Flow| unsafe {
            (&raw mut (*flow).packets).cast::<u64>().add(side as usize)
        };
        // SAFETY: as above.
        let total =
            |flow: *mut Flow| unsafe { (&raw mut (*flow).bytes).cast::<u64>().add(side as usize) };
        self.set(packets, self.get(packets).wrapping_add(1));
        self.set(total, self.get(total).wrapping_add(u64::from(bytes)));
    }
}

/// Key of map `fragment`: what all fragments of a datagram share (RFC 791, RFC 8200 section 4.5).
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification field.
    pub id: u32,
    /// Device that it passed: nobody speaks for another pod.
    pub ifindex: u32,
    /// IPv4: IP protocol number (RFC 791). IPv6: 0 (RFC 8200 tells datagrams apart without).
    pub protocol: u8,
    /// Hook that saw it: both see a datagram between two pods of the node.
    pub hook: u8,
    /// Always 0.
    pub reserved: [u8; 2],
}

/// Ports of the first fragment: value of map `fragment`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FragmentPorts {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Clock of the first fragment, in the kernel's ticks.
    pub seen: u32,
    /// Protocol of the transport header, which IPv6 tells in the first fragment only.
    pub protocol: u32,
}
