//! Service frontends, their backends, and what became of a backend.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// What a packet is addressed to: key of map `frontend`.
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
pub struct FrontendKey {
    /// Virtual address of the Service.
    pub address: Address,
    /// Service port; 0 in the wildcard entry that every virtual address has.
    pub port: u16,
    /// IP protocol number; 0 in the wildcard entry.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
}

/// Flag of [`Frontend`]: stands for all ports of a virtual address that no Service port claims; packets are rejected.
pub const WILDCARD: u32 = 1 << 0;
/// Flag of [`Frontend`]: the internal set is the node's own endpoints (internalTrafficPolicy Local); empty it drops instead of
/// rejecting.
pub const DROP_INTERNAL: u32 = 1 << 1;
/// Flag of [`Frontend`]: the external set is the node's own endpoints (externalTrafficPolicy Local); empty it drops instead of
/// rejecting.
pub const DROP_EXTERNAL: u32 = 1 << 2;
/// Flag of [`Frontend`]: sessionAffinity ClientIP.
pub const AFFINITY: u32 = 1 << 3;
/// Flag of [`Frontend`]: a node port at an address of the node, which has other uses, too: only what opens a flow is for the Service.
pub const NODE_PORT: u32 = 1 << 6;

/// Flag of [`Frontend`]: only clients in the Service port's ranges in map `source` are let in (loadBalancerSourceRanges).
pub const SOURCE_RANGES: u32 = 1 << 4;
/// Flag of [`Frontend`]: none of those ranges holds the node's address, so that its own sockets are not let in.
pub const NODE_OUTSIDE: u32 = 1 << 5;

/// In place of a Service port's id in a [`SourceKey`]: the range is one of addresses that are Services' only (ServiceCIDR).
pub const SERVICES_ONLY: u64 = 0;

/// A range of clients of a Service port, or of addresses that are Services' only: key of longest-prefix map `source`, whose values say
/// nothing.
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
pub struct SourceKey {
    /// Significant bits of `scope`: 64 for the Service port, and those of the address.
    pub bits: u32,
    /// What they are bits of.
    pub scope: SourceScope,
}

/// See [`SourceKey`].
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
pub struct SourceScope {
    /// See [`Frontend::service`]: lower half, upper half.
    pub service: [u32; 2],
    /// Address of the range or of a client.
    pub client: Address,
}

impl SourceKey {
    /// The key that looks up a client.
    #[inline(always)]
    #[must_use]
    pub const fn client(service: u64, client: Address) -> Self {
        Self {
            bits: 64 + 128,
            scope: SourceScope {
                service: [service as u32, (service >> 32) as u32],
                client,
            },
        }
    }

    /// The key of a range of `length` bits of the addresses of a family; bits of `network` beyond them are zero.
    #[must_use]
    pub const fn prefix(service: u64, network: Address, length: u8, v4: bool) -> Self {
        let mapped = if v4 { 96 } else { 0 };
        Self {
            bits: 64 + mapped + length as u32,
            ..Self::client(service, network)
        }
    }
}

/// A Service port: value of map `frontend`. Both sets are runs of map `slot`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Frontend {
    /// Stable hash of the Service port's namespace, name and port name; the same on every node.
    pub service: u64,
    /// First slot of the set for clients inside the cluster.
    pub internal_base: u32,
    /// Length of that set.
    pub internal_count: u32,
    /// First slot of the set for clients outside the cluster.
    pub external_base: u32,
    /// Length of that set.
    pub external_count: u32,
    /// sessionAffinityConfig.clientIP.timeoutSeconds; 0 without affinity.
    pub affinity_seconds: u32,
    /// `WILDCARD`, `DROP_INTERNAL`, ...
    pub flags: u32,
}

/// One backend of a set: value of array `slot`.
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
pub struct Slot {
    /// Address of the endpoint.
    pub address: Address,
    /// Port of the endpoint (the target port).
    pub port: u16,
    /// Always 0.
    pub flags: u16,
    /// Index of its [`BackendState`].
    pub backend: u32,
    /// Fingerprint that the state must carry: hash of Service port, address and port.
    pub fingerprint: u32,
    /// Always 0.
    pub reserved: u32,
}

/// No endpoint of the Service has this address and port any more; UDP flows select anew, TCP connections do what
/// [`super::control::RESET_GONE`] says.
pub const BACKEND_GONE: u16 = 0;
/// The backend does not serve, but is listed: it keeps its connections, and datagrams go elsewhere.
pub const BACKEND_UNREADY: u16 = 1;
/// The backend serves, but takes no new flows (it terminates, or policy or hints mean it for others): it keeps those that it has.
pub const BACKEND_DRAINING: u16 = 2;
/// The backend takes new flows.
pub const BACKEND_ACTIVE: u16 = 3;

/// Flag of [`BackendState`]: some frontend leads there by traffic policy Cluster.
pub const IN_CLUSTER_SET: u16 = 1 << 0;
/// Flag of [`BackendState`]: some frontend leads there by traffic policy Local.
pub const IN_LOCAL_SET: u16 = 1 << 1;

/// What became of a backend: value of array `backend`, indexed by the id in [`Slot`] and in conntrack.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BackendState {
    /// Whose state this is; an id is reused for another backend with another fingerprint.
    pub fingerprint: u32,
    /// `BACKEND_GONE`, `BACKEND_UNREADY`, `BACKEND_DRAINING` or `BACKEND_ACTIVE`, each more alive than the one before.
    pub state: u16,
    /// `IN_CLUSTER_SET`, `IN_LOCAL_SET`; none unless it is active.
    pub sets: u16,
}

/// Entries of map `affinity`: clients of Services with sessionAffinity ClientIP. Those that have not come for longest are evicted.
pub const AFFINITIES: u32 = 65_536;

/// A client of a Service port, whichever frontend it came by: key of map `affinity`.
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
pub struct AffinityKey {
    /// See [`Frontend::service`].
    pub service: u64,
    /// The client's address, and with it the family. The node's own sockets are one client, whatever address they will have: the
    /// unspecified one of the family.
    pub client: Address,
}

/// Where a client's last new connection went: value of map `affinity`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Affinity {
    /// When, in nanoseconds of CLOCK_MONOTONIC.
    pub last: u64,
    /// The backend.
    pub slot: Slot,
}
