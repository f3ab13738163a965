//! The way of a connection: which node translates it, for whom, and whom its ends see.

use super::target::Target;
use super::translate::{self, Frontend};
use super::world::{Spot, World};
use super::{PlaceKind, Translation, Verdict};
use crate::compile::{Client, Clients, Exposed, services_only};
use crate::model::Protocol;

/// What one source address gets to at one destination address.
#[derive(Default)]
pub(super) struct Way<'a> {
    /// A verdict that no policy gives.
    pub(super) verdict: Option<Verdict>,
    pub(super) destinations: Vec<Destination<'a>>,
    pub(super) translation: Option<Translation>,
    /// The port of another node that it goes to first.
    pub(super) hop: Option<Spot<'a>>,
}

/// Where a connection ends.
pub(super) struct Destination<'a> {
    pub(super) spot: Spot<'a>,
    /// The node that it seems to come from there, if that is not its source.
    pub(super) seen_as: Option<Spot<'a>>,
}

/// A frontend that takes the connection, on one node.
struct Taken<'a> {
    exposed: Exposed<'a>,
    node: &'a str,
    client: Client,
    /// Whether it gets there through the network.
    far: bool,
}

impl<'a> Target<'a> {
    /// The ways from an address, to each destination address of its family.
    pub(super) fn ways(&self, world: &World<'a>, source: &Spot<'a>) -> Vec<Way<'a>> {
        let v4 = source.place.address.is_ipv4();
        let alike = |spot: &&Spot<'_>| spot.place.address.is_ipv4() == v4;
        let spots = self.spots.iter().filter(alike);
        spots
            .map(|spot| match taken(world, source, spot, self.protocol) {
                Some(taken) => translated(world, spot, self.protocol, taken),
                None if services_only(world.snapshot, spot.place.address) => Way {
                    verdict: Some(Verdict::NoService),
                    ..Way::default()
                },
                None => Way {
                    destinations: vec![Destination {
                        spot: spot.clone(),
                        seen_as: None,
                    }],
                    ..Way::default()
                },
            })
            .collect()
    }
}

/// The frontend that takes a connection: one of the node that the source is on, else one of the node that has the address. What
/// comes from outside to an address that no node has comes in by the node of the snapshot.
fn taken<'a>(
    world: &World<'a>,
    source: &Spot<'a>,
    spot: &Spot<'a>,
    protocol: Protocol,
) -> Option<Taken<'a>> {
    let (address, from) = (spot.place.address, source.place.address);
    let find = |node: &'a str, client, far| {
        let exposed = world.exposure.find(node, address, spot.port, protocol)?;
        Some(Taken {
            exposed,
            node,
            client,
            far,
        })
    };
    let owner = world.node_of(address);
    let client = match source.place.kind {
        PlaceKind::Node => Client::Node,
        // Loopback addresses are each pod's own.
        PlaceKind::Pod if address.is_loopback() => return None,
        PlaceKind::Pod => Client::Pod(from),
        PlaceKind::Outside => {
            let node = owner.unwrap_or(&world.snapshot.node_name);
            return find(node, Client::Outside(from), false);
        }
    };
    let own = world.home_of(source);
    let near = own.and_then(|own| find(own, client, false));
    near.or_else(|| {
        let other = owner.filter(|owner| Some(*owner) != own)?;
        // What is for Services, and nobody's here, does not leave the node.
        let leaves = !services_only(world.snapshot, address);
        leaves.then(|| find(other, Client::Outside(from), true))?
    })
}

fn translated<'a>(
    world: &World<'a>,
    spot: &Spot<'a>,
    protocol: Protocol,
    taken: Taken<'a>,
) -> Way<'a> {
    let Taken {
        exposed,
        node,
        client,
        far,
    } = taken;
    let frontend = Frontend {
        exposed: &exposed,
        node,
        port: spot.port,
        protocol,
    };
    let (verdict, translation) = translate::for_client(world, &frontend, client);
    let v4 = spot.place.address.is_ipv4();
    let destination = |endpoint: &super::EndpointAnswer| {
        let mut spot = world.spot(endpoint.address);
        if spot.place.pod.is_none() {
            spot.place.pod.clone_from(&endpoint.pod);
        }
        // The answers must come back by the node that knows what to make of them.
        let on = spot.place.node.as_ref().or(endpoint.node.as_ref());
        let away = client.side() == Clients::Outside && on.is_none_or(|on| on != node);
        let seen_as = away.then(|| world.node_spot(node, v4)).flatten();
        Some(Destination {
            spot: spot.at(endpoint.port?),
            seen_as,
        })
    };
    let endpoints = translation.endpoints.iter();
    let usable = endpoints.filter(|endpoint| verdict.is_none() && endpoint.excluded.is_none());
    Way {
        destinations: usable.filter_map(destination).collect(),
        verdict,
        translation: Some(translation),
        hop: far.then(|| spot.clone()),
    }
}
