//! Connections that the kernel tracks (nf_conntrack).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::attributes::{Attributes, find, number};
use super::socket::{Netfilter, Request};
use crate::model::{Connection, Ends};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;

/// Where the kernel tells how many there are, if it tracks any.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Attributes (linux/netfilter/nfnetlink_conntrack.h).
mod attribute {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOCOL_STATE: u16 = 4;
    pub(super) const STATE_TCP: u16 = 1;
    pub(super) const STATE_TCP_NUMBER: u16 = 1;
    pub(super) const TUPLE_ADDRESSES: u16 = 1;
    pub(super) const TUPLE_PROTOCOL: u16 = 2;
    pub(super) const SOURCE_V4: u16 = 1;
    pub(super) const DESTINATION_V4: u16 = 2;
    pub(super) const SOURCE_V6: u16 = 3;
    pub(super) const DESTINATION_V6: u16 = 4;
    pub(super) const PROTOCOL_NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
}

/// `TCP_CONNTRACK_ESTABLISHED` to `TCP_CONNTRACK_LAST_ACK`: both ends have agreed, and not both have ended.
const ALIVE: std::ops::RangeInclusive<u8> = 3..=6;
/// `IPS_DST_NAT`: the destination is translated.
const TRANSLATED: u32 = 1 << 5;

/// The established TCP connections of this network namespace; none where the kernel tracks none.
///
/// # Errors
/// When the kernel does not answer.
pub fn connections() -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    each(|attributes| connections.extend(connection(attributes)))?;
    Ok(connections)
}

/// How many of them have their destination translated by netfilter.
///
/// # Errors
/// When the kernel does not answer.
pub fn translated() -> io::Result<usize> {
    let mut count = 0;
    each(|attributes| {
        let status = number(attributes, attribute::STATUS).unwrap_or_default();
        count += usize::from(connection(attributes).is_some() && status & TRANSLATED != 0);
    })?;
    Ok(count)
}

fn each(mut visit: impl FnMut(&[u8])) -> io::Result<()> {
    // Asking would load the module.
    if !Path::new(COUNT).exists() {
        return Ok(());
    }
    let Some(netfilter) = Netfilter::open_if_any()? else {
        return Ok(());
    };
    let request = Request {
        kind: GET,
        flags: libc::NLM_F_DUMP,
        // All families.
        family: 0,
        attributes: Attributes::new(),
    };
    // A connection may come twice or not at all if the table grows meanwhile; the kernel has nothing better.
    match netfilter.ask(&request, |message| visit(message.attributes)) {
        // There is no connection tracking.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(())
        }
        asked => asked.map(drop),
    }
}

fn connection(attributes: &[u8]) -> Option<Connection> {
    let state = find(attributes, attribute::PROTOCOL_STATE)
        .and_then(|state| find(state, attribute::STATE_TCP))
        .and_then(|tcp| find(tcp, attribute::STATE_TCP_NUMBER))?;
    let connection = Connection {
        asked: ends(find(attributes, attribute::ORIGINAL)?)?,
        answered: ends(find(attributes, attribute::REPLY)?)?,
    };
    ALIVE.contains(state.first()?).then_some(connection)
}

fn ends(tuple: &[u8]) -> Option<Ends> {
    let addresses = find(tuple, attribute::TUPLE_ADDRESSES)?;
    let protocol = find(tuple, attribute::TUPLE_PROTOCOL)?;
    let address = |v4, v6| {
        let v4 = find(addresses, v4).and_then(|bytes| bytes.first_chunk());
        let v6 = find(addresses, v6).and_then(|bytes| bytes.first_chunk());
        match (v4, v6) {
            (Some(v4), _) => Some(IpAddr::V4(Ipv4Addr::from(*v4))),
            (None, v6) => v6.map(|v6| IpAddr::V6(Ipv6Addr::from(*v6))),
        }
    };
    let port = |kind| Some(u16::from_be_bytes(*find(protocol, kind)?.first_chunk()?));
    Some(Ends {
        protocol: *find(protocol, attribute::PROTOCOL_NUMBER)?.first()?,
        source: address(attribute::SOURCE_V4, attribute::SOURCE_V6)?,
        source_port: port(attribute::SOURCE_PORT)?,
        destination: address(attribute::DESTINATION_V4, attribute::DESTINATION_V6)?,
        destination_port: port(attribute::DESTINATION_PORT)?,
    })
}
