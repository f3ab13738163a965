//! What only a diagnosis wants to know of devices; the agent is not to be told of every change of it.

use std::collections::BTreeMap;

use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use super::Error;
use super::dump::each;

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
    /// Numbers of its XDP programs.
    pub xdp: Vec<(XdpMode, u32)>,
}

/// Details of all devices of this network namespace, by interface index.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn details() -> Result<BTreeMap<u32, Details>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let mut devices = BTreeMap::new();
    let dump = each(handle.link().get().execute(), "devices", |link| {
        devices.insert(link.header.index, of(&link));
    });
    tokio::select! {
        done = dump => done,
        () = connection => Err(Error::Ended),
    }?;
    Ok(devices)
}

fn of(message: &LinkMessage) -> Details {
    let mut details = Details::default();
    for attribute in &message.attributes {
        if let LinkAttribute::Xdp(attributes) = attribute {
            let programs = attributes.iter().filter_map(|attribute| match attribute {
                LinkXdp::DrvProgId(id) => Some((XdpMode::Driver, *id)),
                LinkXdp::SkbProgId(id) => Some((XdpMode::Generic, *id)),
                LinkXdp::HwProgId(id) => Some((XdpMode::Offload, *id)),
                _ => None,
            });
            details.xdp = programs.collect();
        }
    }
    details
}
