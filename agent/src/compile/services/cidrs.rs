//! ServiceCIDRs: addresses that are Services' only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weir_common::abi::{SERVICES_ONLY, SourceKey};

use crate::model::{ObjectName, Snapshot};

/// The ranges, without the addresses that another proxy serves.
pub(super) fn ranges(snapshot: &Snapshot) -> BTreeMap<SourceKey, ObjectName> {
    let mut ranges = BTreeMap::new();
    let foreign = foreign(snapshot);
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

/// Whether an address is for Services and no other proxy serves one there: what goes to it is lost unless a Service of ours has it.
///
/// Source of the rule: ServiceCIDR spec.cidrs, and Service metadata.labels with service.kubernetes.io/service-proxy-name.
#[must_use]
pub fn services_only(snapshot: &Snapshot, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let ranges = snapshot.service_cidrs.values();
    let mut cidrs = ranges.flat_map(|range| &range.cidrs);
    cidrs.any(|cidr| cidr.contains(address)) && !foreign(snapshot).contains(&address)
}

/// The addresses that another proxy serves.
fn foreign(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let services = snapshot.foreign.values();
    let addresses = services.flat_map(|service| &service.cluster_ips);
    addresses.map(IpAddr::to_canonical).collect()
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
    use std::sync::Arc;

    use super::*;
    use crate::model::{ForeignService, ServiceCidr};

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

    #[test]
    fn an_address_is_judged_as_the_ranges_are_written() {
        let mut snapshot = Snapshot::default();
        let range = ServiceCidr {
            name: "a".to_owned(),
            cidrs: ["10.96.0.0/29", "fd00::/125"]
                .map(|cidr| cidr.parse().unwrap())
                .into(),
        };
        let cidrs = range.cidrs.clone();
        snapshot
            .service_cidrs
            .insert(range.name.clone(), Arc::new(range));
        let service = ForeignService {
            name: ObjectName::new("a", "foreign"),
            // However it is written.
            cluster_ips: ["::ffff:10.96.0.2", "fd00::2"]
                .map(|ip| ip.parse().unwrap())
                .into(),
        };
        snapshot
            .foreign
            .insert(service.name.clone(), Arc::new(service));
        let foreign = foreign(&snapshot);
        let parts = cidrs.iter().flat_map(|cidr| without(*cidr, &foreign));
        let parts: Vec<_> = parts.collect();
        for last in 0..16 {
            let v4 = std::net::Ipv4Addr::new(10, 96, 0, last);
            let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
            for address in [v4.into(), v6] {
                let written = parts.iter().any(|part| part.contains(address));
                assert_eq!(written, last < 8 && last != 2, "{address}");
                assert_eq!(services_only(&snapshot, address), written, "{address}");
            }
            let mapped = v4.to_ipv6_mapped().into();
            assert_eq!(
                services_only(&snapshot, mapped),
                services_only(&snapshot, v4.into()),
                "{mapped}"
            );
        }
    }
}
