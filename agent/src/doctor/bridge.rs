//! Bridges whose frames netfilter does not see, on a node that drops what its conntrack has seen half of (DESIGN.md, "A limit").

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Facts, Finding, Harm};
use crate::netlink::netfilter::{Chain, Matches, Ruleset, Verdict};

/// As deep as nf_tables allows.
const DEPTH: u32 = 16;
/// Hooks that packets from one pod to another pass: prerouting, forward, postrouting.
const HOOKS: [u32; 3] = [0, 2, 4];
/// The state of `ct state`.
const INVALID: u32 = 1;

pub(super) fn finding(facts: &Facts) -> Option<Finding> {
    let names = ["iptables", "ip6tables"].map(|name| format!("net.bridge.bridge-nf-call-{name}"));
    let seen_by = [facts.bridges_v4, facts.bridges_v6];
    let (mut bridges, mut chains, mut settings) =
        <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
    for (address, bridge) in &facts.pods {
        let family = usize::from(address.is_ipv6());
        if seen_by[family] == Some(true) || !is_bridge(facts, bridge) {
            continue;
        }
        for chain in dropping(&facts.ruleset, *address, bridge) {
            bridges.insert(bridge.as_str());
            chains.insert(format!("chain {} of table {}", chain.name, chain.table));
            settings.insert(names[family].as_str());
        }
    }
    let join = |words: BTreeSet<&str>, by| Vec::from_iter(words).join(by);
    let loads = if seen_by == [None; 2] {
        "modprobe br_netfilter && "
    } else {
        ""
    };
    let chains = chains.iter().map(String::as_str).collect();
    (!settings.is_empty()).then(|| Finding {
        name: "bridge-past-netfilter",
        harm: Harm::Certain,
        seen: format!(
            "netfilter does not see what goes within {}, and {} drops what conntrack finds invalid",
            join(bridges, ", "),
            join(chains, ", ")
        ),
        why: "a Service's backend answers a client on its bridge there: conntrack sees half of the connection, and drops it",
        fix: format!("{loads}sysctl -w {}=1", join(settings, "=1 ")),
    })
}

/// Pods' devices that do not forward by themselves are a bridge's.
fn is_bridge(facts: &Facts, name: &str) -> bool {
    let mut devices = facts.devices.iter();
    devices.any(|device| device.forwarder == name && device.name != name)
}

/// The base chains that drop invalid packets between pods like this one.
fn dropping<'a>(
    ruleset: &'a Ruleset,
    address: IpAddr,
    device: &str,
) -> impl Iterator<Item = &'a Chain> {
    let chains = ruleset.chains.iter().filter(move |chain| {
        let hook = chain.hook.as_ref();
        chain.table.family.has(address.is_ipv4())
            && hook.is_some_and(|hook| HOOKS.contains(&hook.number))
    });
    chains.filter(move |chain| drops(ruleset, chain, &chain.name, (address, device), DEPTH))
}

/// Whether some rule does so, there or where the chain leads.
fn drops(ruleset: &Ruleset, base: &Chain, name: &str, pod: (IpAddr, &str), depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    let rules = ruleset.rules.iter();
    let mut rules = rules.filter(|rule| rule.table == base.table && rule.chain == name);
    rules.any(|rule| {
        // It is not for new packets, which is all that `admits` knows of.
        let whoever = Matches {
            states: None,
            ..rule.matches.clone()
        };
        whoever.admits(Some(pod), Some(pod))
            && match (&rule.verdict, rule.matches.states) {
                (Some(Verdict::Drop), Some(INVALID)) => true,
                (Some(Verdict::Jump(chain) | Verdict::Goto(chain)), _) => {
                    drops(ruleset, base, chain, pod, depth)
                }
                _ => false,
            }
    })
}
