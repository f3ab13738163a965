//! Reads a [`LinkTable`] from the kernel.

use std::net::IpAddr;

use futures::{TryStream, TryStreamExt};
use ipnetwork::IpNetwork;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};

use super::Error;
use super::table::{Family, Link, LinkKind, LinkTable, Mac, Neighbour};

/// All that the kernel tells of links, routes and neighbours of this network namespace.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn links() -> Result<LinkTable, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    tokio::select! {
        table = dump(&handle) => table,
        () = connection => Err(Error::Ended),
    }
}

/// The index of the first of these devices that is one end of a veth, with its name; `None` if none is there.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn first_veth(names: &[String]) -> Result<Option<(u32, String)>, Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let find = async {
        for name in names {
            let mut table = LinkTable::default();
            let asked = handle.link().get().match_name(name.clone()).execute();
            // One that is not there is an error to the kernel, too.
            if each(asked, "devices", |link| add_link(&mut table, link))
                .await
                .is_err()
            {
                continue;
            }
            let links = table.links.into_iter();
            let mut veths = links.filter(|(_, link)| link.kind == LinkKind::Veth);
            if let Some((ifindex, link)) = veths.next() {
                return Ok(Some((ifindex, link.name)));
            }
        }
        Ok(None)
    };
    tokio::select! {
        found = find => found,
        () = connection => Err(Error::Ended),
    }
}

/// Asks the kernel for everything. The answers are of slightly different moments; a later change brings a later dump.
pub(super) async fn dump(handle: &Handle) -> Result<LinkTable, Error> {
    let mut table = LinkTable::default();
    each(handle.link().get().execute(), "devices", |link| {
        add_link(&mut table, link);
    })
    .await?;
    each(handle.address().get().execute(), "addresses", |address| {
        add_address(&mut table, &address);
    })
    .await?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        each(handle.route().get(request).execute(), "routes", |route| {
            add_route(&mut table, &route);
        })
        .await?;
        let request = handle.neighbours().get().set_address_family(family);
        each(request.execute(), "neighbours", |neighbour| {
            add_neighbour(&mut table, &neighbour);
        })
        .await?;
    }
    let request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Bridge);
    each(request.execute(), "bridge tables", |entry| {
        add_forwarding(&mut table, &entry);
    })
    .await?;
    Ok(table)
}

pub(super) async fn each<T>(
    answers: impl TryStream<Ok = T, Error = rtnetlink::Error>,
    what: &'static str,
    mut add: impl FnMut(T),
) -> Result<(), Error> {
    let added = answers.try_for_each(|item| {
        add(item);
        std::future::ready(Ok(()))
    });
    added.await.map_err(|source| Error::List { what, source })
}

fn add_link(table: &mut LinkTable, message: LinkMessage) {
    let mut link = Link {
        name: String::new(),
        kind: LinkKind::Other,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        controller: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(ifindex) => link.controller = Some(ifindex),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Veth,
                        LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
                        LinkInfo::Kind(InfoKind::Dummy) => link.kind = LinkKind::Dummy,
                        LinkInfo::Kind(InfoKind::Vxlan | InfoKind::Geneve) => {
                            link.kind = LinkKind::Tunnel;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    table.links.insert(message.header.index, link);
}

fn add_address(table: &mut LinkTable, message: &AddressMessage) {
    // With a peer, `Address` is the peer's and `Local` ours; both families have `Address` otherwise.
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(move |attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    let Some(address) = find(true).or_else(|| find(false)) else {
        return;
    };
    let passing = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Secondary;
    if message.header.scope == AddressScope::Universe && !message.header.flags.intersects(passing) {
        let key = (message.header.index, Family::of(address));
        table.sources.entry(key).or_insert(address);
    }
    if let Ok(network) = IpNetwork::new(address, message.header.prefix_len) {
        table.addresses.insert((message.header.index, network));
    }
}

fn add_route(table: &mut LinkTable, message: &RouteMessage) {
    if message.header.kind != RouteType::Unicast {
        return;
    }
    let mut destination = None;
    let mut devices = Vec::new();
    let mut gateway = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(ifindex) => devices.push(*ifindex),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = true,
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
                gateway = true;
            }
            _ => {}
        }
    }
    if gateway {
        table.gateways.extend(&devices);
    }
    let length = message.header.destination_prefix_length;
    match destination {
        None if length == 0 => table.default_routes.extend(devices),
        Some(address) if !gateway && length == host_length(address) => {
            table
                .host_routes
                .entry(address)
                .or_default()
                .extend(devices);
        }
        _ => {}
    }
}

const fn host_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })
}

fn add_neighbour(table: &mut LinkTable, message: &NeighbourMessage) {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        });
    let Some(address) = address else {
        return;
    };
    // A failed or incomplete entry may still carry an old Ethernet address.
    let resolved = !matches!(
        message.header.state,
        NeighbourState::Failed | NeighbourState::Incomplete
    );
    let neighbour = Neighbour {
        mac: mac(message).filter(|_| resolved),
        learned: is_learned(message),
    };
    table
        .neighbours
        .insert((message.header.ifindex, address), neighbour);
}

/// Whether the kernel made an entry by itself: it bears no mark of a user or a daemon.
fn is_learned(message: &NeighbourMessage) -> bool {
    let marked = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Protocol(protocol) => *protocol != RouteProtocol::Unspec,
        NeighbourAttribute::ExtFlags(flags) => {
            flags.intersects(NeighbourExtFlags::Managed | NeighbourExtFlags::Locked)
        }
        _ => false,
    };
    !matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    ) && !message.header.flags.contains(NeighbourFlags::ExtLearned)
        && !message.attributes.iter().any(marked)
}

fn add_forwarding(table: &mut LinkTable, message: &NeighbourMessage) {
    // Permanent entries are the ports' own addresses.
    if message.header.state == NeighbourState::Permanent {
        return;
    }
    let bridge = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Controller(bridge) => Some(*bridge),
            _ => None,
        });
    if let (Some(bridge), Some(mac)) = (bridge, mac(message)) {
        table
            .forwarding
            .insert((bridge, mac), message.header.ifindex);
    }
}
