//! What the kernel should hold.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use weir_common::abi::{
    Address, BackendState, EndpointKey, FrontendKey, PrefixKey, Range, SourceKey,
};

use super::hash::content_hash;
use crate::model::{Direction, ObjectName, Pod, Tier};

/// Everything that one node's maps should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Load balancing.
    pub services: ServiceTables,
    /// Policy.
    pub policies: Arc<PolicyTables>,
}

/// Load balancing. A clone costs next to nothing, and what two versions differ in is found without looking at the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceTables {
    /// Every virtual address and port, with the wildcard entry of each address.
    pub frontends: OrdMap<FrontendKey, FrontendEntry>,
    /// Ranges of clients that frontends with `SOURCE_RANGES` let in, with the Service that each is of.
    pub sources: OrdMap<SourceKey, ObjectName>,
    /// State of every backend by fingerprint, active or draining; one that is not here is gone.
    pub backends: OrdMap<u32, BackendState>,
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendEntry {
    /// The Service.
    pub origin: ObjectName,
    /// Name of the Service port, empty in a wildcard entry.
    pub port_name: String,
    /// See [`weir_common::abi::Frontend::service`].
    pub service: u64,
    /// See [`weir_common::abi::Frontend::flags`].
    pub flags: u32,
    /// See [`weir_common::abi::Frontend::affinity_seconds`].
    pub affinity_seconds: u32,
    /// Selectable backends for clients inside the cluster, sorted.
    pub internal: Arc<[Backend]>,
    /// Selectable backends for clients outside the cluster, sorted.
    pub external: Arc<[Backend]>,
}

/// A selectable backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Endpoint address.
    pub address: IpAddr,
    /// Endpoint port.
    pub port: u16,
    /// See [`crate::model::fingerprint`].
    pub fingerprint: u32,
}

/// Content hash of a row: equal content has equal ids in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u128);

impl RowId {
    /// Not isolated: [`weir_common::abi::ROW_OPEN`].
    pub const OPEN: Self = Self(0);

    /// The row that isolates the same pods and allows nothing.
    #[must_use]
    pub fn closed(self) -> Self {
        Self(content_hash("closed", &self.0))
    }
}

/// Content hash of a class: the peer terms that an address satisfies. Class ids mean the same in all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub u128);

impl ClassId {
    /// No term: [`weir_common::abi::CLASS_WORLD`].
    pub const WORLD: Self = Self(0);
}

/// Policy. A clone costs next to nothing, and what two versions differ in is found without looking at the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyTables {
    /// Local pods by address and by device.
    pub endpoints: OrdMap<EndpointKey, EndpointEntry>,
    /// Class of every address that a peer selector of a local policy matches.
    pub addresses: OrdMap<Address, ClassId>,
    /// Class by longest prefix, for all other addresses. Prefixes that no entry covers are `ClassId::WORLD`.
    pub prefixes: OrdMap<PrefixKey, ClassId>,
    /// How many addresses and prefixes have each class, without `ClassId::WORLD`.
    pub classes: OrdMap<ClassId, usize>,
    /// Rows in use, without `RowId::OPEN`.
    pub rows: OrdMap<RowId, RowEntry>,
    /// Where each rule id comes from.
    pub rules: OrdMap<u32, RuleOrigin>,
}

/// A local pod.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointEntry {
    /// The pod.
    pub pod: Arc<Pod>,
    /// See [`crate::model::endpoint_id`].
    pub id: u64,
    /// Host end of its veth, 0 while not known.
    pub ifindex: u32,
    /// Row for connections to the pod.
    pub ingress: RowId,
    /// Row for connections from the pod.
    pub egress: RowId,
}

/// A row: what the pods that share it let pass, by class of the peer. A class that is not in `verdicts` is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowEntry {
    /// Direction.
    pub direction: Direction,
    /// The NetworkPolicies that isolate these pods in this direction, sorted.
    pub policies: Arc<[ObjectName]>,
    /// Sorted, disjoint ranges per class, of what passes.
    pub verdicts: OrdMap<ClassId, Arc<[Range]>>,
    /// The same of what a rule denies. The kernel does not have it: it tells whoever reads about a drop which rule it was.
    pub denials: OrdMap<ClassId, Arc<[Range]>>,
}

/// The rule behind a rule id.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct RuleOrigin {
    /// Tier of the policy.
    pub tier: Tier,
    /// The policy.
    pub policy: ObjectName,
    /// Ingress or egress.
    pub direction: Direction,
    /// Position in `spec.ingress` or `spec.egress`, from 0.
    pub index: usize,
}
