//! loadBalancerSourceRanges: who may use the addresses of a load balancer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weir_common::abi::{NODE_OUTSIDE, SOURCE_RANGES, SourceKey};

use crate::model::Service;

/// The ranges of one family that narrow anything. Without any in a family its addresses are open, as kube-proxy has it, also where
/// there are ranges in the other; and so they are if one range is everything.
pub(super) fn of_family(service: &Service, v4: bool) -> Vec<IpNetwork> {
    let ranges = service.source_ranges.iter().copied();
    let ranges: Vec<_> = ranges.filter(|range| range.is_ipv4() == v4).collect();
    if ranges.iter().any(|range| range.prefix() == 0) {
        Vec::new()
    } else {
        ranges
    }
}

/// Adds the ranges of a Service port in one family; gives the flags of its load balancers' frontends.
pub(super) fn add(
    sources: &mut BTreeSet<SourceKey>,
    service: &Service,
    id: u64,
    v4: bool,
    node: &[IpAddr],
) -> u32 {
    let ranges = of_family(service, v4);
    if ranges.is_empty() || service.load_balancer_ips.is_empty() {
        return 0;
    }
    for range in &ranges {
        let key = SourceKey::prefix(id, range.network().into(), range.prefix(), v4);
        sources.insert(key);
    }
    // What the node itself sends comes from its own address.
    let holds_node = ranges
        .iter()
        .any(|range| node.iter().any(|address| range.contains(*address)));
    if holds_node {
        SOURCE_RANGES
    } else {
        SOURCE_RANGES | NODE_OUTSIDE
    }
}
