//! Rule sets of nf_tables: those of `nft` and of `iptables-nft`, as far as it matters here.

mod batch;
mod read;
mod rule;
mod words;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub use batch::{Batch, change};
pub use read::ruleset;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;

/// Messages of the subsystem (linux/netfilter/nf_tables.h).
mod message {
    pub(super) const NEW_TABLE: u8 = 0;
    pub(super) const GET_TABLE: u8 = 1;
    pub(super) const DELETE_TABLE: u8 = 2;
    pub(super) const NEW_CHAIN: u8 = 3;
    pub(super) const GET_CHAIN: u8 = 4;
    pub(super) const DELETE_CHAIN: u8 = 5;
    pub(super) const NEW_RULE: u8 = 6;
    pub(super) const GET_RULE: u8 = 7;
    pub(super) const DELETE_RULE: u8 = 8;
    pub(super) const GET_GENERATION: u8 = 16;
}

/// Attributes of tables, chains and rules.
mod attribute {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_HANDLE: u16 = 3;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const RULE_USER_DATA: u16 = 7;
    pub(super) const ELEMENT: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const GENERATION: u16 = 1;
}

/// Kind of addresses of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// `inet`: both.
    Inet,
    /// `ip`.
    V4,
    /// `ip6`.
    V6,
}

impl TableFamily {
    const ALL: [Self; 3] = [Self::Inet, Self::V4, Self::V6];

    /// The kernel's number (`NFPROTO_...`).
    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|family| family.number() == number)
    }

    /// As `nft` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// Whether packets with such addresses get there.
    #[must_use]
    pub const fn has(self, v4: bool) -> bool {
        match self {
            Self::Inet => true,
            Self::V4 => v4,
            Self::V6 => !v4,
        }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

impl TableId {
    /// A table of that name.
    #[must_use]
    pub fn new(family: TableFamily, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// Where packets get into a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower ones first.
    pub priority: i32,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// Whether what no rule decides about is dropped.
    pub drops: bool,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its table.
    pub table: TableId,
    /// Its name.
    pub name: String,
    /// Of a base chain.
    pub hook: Option<Hook>,
}

/// What a rule ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet passes.
    Accept,
    /// The packet is dropped or rejected.
    Drop,
    /// Back to the chain before.
    Return,
    /// To another chain and, if that decides nothing, back.
    Jump(String),
    /// To another chain.
    Goto(String),
}

/// Devices or addresses that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// A range of addresses.
    Network(IpNetwork),
    /// A device's name, or what it begins with.
    Device {
        /// Name.
        name: String,
        /// Whether longer names count, too.
        prefix: bool,
    },
}

/// What a rule asks of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// Where they come from.
    pub from: Vec<Addresses>,
    /// Where they go.
    pub to: Vec<Addresses>,
    /// Bits of `ct state` of which one must be set: 1 invalid, 2 established, 4 related, 8 new.
    pub states: Option<u32>,
    /// The family of its addresses: whether IPv4.
    pub v4: Option<bool>,
    /// Anything else.
    pub other: bool,
}

impl Matches {
    /// Whether all new packets from an address by a device, or to them, fit as far as that goes.
    #[must_use]
    pub fn admits(&self, from: Option<(IpAddr, &str)>, to: Option<(IpAddr, &str)>) -> bool {
        let fits = |asked: &[Addresses], given: Option<(IpAddr, &str)>| {
            asked.iter().all(|asked| {
                given.is_some_and(|(address, device)| match asked {
                    Addresses::Network(network) => network.contains(address),
                    Addresses::Device { name, prefix: true } => device.starts_with(name.as_str()),
                    Addresses::Device { name, .. } => device == name,
                })
            })
        };
        const NEW: u32 = 8;
        let family = from.or(to).map(|(address, _)| address.is_ipv4());
        fits(&self.from, from)
            && fits(&self.to, to)
            && self.states.is_none_or(|states| states & NEW != 0)
            && (self.v4.is_none() || self.v4 == family)
            && !self.other
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its table.
    pub table: TableId,
    /// Its chain.
    pub chain: String,
    /// Its number in the table.
    pub handle: u64,
    /// What it asks.
    pub matches: Matches,
    /// What it says, if it decides.
    pub verdict: Option<Verdict>,
    /// What its author says.
    pub comment: Option<String>,
}

/// Tables with chains and rules; those of bridges and devices (families `bridge`, `netdev`, `arp`) are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Number of the change that made it so.
    pub generation: u32,
    /// Tables.
    pub tables: Vec<TableId>,
    /// Chains.
    pub chains: Vec<Chain>,
    /// Rules; those of a chain in their order.
    pub rules: Vec<Rule>,
}
