//! ServiceCIDRs: addresses that are Services' only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weir_common::abi::{SERVICES_ONLY, SourceKey};

use crate::model::{ObjectName, Snapshot};

/// The ranges, without the addresses that another proxy serves.
pub(super) fn ranges(snapshot: &Snapshot) -> BTreeMap<SourceKey, ObjectName> {
    let mut ranges = BTreeMap::new();
    let foreign = snapshot.foreign.values();
    let foreign = foreign.flat_map(|service| &service.cluster_ips);
    let foreign: BTreeSet<IpAddr> = foreign.map(IpAddr::to_canonical).collect();
    for range in snapshot.service_cidrs.values() {
        for cidr in &range.cidrs {
            for part in without(*cidr, &foreign) {
                let (address, v4) = (part.network().into(), part.is_ipv4());
                let key = SourceKey::prefix(SERVICES_ONLY, address, part.prefix(), v4);
                ranges.insert(key, ObjectName::cluster(&range.name));
            }
        }
    }
    ranges
}

/// The largest ranges that make up a range but for some of its addresses.
fn without(range: IpNetwork, addresses: &BTreeSet<IpAddr>) -> Vec<IpNetwork> {
    let (mut done, mut left) = (Vec::new(), vec![range]);
    while let Some(range) = left.pop() {
        let mut inside = addresses.range(range.network()..=range.broadcast());
        if inside.next().is_none() {
            done.push(range);
        } else {
            // A single address that is among them has no halves.
            left.extend(halves(range).into_iter().flatten());
        }
    }
    done
}

fn halves(range: IpNetwork) -> Option<[IpNetwork; 2]> {
    let length = range.prefix() + 1;
    let second = match range.network() {
        IpAddr::V4(first) => {
            let bit = 1_u32.checked_shl(32_u32.checked_sub(length.into())?)?;
            IpAddr::from((u32::from(first) | bit).to_be_bytes())
        }
        IpAddr::V6(first) => {
            let bit = 1_u128.checked_shl(128_u32.checked_sub(length.into())?)?;
            IpAddr::from((u128::from(first) | bit).to_be_bytes())
        }
    };
    let halves = [range.network(), second].map(|half| IpNetwork::new(half, length));
    let [Ok(first), Ok(second)] = halves else {
        return None;
    };
    Some([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(range: &str, addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let mut parts = without(range.parse().unwrap(), &addresses);
        parts.sort_unstable();
        parts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_range_goes_round_what_is_not_in_it() {
        assert_eq!(parts("10.96.0.0/12", &["10.200.0.1"]), ["10.96.0.0/12"]);
        assert_eq!(
            parts("10.96.0.0/29", &["10.96.0.2"]),
            ["10.96.0.0/31", "10.96.0.3/32", "10.96.0.4/30"]
        );
        assert_eq!(
            parts("fd00::/126", &["fd00::", "fd00::3"]),
            ["fd00::1/128", "fd00::2/128"]
        );
        assert_eq!(parts("10.96.0.1/32", &["10.96.0.1"]), [""; 0]);
        let all = parts("fd00::/64", &["fd00::1"]);
        assert_eq!(all.len(), 64);
    }
}
