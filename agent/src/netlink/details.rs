//! What only a diagnosis wants to know of devices; the agent is not to be told of every change of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoData, InfoGeneve, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage, LinkXdp,
};

use super::Error;
use super::dump::each;

/// Bytes that VXLAN and Geneve add over IPv4: Ethernet (14), their own header and that of UDP (8 each), IPv4 (20).
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6 (40).
const OVERHEAD_V6: u32 = 70;

/// Where a driver, or the kernel for it, runs XDP programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Driver,
    /// In the kernel's network stack.
    Generic,
    /// On the network card.
    Offload,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Most bytes of a packet that it carries, from the IP header on.
    pub mtu: u32,
    /// Numbers of its XDP programs.
    pub xdp: Vec<(XdpMode, u32)>,
    /// What it tunnels through; `None` for what is no tunnel, and for one whose packets each say where they go.
    pub tunnel: Option<Tunnel>,
    /// Its other end in another network namespace.
    pub peer: Option<Peer>,
}

/// What packets of a tunnel go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Bytes that it adds to a packet.
    pub overhead: u32,
    /// Index of the device below; `None` where routes decide.
    pub below: Option<u32>,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Number by which this network namespace knows its own.
    pub netns: u32,
    /// Its name there.
    pub name: String,
    /// As of [`Details`].
    pub mtu: u32,
}

/// Details of all devices of this network namespace, by interface index; of other ends, those of `pods`.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn details(pods: &BTreeSet<u32>) -> Result<BTreeMap<u32, Details>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    tokio::select! {
        devices = dump(&handle, pods) => devices,
        () = connection => Err(Error::Ended),
    }
}

async fn dump(handle: &Handle, pods: &BTreeSet<u32>) -> Result<BTreeMap<u32, Details>, Error> {
    let mut messages = Vec::new();
    each(handle.link().get().execute(), "devices", |link| {
        messages.push(link);
    })
    .await?;
    let mut devices = BTreeMap::new();
    for message in messages {
        let mut details = of(&message);
        if pods.contains(&message.header.index) {
            details.peer = peer(handle, &message).await;
        }
        devices.insert(message.header.index, details);
    }
    Ok(devices)
}

fn of(message: &LinkMessage) -> Details {
    let mut details = Details::default();
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => details.mtu = *mtu,
            LinkAttribute::Xdp(attributes) => {
                let programs = attributes.iter().filter_map(|attribute| match attribute {
                    LinkXdp::DrvProgId(id) => Some((XdpMode::Driver, *id)),
                    LinkXdp::SkbProgId(id) => Some((XdpMode::Generic, *id)),
                    LinkXdp::HwProgId(id) => Some((XdpMode::Offload, *id)),
                    _ => None,
                });
                details.xdp = programs.collect();
            }
            LinkAttribute::LinkInfo(infos) => {
                details.tunnel = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(options)) => vxlan(options),
                    LinkInfo::Data(InfoData::Geneve(options)) => geneve(options),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    details
}

fn vxlan(options: &[InfoVxlan]) -> Option<Tunnel> {
    let mut tunnel = Tunnel {
        overhead: OVERHEAD_V4,
        below: None,
    };
    for option in options {
        match option {
            InfoVxlan::CollectMetadata(true) => return None,
            InfoVxlan::Local6(_) | InfoVxlan::Group6(_) => tunnel.overhead = OVERHEAD_V6,
            InfoVxlan::Link(ifindex) if *ifindex != 0 => tunnel.below = Some(*ifindex),
            _ => {}
        }
    }
    Some(tunnel)
}

fn geneve(options: &[InfoGeneve]) -> Option<Tunnel> {
    let mut tunnel = Tunnel {
        overhead: OVERHEAD_V4,
        below: None,
    };
    for option in options {
        match option {
            InfoGeneve::CollectMetadata => return None,
            InfoGeneve::Remote6(_) => tunnel.overhead = OVERHEAD_V6,
            _ => {}
        }
    }
    Some(tunnel)
}

/// The other end, asked for where it is without going there; `None` where that is nowhere else, or not ours to know.
async fn peer(handle: &Handle, message: &LinkMessage) -> Option<Peer> {
    let attributes = &message.attributes;
    let netns = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkNetNsId(id) => Some(*id),
        _ => None,
    })?;
    let index = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })?;
    let mut request = handle.link().get().match_index(index);
    let asked = request.message_mut();
    asked.attributes.push(LinkAttribute::IfNetnsId(netns));
    let found = request.execute().try_next().await.ok()??;
    let name = found
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    Some(Peer {
        netns: u32::try_from(netns).ok()?,
        name,
        mtu: of(&found).mtu,
    })
}
