//! Names of what kube-proxy makes in netfilter (Kubernetes 1.36 `pkg/proxy`, and what earlier versions made).

use crate::netlink::netfilter::{Chain, Rule, TableFamily, TableId};

/// The table of `--proxy-mode=nftables`, in both families.
const TABLE: &str = "kube-proxy";
/// Tables of iptables in which it has chains.
const SHARED: [&str; 3] = ["nat", "filter", "mangle"];

/// Chains of `--proxy-mode=iptables` and `ipvs`.
const CHAINS: [&str; 14] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-NODE-PORT",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// Those to which it leads packets from the chains that everybody has.
const ENTRIES: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-NODE-PORT",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// Chains of iptables that the kernel gives packets to.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Marks packets, and what masquerades those that are marked.
pub(super) const MARK: &str = "KUBE-MARK-MASQ";
pub(super) const MASQUERADE: &str = "KUBE-POSTROUTING";
/// Those of one Service or endpoint: this and a hash.
const PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SEP-",
    "KUBE-EXT-",
    "KUBE-SVL-",
    "KUBE-FW-",
    "KUBE-XLB-",
];
/// Chains of the kubelet, which guards the node with one and looks by the other whether somebody has emptied the tables.
const KUBELET: [&str; 3] = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];

/// Whether a table is kube-proxy's own.
pub(super) fn is_own(table: &TableId) -> bool {
    table.family != TableFamily::Inet && table.name == TABLE
}

/// Whether a chain in a table that others have, too, is kube-proxy's.
pub(super) fn is_own_chain(chain: &Chain) -> bool {
    let name = chain.name.as_str();
    let known = CHAINS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    known && chain.hook.is_none() && is_shared(&chain.table)
}

/// Whether a rule that leads to the chain `target` from one of another name is kube-proxy's: it asks for states of connections at most.
pub(super) fn is_own_entry(rule: &Rule, target: &str) -> bool {
    let asked = &rule.matches;
    let any = asked.from.is_empty() && asked.to.is_empty() && !asked.other;
    any && BUILT_IN.contains(&rule.chain.as_str()) && ENTRIES.contains(&target)
}

/// Whether a chain is the kubelet's.
pub(super) fn is_kubelets(chain: &Chain) -> bool {
    KUBELET.contains(&chain.name.as_str()) && is_shared(&chain.table)
}

fn is_shared(table: &TableId) -> bool {
    table.family != TableFamily::Inet && SHARED.contains(&table.name.as_str())
}
