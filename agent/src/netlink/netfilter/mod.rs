//! What the kernel's netfilter tells and takes by netlink: rule sets of nf_tables, and tracked connections. There is no `nft` and no
//! `iptables` beside the agent.

mod attributes;
mod conntrack;
mod nftables;
mod socket;

pub use conntrack::{connections, translated};
pub use nftables::{
    Addresses, Batch, Chain, Hook, Matches, Rule, Ruleset, TableFamily, TableId, Verdict, change,
    ruleset,
};
