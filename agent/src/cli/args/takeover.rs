//! Arguments of `weir takeover`.

use clap::{Args, ValueEnum};

use super::LocalQuery;

/// `weir takeover`.
#[derive(Args, Clone, Debug)]
pub struct Takeover {
    /// From whom
    #[arg(long, value_enum, default_value_t)]
    pub from: Predecessor,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Accept what pods send and get in chains that drop what the node forwards; `weir cleanup` takes that back
    #[arg(long)]
    pub fix_forward: bool,
    /// Remove the device kube-ipvs0, too, which kube-proxy's mode ipvs leaves: connections that IPVS carries are cut
    #[arg(long)]
    pub ipvs: bool,
    /// Remove the rule that keeps netfilter translating for connections of kube-proxy's time: when there are none any more
    #[arg(long, conflicts_with_all = ["dry_run", "fix_forward", "ipvs"])]
    pub finish: bool,
    /// Do it although no agent serves here, kube-proxy still runs, or (--finish) connections will be cut
    #[arg(long)]
    pub force: bool,
    /// Output and agent
    #[command(flatten)]
    pub query: LocalQuery,
}

/// Who served Services before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Predecessor {
    /// kube-proxy in mode nftables, or iptables or ipvs by iptables-nft.
    #[default]
    KubeProxy,
}
