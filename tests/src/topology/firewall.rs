//! What strict nodes drop, and how much of it there was.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Node;
use crate::netns::{Place, run};

/// Drops what the node would forward although conntrack cannot place it, and what comes from where no route leads back.
///
/// The kernel's `rp_filter` does the latter for IPv4, but counts only part of it: not what bears one of the node's own addresses.
pub(super) const RULES: &str = "table inet filter {
    counter invalid { }
    counter martian { }
    chain prerouting {
        type filter hook prerouting priority raw;
        iif != lo meta nfproto ipv4 fib saddr type local counter name martian
        iif != lo meta nfproto ipv6 fib saddr . iif oif missing counter name martian drop
    }
    chain forward {
        type filter hook forward priority filter;
        ct state invalid counter name invalid drop
    }
}";

/// Packets that a strict node has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not to be forwarded, because conntrack could not place them.
    pub invalid: u64,
    /// From a place that the route to their source does not lead to: what `rp_filter` counted (`IPReversePathFilter`).
    pub reverse_path: u64,
    /// IPv4 from one of the node's own addresses, IPv6 from where the route to their source does not lead to.
    pub martian: u64,
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
            .args(["-j", "list", "counters", "table", "inet", "filter"]))?;
        let listed: Value = serde_json::from_str(&listed).context("read the output of nft")?;
        let counter = |name: &str| {
            let mut objects = listed["nftables"].as_array().into_iter().flatten();
            objects
                .find_map(|object| {
                    (object["counter"]["name"] == name)
                        .then(|| object["counter"]["packets"].as_u64())?
                })
                .with_context(|| format!("nft lists no counter {name}: {listed}"))
        };
        Ok(Drops {
            invalid: counter("invalid")?,
            reverse_path: reverse_path(place)?,
            martian: counter("martian")?,
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
