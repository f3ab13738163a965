//! ipBlocks of addresses that they do not mean.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::parties::Ground;
use super::{Finding, Guard, Touched};
use crate::compile::services_only;
use crate::model::Peer;

pub(super) fn findings(
    ground: &Ground<'_>,
    touched: &[Touched<'_>],
    pod_ranges: &[IpNetwork],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in touched {
        for (place, peer) in policy.peers() {
            let Peer::Block { cidr, .. } = peer else {
                continue;
            };
            let found =
                virtual_address(ground, *cidr).or_else(|| pod_address(ground, *cidr, pod_ranges));
            if let Some((guard, message, hint)) = found {
                let name = policy.name();
                findings.push(Finding {
                    guard,
                    message: format!("ipBlock {cidr} of policy {name} {place} {message}"),
                    hint: hint.to_owned(),
                    policies: vec![name.clone()],
                    locations: Vec::new(),
                    fixes: Vec::new(),
                });
            }
        }
    }
    findings
}

type Found = (Guard, String, &'static str);

/// A block in which there are addresses of Services alone.
fn virtual_address(ground: &Ground<'_>, cidr: IpNetwork) -> Option<Found> {
    let after = &ground.of.after;
    let single = cidr.network() == cidr.broadcast();
    let services = after.services.values();
    let mut services = services.filter(|service| {
        let mut addresses = service.cluster_ips.iter();
        addresses.any(|address| cidr.contains(*address))
    });
    let inside = |address: IpAddr| services_only(after, address);
    let service = services.next();
    let of_service = single && service.is_some();
    let virtual_only = inside(cidr.network()) && inside(cidr.broadcast());
    if !of_service && !virtual_only {
        return None;
    }
    let whose = service.map_or_else(
        || "addresses of Services".to_owned(),
        |service| format!("the address of Service {}", service.name),
    );
    Some((
        Guard::VirtualAddress,
        format!("names {whose}, and allows nothing: policies see the endpoint behind it"),
        "select the pods behind the Service by label, and name the port that they listen on",
    ))
}

/// A block inside the range of pods, or the address of one.
fn pod_address(ground: &Ground<'_>, cidr: IpNetwork, ranges: &[IpNetwork]) -> Option<Found> {
    let single = cidr.network() == cidr.broadcast();
    let world = &ground.worlds[1];
    let owner = world.spot(cidr.network()).pod.filter(|_| single);
    let inside = |range: &&IpNetwork| {
        range.is_ipv4() == cidr.is_ipv4()
            && range.prefix() < cidr.prefix()
            && range.contains(cidr.network())
    };
    let message = match (owner, ranges.iter().find(inside)) {
        (Some(pod), _) => format!(
            "is the address of pod {}, for as long as that pod is there",
            pod.name
        ),
        (None, Some(range)) => format!(
            "is a part of the pods' range {range}: which pods have these addresses changes all the time"
        ),
        (None, None) => return None,
    };
    Some((Guard::PodAddress, message, "select pods by label instead"))
}
