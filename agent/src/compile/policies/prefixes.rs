//! Address blocks cut where any of them begins or ends, so that the longest prefix alone tells which blocks hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use weir_common::abi::{Address, PrefixKey};

use crate::compile::judge::prefix_key;

/// A prefix in the mapped form of addresses; the order puts every prefix right before those inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    address: u128,
    bits: u32,
}

/// All IPv4 addresses in their mapped form.
const IPV4: Prefix = Prefix {
    address: 0xffff_0000_0000,
    bits: 96,
};

impl Prefix {
    fn new(network: IpNetwork) -> Self {
        let bits = match network {
            IpNetwork::V4(v4) => 96 + u32::from(v4.prefix()),
            IpNetwork::V6(v6) => u32::from(v6.prefix()),
        };
        let mut prefix = Self {
            address: number(network.network()),
            bits,
        };
        prefix.address &= prefix.mask();
        prefix
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }

    fn contains(self, other: Self) -> bool {
        self.bits <= other.bits && other.address & self.mask() == self.address
    }

    fn key(self) -> PrefixKey {
        prefix_key(self.address, self.bits)
    }
}

/// An address in its mapped form as a number.
fn number(address: IpAddr) -> u128 {
    u128::from_be_bytes(Address::from(address).bytes())
}

/// What begins or ends at a prefix.
#[derive(Default)]
struct Edge {
    enter: Vec<usize>,
    leave: Vec<usize>,
}

/// Which blocks hold, by longest prefix.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// Sorted block terms of every prefix whose answer differs from that of the prefix around it.
    pub(super) entries: BTreeMap<PrefixKey, Vec<usize>>,
    lengths: BTreeSet<u32>,
}

impl Prefixes {
    /// Cuts blocks, each given with its number, range and exceptions.
    pub(super) fn new<'a>(
        blocks: impl Iterator<Item = (usize, IpNetwork, &'a BTreeSet<IpNetwork>)>,
    ) -> Self {
        let mut edges: BTreeMap<Prefix, Edge> = BTreeMap::new();
        for (block, cidr, except) in blocks {
            let cidr = Prefix::new(cidr);
            let except: Vec<Prefix> = except.iter().copied().map(Prefix::new).collect();
            if except.iter().any(|hole| hole.contains(cidr)) {
                continue;
            }
            edges.entry(cidr).or_default().enter.push(block);
            for hole in except {
                edges.entry(hole).or_default().leave.push(block);
            }
        }
        // Families are independent: ::/0 holds for no IPv4 address, although its prefix covers the mapped form.
        edges.entry(IPV4).or_default();
        Self::sweep(edges)
    }

    /// Walks the prefixes from outside to inside; `around` are the ones that contain the current one.
    fn sweep(edges: BTreeMap<Prefix, Edge>) -> Self {
        let mut prefixes = Self::default();
        let mut around: Vec<(Prefix, BTreeSet<usize>)> = Vec::new();
        for (prefix, edge) in edges {
            while around
                .pop_if(|(outer, _)| !outer.contains(prefix))
                .is_some()
            {}
            let outside = around.last().map(|(_, terms)| terms);
            let mut terms = match outside {
                Some(terms) if prefix != IPV4 => terms.clone(),
                _ => BTreeSet::new(),
            };
            terms.extend(&edge.enter);
            for block in &edge.leave {
                terms.remove(block);
            }
            if *outside.unwrap_or(&BTreeSet::new()) != terms {
                prefixes.lengths.insert(prefix.bits);
                prefixes
                    .entries
                    .insert(prefix.key(), terms.iter().copied().collect());
            }
            around.push((prefix, terms));
        }
        prefixes
    }

    /// The blocks that hold for an address.
    pub(super) fn of(&self, address: IpAddr) -> &[usize] {
        let address = number(address);
        self.lengths
            .iter()
            .rev()
            .find_map(|bits| self.entries.get(&prefix_key(address, *bits)))
            .map_or(&[], Vec::as_slice)
    }
}

/// The addresses of a prefix, all of one family: those of IPv4 have a prefix of their own.
pub(super) fn addresses(key: &PrefixKey) -> RangeInclusive<IpAddr> {
    let first = u128::from_be_bytes(key.address.bytes());
    let last = first | u128::MAX.checked_shr(key.bits).unwrap_or(0);
    if key.bits >= IPV4.bits && first & IPV4.mask() == IPV4.address {
        let v4 = |number: u128| IpAddr::V4(Ipv4Addr::from_bits(number as u32));
        return v4(first)..=v4(last);
    }
    let v6 = |number: u128| IpAddr::V6(Ipv6Addr::from_bits(number));
    v6(first)..=v6(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(blocks: &[(&str, &[&str])]) -> Prefixes {
        let blocks: Vec<(IpNetwork, BTreeSet<IpNetwork>)> = blocks
            .iter()
            .map(|(cidr, except)| {
                let holes = except.iter().map(|hole| hole.parse().unwrap()).collect();
                (cidr.parse().unwrap(), holes)
            })
            .collect();
        let numbered = blocks.iter().enumerate();
        Prefixes::new(numbered.map(|(number, (cidr, except))| (number, *cidr, except)))
    }

    fn check(prefixes: &Prefixes, expected: &[(&str, &[usize])]) {
        for (address, blocks) in expected {
            assert_eq!(prefixes.of(address.parse().unwrap()), *blocks, "{address}");
        }
    }

    #[test]
    fn nested_blocks_and_exceptions() {
        let prefixes = cut(&[
            ("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]),
            ("10.1.2.0/24", &[]),
            ("10.1.0.0/16", &["10.1.2.3/32"]),
        ]);
        check(
            &prefixes,
            &[
                ("9.255.255.255", &[]),
                ("10.0.0.0", &[0]),
                ("10.3.0.0", &[0]),
                ("10.1.0.0", &[2]),
                ("10.1.2.2", &[1, 2]),
                ("10.1.2.3", &[1]),
                ("10.2.255.255", &[]),
                ("11.0.0.0", &[]),
            ],
        );
    }

    #[test]
    fn everything_of_one_family_says_nothing_about_the_other() {
        check(
            &cut(&[("::/0", &["fd00::/8"])]),
            &[("10.0.0.1", &[]), ("2001:db8::1", &[0]), ("fd00::1", &[])],
        );
        check(
            &cut(&[("0.0.0.0/0", &["10.0.0.0/8"])]),
            &[("10.0.0.1", &[]), ("192.0.2.1", &[0]), ("::1", &[])],
        );
    }

    #[test]
    fn prefixes_that_change_nothing_are_left_out() {
        let prefixes = cut(&[("10.0.0.0/8", &[]), ("192.0.2.0/24", &["192.0.2.0/24"])]);
        assert_eq!(prefixes.entries.len(), 1);
    }

    #[test]
    fn a_prefix_has_the_addresses_of_its_own_family() {
        for (prefix, first, last) in [
            ("10.1.0.0/16", "10.1.0.0", "10.1.255.255"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("fd00::1/128", "fd00::1", "fd00::1"),
            ("fd00::100/120", "fd00::100", "fd00::1ff"),
            (
                "fd00::/8",
                "fd00::",
                "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let range = addresses(&Prefix::new(prefix.parse().unwrap()).key());
            let wanted: [IpAddr; 2] = [first, last].map(|address| address.parse().unwrap());
            assert_eq!([*range.start(), *range.end()], wanted, "{prefix}");
        }
    }
}
