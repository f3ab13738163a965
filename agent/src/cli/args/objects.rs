//! Arguments of what is said of Services, endpoints and policies.

use clap::Subcommand;

use super::names::{named, namespaced};
use super::{ListFormat, Listing, LiveQuery, Query, Scope};
use crate::model::ObjectName;

/// `weir service`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List every address and port of every Service, for whom it is, and its endpoints
    List {
        /// Which, and how
        #[command(flatten)]
        listing: Listing,
        /// Output and agent
        #[command(flatten)]
        query: Query<ListFormat>,
    },
    /// Everything about one: each of its addresses and ports, every endpoint, and why it is used or not
    Show {
        /// The Service
        #[arg(value_name = "NAMESPACE/NAME", value_parser = namespaced)]
        name: ObjectName,
        /// Output and agent
        #[command(flatten)]
        query: Query,
    },
}

/// `weir endpoint`, `weir policy`.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// List them
    List {
        /// Which, and how
        #[command(flatten)]
        listing: Listing,
        /// Output and agent
        #[command(flatten)]
        query: Query<ListFormat>,
    },
}

/// `weir policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List them
    List {
        /// Which, and how
        #[command(flatten)]
        listing: Listing,
        /// Output and agent
        #[command(flatten)]
        query: Query<ListFormat>,
    },
    /// Everything about one: which pods it is for, each rule in words, and whom the rule names now
    Show {
        /// The policy; of a ClusterNetworkPolicy the name alone
        #[arg(value_name = "[NAMESPACE/]NAME", value_parser = named)]
        name: ObjectName,
        /// Output and agent
        #[command(flatten)]
        query: Query,
    },
    /// How often each rule decided since the agents started, rules that do nothing, and pods that no policy isolates
    #[command(
        after_help = "HITS of rules that allow are connections that have ended (`weir run --flow-ends`), or come from sampled events (`--event-sample`) where\n\
        these are not told; drops are all counted.",
        after_long_help = None
    )]
    Coverage {
        /// Which namespaces
        #[command(flatten)]
        scope: Scope,
        /// Output and agents
        #[command(flatten)]
        query: LiveQuery,
    },
    /// What they probably do not mean: selectors that nothing matches, cut off lookups of names, blocks of Service addresses, rules without effect
    #[command(
        after_help = "Exit codes: 0 nothing found, 1 something, 2 error.",
        after_long_help = None
    )]
    Lint {
        /// Which namespaces
        #[command(flatten)]
        scope: Scope,
        /// Output and agent
        #[command(flatten)]
        query: Query,
    },
}
