//! Counters and events of the kernel programs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;
use crate::reason::Reason;

/// Where a packet was judged.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// At the host end of a pod's veth, leaving the pod: egress.
    FromPod = 0,
    /// At the host end of a pod's veth, entering the pod: ingress.
    ToPod = 1,
    /// At an uplink or tunnel device of the node, coming in.
    FromNet = 2,
    /// At an uplink or tunnel device of the node, going out.
    ToNet = 3,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: u32 = 4;

    /// Every hook.
    pub const ALL: [Self; Self::COUNT as usize] =
        [Self::FromPod, Self::ToPod, Self::FromNet, Self::ToNet];

    /// The hook of a number in a map.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::FromPod),
            1 => Some(Self::ToPod),
            2 => Some(Self::FromNet),
            3 => Some(Self::ToNet),
            _ => None,
        }
    }

    /// Direction as the NetworkPolicy API calls it for pods, seen from the node for its uplinks.
    #[must_use]
    pub const fn direction(self) -> &'static str {
        match self {
            Self::FromPod => "egress",
            Self::ToPod => "ingress",
            Self::FromNet => "node_ingress",
            Self::ToNet => "node_egress",
        }
    }

    /// Index into the per-CPU array `counter` of packets with this reason.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self, reason: Reason) -> u32 {
        self as u32 * Reason::SLOTS + reason as u32
    }
}

/// What happens to a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Goes on to whatever comes next on the hook.
    Pass = 0,
    /// Dropped.
    Drop = 1,
    /// Sent out again where it came from: a hairpin or a rejection.
    Return = 2,
}

/// Packets and bytes: value of per-CPU array `counter`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counter {
    /// Packets (a GSO packet counts once).
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
}

/// A drop or the first packet of a flow, as it goes through ring buffer `events`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Event {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time: u64,
    /// Endpoint id of the judged pod; 0 when no pod was found.
    pub endpoint: u64,
    /// Source before translation.
    pub source: Address,
    /// Destination before translation.
    pub destination: Address,
    /// Destination that was judged: the backend where the packet was addressed to a Service, else `destination`.
    pub judged: Address,
    /// Source port; of an ICMP echo its identifier, and one more at the end that answers.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Port of `judged`.
    pub judged_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`Hook`].
    pub hook: u8,
    /// [`Verdict`].
    pub verdict: u8,
    /// [`Reason`].
    pub reason: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// Always 0.
    pub reserved: u8,
    /// Rule that allowed it, `RULE_NONE` for a denial.
    pub rule: u32,
    /// Length in bytes with the Ethernet header.
    pub length: u32,
    /// Device of the hook.
    pub ifindex: u32,
}
