//! What strict nodes drop, and how much of it there was.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Node;
use crate::netns::{Place, run};

/// Drops what the node would forward although conntrack cannot place it, and what comes from where no route leads back.
///
/// The kernel's `rp_filter` does the latter for IPv4, but counts only part of it: not what bears one of the node's own addresses.
/// Neighbours talk of themselves before this end of the link has its own address and route: of them nothing is forwarded.
pub(super) const RULES: &str = "table inet filter {
    counter invalid_tcp { }
    counter invalid { }
    counter martian { }
    set martians4 { typeof ip saddr . ip daddr . ip protocol; flags dynamic; size 64; }
    set martians6 { typeof ip6 saddr . ip6 daddr . ip6 nexthdr; flags dynamic; size 64; }
    chain strange4 {
        counter name martian
        update @martians4 { ip saddr . ip daddr . ip protocol }
    }
    chain strange6 {
        counter name martian
        update @martians6 { ip6 saddr . ip6 daddr . ip6 nexthdr }
        drop
    }
    chain prerouting {
        type filter hook prerouting priority raw;
        iif != lo meta nfproto ipv4 fib saddr type local jump strange4
        ip6 saddr { ::, fe80::/10 } accept
        iif != lo meta nfproto ipv6 fib saddr . iif oif missing jump strange6
    }
    chain forward {
        type filter hook forward priority filter;
        ct state invalid meta l4proto tcp counter name invalid_tcp drop
        ct state invalid counter name invalid drop
    }
}";

/// Packets that a strict node has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// TCP segments not to be forwarded, because conntrack could not place them.
    pub invalid_tcp: u64,
    /// The same of other protocols.
    pub invalid: u64,
    /// From a place that the route to their source does not lead to: what `rp_filter` counted (`IPReversePathFilter`).
    pub reverse_path: u64,
    /// IPv4 from one of the node's own addresses, IPv6 from where the route to their source does not lead to.
    pub martian: u64,
    /// The same: source, destination and protocol of each kind.
    pub martians: BTreeSet<String>,
}

impl Node {
    /// What the node has dropped since it was made.
    ///
    /// # Errors
    /// The topology was made without [`super::TopologySpec::drop_invalid`].
    pub fn drops(&self) -> Result<Drops> {
        let place: &Place = self.as_ref();
        let listed = run(place
            .command("nft")
            .args(["-j", "list", "table", "inet", "filter"]))?;
        let listed: Value = serde_json::from_str(&listed).context("read the output of nft")?;
        let objects = || listed["nftables"].as_array().into_iter().flatten();
        let counter = |name: &str| {
            objects()
                .find_map(|object| {
                    (object["counter"]["name"] == name)
                        .then(|| object["counter"]["packets"].as_u64())?
                })
                .with_context(|| format!("nft lists no counter {name}: {listed}"))
        };
        Ok(Drops {
            invalid_tcp: counter("invalid_tcp")?,
            invalid: counter("invalid")?,
            reverse_path: reverse_path(place)?,
            martian: counter("martian")?,
            martians: objects()
                .filter_map(|object| object["set"]["elem"].as_array())
                .flatten()
                .map(Value::to_string)
                .collect(),
        })
    }
}

/// `TcpExt: IPReversePathFilter` of `/proc/net/netstat`: a line of names, then a line of numbers.
fn reverse_path(place: &Place) -> Result<u64> {
    let text = place
        .run(|| fs::read_to_string("/proc/thread-self/net/netstat"))
        .context("read netstat")?;
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with("TcpExt:"))
        .map(str::split_whitespace);
    let (names, values) = (
        lines.next().context("no TcpExt")?,
        lines.next().context("no TcpExt")?,
    );
    let value = names
        .zip(values)
        .find_map(|(name, value)| (name == "IPReversePathFilter").then_some(value));
    Ok(value.context("no IPReversePathFilter")?.parse()?)
}
