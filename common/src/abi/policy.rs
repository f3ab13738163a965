//! Local endpoints, classes of peers, and rows of rules.
//!
//! Elements that a policy change must flip together carry two versions; bit 0 of the `control` word `VERSION` says which one counts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Key of map `endpoint`: a local pod by one of its addresses (`ifindex` 0), or by its device (`address` unspecified) for
/// addresses that the API does not know, such as IPv6 link-local ones.
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
pub struct EndpointKey {
    /// Pod address.
    pub address: Address,
    /// Host end of the pod's veth.
    pub ifindex: u32,
}

impl EndpointKey {
    /// Key of a pod address.
    #[inline(always)]
    #[must_use]
    pub const fn address(address: Address) -> Self {
        Self {
            address,
            ifindex: 0,
        }
    }

    /// Key of a pod's device.
    #[inline(always)]
    #[must_use]
    pub const fn device(ifindex: u32) -> Self {
        Self {
            address: Address::UNSPECIFIED,
            ifindex,
        }
    }
}

/// Row of a direction in which the pod is not isolated: everything passes, nothing is looked up.
pub const ROW_OPEN: u32 = 0;
/// Row of an endpoint that does not exist in this version.
pub const ROW_ABSENT: u32 = u32::MAX;

/// The rows that judge a pod's packets, one per direction.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Rows {
    /// Row for connections to the pod.
    pub ingress: u32,
    /// Row for connections from the pod.
    pub egress: u32,
}

/// A local pod: value of map `endpoint`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Endpoint {
    /// Stable hash of the pod's UID, never 0.
    pub id: u64,
    /// Host end of the pod's veth; packets with the pod's address from another device are spoofed. 0 while not known.
    pub ifindex: u32,
    /// Always 0.
    pub flags: u32,
    /// Both versions of the pod's rows.
    pub rows: [Rows; 2],
}

impl Endpoint {
    /// The rows of a version.
    #[inline(always)]
    #[must_use]
    pub const fn rows(&self, version: u32) -> Rows {
        // Not an index: LLVM would compute the address of a copy on the stack with `or`, which the verifier refuses.
        if version == 0 {
            self.rows[0]
        } else {
            self.rows[1]
        }
    }
}

/// Class of addresses that satisfy no peer term.
pub const CLASS_WORLD: u32 = 0;
/// In an address's element: this version has no class of its own, the longest prefix decides.
pub const CLASS_UNSET: u32 = u32::MAX;

/// Class of an address (map `class`) or of a prefix (map `prefix`), in both versions.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Class {
    /// Class number per version.
    pub versions: [u32; 2],
}

impl Class {
    /// The class number of a version.
    #[inline(always)]
    #[must_use]
    pub const fn at(&self, version: u32) -> u32 {
        // As in `Endpoint::rows`.
        if version == 0 {
            self.versions[0]
        } else {
            self.versions[1]
        }
    }
}

/// Key of map `verdict`. An absent element denies.
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
pub struct VerdictKey {
    /// Row of the judged pod and direction.
    pub row: u32,
    /// Class of the peer.
    pub class: u32,
}

/// What a row allows to a class: a run of array `range`, sorted by `first` and disjoint.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Segment {
    /// First range.
    pub base: u32,
    /// Number of ranges, less than 65536.
    pub count: u32,
}

/// Allowed protocols and ports with the rule that allows them: value of array `range`.
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
pub struct Range {
    /// Lowest protocol and port, see [`range_bound`].
    pub first: u32,
    /// Highest protocol and port, inclusive.
    pub last: u32,
    /// Rule id, at least [`RULE_RESERVED`], or [`RULE_NOT_ISOLATED`].
    pub rule: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A protocol and port as one number: protocols one after another, each with its ports. Protocols without ports have port 0.
#[inline(always)]
#[must_use]
pub const fn range_bound(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Rule id: no rule (denied, or not judged).
pub const RULE_NONE: u32 = 0;
/// Rule id: the pod is not isolated in this direction, or no policy decides about what goes there.
pub const RULE_NOT_ISOLATED: u32 = 1;
/// Rule id: traffic born on the pod's own node (NetworkPolicy API: a pod's node may always reach it).
pub const RULE_NODE: u32 = 2;
/// Rule id: a pod reaching itself through a Service.
pub const RULE_HAIRPIN: u32 = 3;
/// Rule ids below this number are not policy rules.
pub const RULE_RESERVED: u32 = 16;
