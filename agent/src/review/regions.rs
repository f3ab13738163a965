//! Addresses outside the cluster, cut where rules cut them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::compile::services_only;
use crate::explain::{PlaceKind, World, behind, rules};
use crate::model::Peer;

/// All addresses of a family.
const ALL: [fn() -> Option<IpNetwork>; 2] = [
    || Some(Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).ok()?.into()),
    || Some(Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).ok()?.into()),
];

/// The addresses of a block that are in none of the blocks inside it. CIDRs nest or are apart, so that these regions
/// are all the pieces into which blocks cut the addresses: no rule tells two addresses of one from each other.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// The block.
    pub(super) cidr: IpNetwork,
    /// The largest blocks inside it.
    pub(super) except: Vec<IpNetwork>,
}

/// The regions of both families, by every block of both worlds.
pub(super) struct Regions {
    regions: Vec<Region>,
}

impl Regions {
    pub(super) fn of(worlds: &[World<'_>; 2]) -> Self {
        let mut blocks: BTreeSet<IpNetwork> = ALL.iter().filter_map(|all| all()).collect();
        for world in worlds {
            for peer in rules(world.snapshot).flat_map(|rule| &rule.peers) {
                if let Peer::Block { cidr, except } = peer {
                    blocks.extend(std::iter::once(cidr).chain(except).copied());
                }
            }
            let ranges = world.snapshot.service_cidrs.values();
            blocks.extend(ranges.flat_map(|range| range.cidrs.iter().copied()));
        }
        // From the largest to the smallest: the last one that holds a block is the one around it.
        let mut regions: Vec<Region> = Vec::new();
        let mut sorted: Vec<IpNetwork> = blocks.into_iter().collect();
        sorted.sort_by_key(|block| (block.prefix(), *block));
        for cidr in sorted {
            if let Some(around) = innermost(&regions, cidr.network()) {
                regions[around].except.push(cidr);
            }
            let except = Vec::new();
            regions.push(Region { cidr, except });
        }
        for region in &mut regions {
            region.except.sort();
        }
        Self { regions }
    }

    /// The region that an address is in.
    pub(super) fn at(&self, address: IpAddr) -> Option<usize> {
        innermost(&self.regions, address)
    }

    /// Each region with an address of it that nobody has, if there is one.
    pub(super) fn free<'r>(
        &'r self,
        worlds: &'r [World<'_>; 2],
    ) -> impl Iterator<Item = (&'r Region, IpAddr)> {
        let regions = self.regions.iter();
        regions.filter_map(move |region| Some((region, region.free(worlds)?)))
    }
}

fn innermost(regions: &[Region], address: IpAddr) -> Option<usize> {
    regions
        .iter()
        .rposition(|region| region.cidr.contains(address))
}

impl Region {
    fn holds(&self, address: IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|inner| inner.contains(address))
    }

    fn free(&self, worlds: &[World<'_>; 2]) -> Option<IpAddr> {
        let inner = self.except.iter();
        let starts = inner.filter_map(|inner| behind(inner.broadcast()));
        std::iter::once(self.cidr.network())
            .chain(starts)
            .find_map(|start| {
                let mut address = start;
                while self.holds(address) && !virtual_address(worlds, address) {
                    let outside =
                        |world: &World<'_>| world.spot(address).place.kind == PlaceKind::Outside;
                    if worlds.iter().all(outside) {
                        return Some(address);
                    }
                    address = behind(address)?;
                }
                None
            })
    }
}

/// Addresses of Services: policies never see them, whoever asks.
fn virtual_address(worlds: &[World<'_>; 2], address: IpAddr) -> bool {
    worlds
        .iter()
        .any(|world| services_only(world.snapshot, address))
}
