//! Whether what the node forwards for pods gets through its filters.

use std::net::IpAddr;

use super::{Facts, Finding, Harm};
use crate::netlink::netfilter::{Chain, Ruleset, Verdict};

/// Chains that lead to chains are followed this far; nf_tables allows no more.
const DEPTH: u32 = 16;
const FORWARD: u32 = 2;

/// A pod's end of packets: its address, and the device by which netfilter sees them.
type PodEnd<'a> = (IpAddr, &'a str);

/// The chains that drop new connections to or from some pod, whatever else the connection is.
pub(super) fn finding(facts: &Facts) -> Option<Finding> {
    let ruleset = &facts.ruleset;
    let chains = ruleset.chains.iter().filter(|chain| drops(chain));
    let mut closed: Vec<_> = chains
        .filter(|chain| {
            let mut pods = facts.pods.iter();
            let mut pods = pods
                .by_ref()
                .map(|(address, device)| (*address, device.as_str()));
            pods.any(|pod| {
                let reached = chain.table.family.has(pod.0.is_ipv4());
                reached
                    && !(accepts(ruleset, chain, Some(pod), None)
                        && accepts(ruleset, chain, None, Some(pod)))
            })
        })
        .map(|chain| format!("chain {} of table {}", chain.name, chain.table))
        .collect();
    closed.sort();
    (!closed.is_empty()).then(|| Finding {
        name: "forward-dropped",
        harm: Harm::Certain,
        seen: format!("{} drops what no rule accepts, and none accepts all that pods send and get", closed.join(", ")),
        why: "connections that Weir has let pass end there; kube-proxy's own rules, which accepted some, go with it",
        fix: "weir takeover --fix-forward".to_owned(),
    })
}

fn drops(chain: &Chain) -> bool {
    let hook = chain.hook.as_ref();
    hook.is_some_and(|hook| hook.number == FORWARD && hook.kind == "filter" && hook.drops)
}

/// Whether a chain accepts all new connections from a pod, or to one.
fn accepts(
    ruleset: &Ruleset,
    chain: &Chain,
    from: Option<PodEnd<'_>>,
    to: Option<PodEnd<'_>>,
) -> bool {
    walk(ruleset, chain, &chain.name, from, to, DEPTH) == Some(true)
}

/// What a chain says about all such connections; `None` if it says nothing about all.
fn walk(
    ruleset: &Ruleset,
    base: &Chain,
    name: &str,
    from: Option<PodEnd<'_>>,
    to: Option<PodEnd<'_>>,
    depth: u32,
) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let rules = ruleset.rules.iter();
    let rules = rules.filter(|rule| rule.table == base.table && rule.chain == name);
    for rule in rules.filter(|rule| rule.matches.admits(from, to)) {
        match rule.verdict.as_ref() {
            Some(Verdict::Accept) => return Some(true),
            Some(Verdict::Drop) => return Some(false),
            Some(Verdict::Return) => return None,
            Some(Verdict::Goto(chain)) => return walk(ruleset, base, chain, from, to, depth),
            Some(Verdict::Jump(chain)) => {
                let said = walk(ruleset, base, chain, from, to, depth);
                if said.is_some() {
                    return said;
                }
            }
            None => {}
        }
    }
    None
}
