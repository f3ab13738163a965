//! What a plan is made of.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use weir_common::abi::control;
use zerocopy::{Immutable, IntoBytes};

/// Maps of a generation, and the ones that all generations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `FrontendKey` to `Frontend`.
    Frontend,
    /// Index to `Slot` (array).
    Slot,
    /// `SourceKey` to nothing (longest prefix).
    Source,
    /// `EndpointKey` to `Endpoint`.
    Endpoint,
    /// `Address` to `Class`.
    Class,
    /// `PrefixKey` to `Class` (longest prefix).
    Prefix,
    /// `VerdictKey` to `Segment`.
    Verdict,
    /// Index to `Range` (array).
    Range,
    /// Index to `BackendState` (array); shared by all generations.
    Backend,
}

impl Table {
    /// Tables that every generation has its own of.
    pub const GENERATION: [Self; 8] = [
        Self::Frontend,
        Self::Slot,
        Self::Source,
        Self::Endpoint,
        Self::Class,
        Self::Prefix,
        Self::Verdict,
        Self::Range,
    ];

    /// All tables.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::GENERATION.into_iter().chain([Self::Backend])
    }

    /// Name of the map, also in metrics and pins.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Slot => "slot",
            Self::Source => "source",
            Self::Endpoint => "endpoint",
            Self::Class => "class",
            Self::Prefix => "prefix",
            Self::Verdict => "verdict",
            Self::Range => "range",
            Self::Backend => "backend",
        }
    }
}

/// Capacity of each table of a generation.
pub type Sizes = BTreeMap<Table, u32>;

/// Bytes of an element, in place: a first plan has half a million of them.
pub type Bytes = SmallVec<[u8; 32]>;

/// One step of a plan. Keys and values are the bytes of the ABI types; array indexes are native-endian `u32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make empty maps of these capacities in the generation that is not selected; the writes up to `Select` go there.
    Begin(Sizes),
    /// Insert or replace one element.
    Write {
        /// Where.
        table: Table,
        /// Key bytes.
        key: Bytes,
        /// Value bytes.
        value: Bytes,
    },
    /// Remove one element; that it is not there is no error.
    Delete {
        /// Where.
        table: Table,
        /// Key bytes.
        key: Bytes,
    },
    /// Let programs read the generation begun; the old one's maps are released.
    Select,
    /// Store a word of the `control` array.
    Control {
        /// Index, see `weir_common::abi::control`.
        index: u32,
        /// New value.
        value: u64,
    },
    /// Add 1 to the policy epoch: live flows are judged again.
    BumpEpoch,
    /// Wait until no program that started before this step still runs (RCU grace period).
    Wait,
}

/// An ordered list of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be carried out in this order.
    pub steps: Vec<Step>,
}

impl Step {
    /// Insert or replace one element.
    pub(super) fn write<K, V>(table: Table, key: &K, value: &V) -> Self
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        Self::Write {
            table,
            key: key.as_bytes().into(),
            value: value.as_bytes().into(),
        }
    }

    /// Remove one element.
    pub(super) fn delete<K: IntoBytes + Immutable>(table: Table, key: &K) -> Self {
        Self::Delete {
            table,
            key: key.as_bytes().into(),
        }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What it takes until new connections meet the new policies, and what is left then: waiting for programs that still read the old
    /// ones, and tidying up after them. All of a plan that changes no policies is the former.
    #[must_use]
    pub fn until_in_force(self) -> (Self, Self) {
        let is_flip =
            |step: &Step| matches!(step, Step::Control { index, .. } if *index == control::VERSION);
        let mut steps = self.steps;
        let flip = steps.iter().position(is_flip);
        let rest = steps.split_off(flip.map_or(steps.len(), |position| position + 1));
        (Self { steps }, Self { steps: rest })
    }

    /// Whether it has live flows judged again.
    #[must_use]
    pub fn judges_again(&self) -> bool {
        self.steps.contains(&Step::BumpEpoch)
    }

    /// Whether it builds a whole generation.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Begin(_)))
    }
}
