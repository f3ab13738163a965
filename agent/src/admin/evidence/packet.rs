//! First packets of connections, made up to be judged by the programs in a dry run.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket};
use serde::{Deserialize, Serialize};
use weir_common::abi::{Flow, FlowKey, Hook};
use weir_common::reason::Reason;

use crate::model::Protocol;

/// Time to live (hop limit) of made-up packets: that of Linux.
const TIME_TO_LIVE: u8 = 64;
/// Receive window of made-up TCP packets.
const WINDOW: u16 = 64_240;
/// INIT chunk with as much as RFC 9260, section 3.3.2, asks for: type 1, length 20, tag, window, streams out and in, number.
const INIT: [u8; 20] = [
    1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 250, 240, 0, 1, 0, 1, 0, 0, 0, 1,
];

/// A packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstPacket {
    /// Whether it leaves a pod or enters one.
    pub hook: Hook,
    /// Host end of the pod's veth.
    pub ifindex: u32,
    /// Device that it came in by.
    pub ingress_ifindex: u32,
    /// Ethernet frame.
    pub frame: Vec<u8>,
}

/// What the programs did with a packet in a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// Why.
    pub reason: Reason,
    /// The frame as they left it.
    pub frame: Vec<u8>,
}

/// What came of a made-up first packet of a connection, which left no trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// Whether it was let through.
    pub passed: bool,
    /// Why, see [`Reason::name`].
    pub reason: String,
    /// Where it went; `None` where it was not let through.
    pub to: Option<SocketAddr>,
}

impl Tried {
    pub(super) fn of(run: &DryRun) -> Self {
        let passed = !run.reason.is_drop();
        let to = passed.then(|| destination(&run.frame)).flatten();
        Self {
            passed,
            reason: run.reason.name().to_owned(),
            to,
        }
    }

    /// Whether a policy stopped it.
    pub(super) fn is_denied(&self) -> bool {
        self.reason == Reason::PolicyDenied.name()
    }
}

/// The frame of a first packet; `None` between addresses of two families.
pub(super) fn frame(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            builder.ipv4(from.octets(), to.octets(), TIME_TO_LIVE)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            builder.ipv6(from.octets(), to.octets(), TIME_TO_LIVE)
        }
        _ => return None,
    };
    let (from, to) = (source.port(), destination.port());
    let mut frame = Vec::new();
    let written = match protocol {
        Protocol::Tcp => builder
            .tcp(from, to, 1, WINDOW)
            .syn()
            .write_to_vec(&mut frame, &[]),
        Protocol::Udp => builder.udp(from, to).write_to_vec(&mut frame, &[]),
        Protocol::Sctp => {
            // Ports, no verification tag yet, no checksum: programs change checksums and do not check them.
            let ports = [from, to].map(u16::to_be_bytes).concat();
            let payload = [&ports[..], &[0; 8], &INIT].concat();
            builder.write_to_vec(&mut frame, IpNumber::SCTP, &payload)
        }
    };
    written.ok().map(|()| frame)
}

/// Where a frame goes.
fn destination(frame: &[u8]) -> Option<SocketAddr> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (address, payload) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            IpAddr::V4(ip.header().destination_addr()),
            ip.payload().payload,
        ),
        NetSlice::Ipv6(ip) => (
            IpAddr::V6(ip.header().destination_addr()),
            ip.payload().payload,
        ),
        NetSlice::Arp(_) => return None,
    };
    // The same place in TCP, UDP and SCTP.
    let port = payload.get(2..4)?.first_chunk()?;
    Some(SocketAddr::new(address, u16::from_be_bytes(*port)))
}

/// A port that no tracked connection has at either end, so that a packet from there is a new one's.
pub(super) fn free_port(tracked: &[(FlowKey, Flow)]) -> Option<u16> {
    let used: BTreeSet<u16> = tracked.iter().flat_map(|(key, _)| key.ports).collect();
    (1..=u16::MAX).rev().find(|port| !used.contains(port))
}
