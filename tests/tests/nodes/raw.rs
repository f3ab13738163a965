//! Packets that programs do not send by themselves: pings with a chosen identifier, protocols without ports, sources of others.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use weir_tests::netns::Place;
use weir_tests::packets::{Content, Packet};

/// Protocols without ports that no kernel speaks (RFC 3692).
pub(crate) const EXPERIMENTS: [u8; 2] = [253, 254];
const ETHERNET: usize = 14;

fn raw(place: &Place, v4: bool, protocol: i32) -> Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    place
        .run(|| Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))))
        .with_context(|| format!("a raw socket of protocol {protocol}"))
}

const fn ip_header(v4: bool) -> usize {
    if v4 { 20 } else { 40 }
}

/// Waits for a packet that somebody sent from `from` and whose content, behind the IP header, `wanted` knows.
fn hears(
    socket: &Socket,
    from: IpAddr,
    patience: Duration,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let (length, sender) = match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _, sender)) => (length, sender.context("an address")?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // IPv4 gives the header, too.
        let header = if from.is_ipv4() { ip_header(true) } else { 0 };
        if SocketAddr::try_from(sender)?.ip() == from && wanted(&buffer[header..length]) {
            return Ok(true);
        }
    }
}

/// Pings; says whether there was an answer.
pub(crate) fn ping(place: &Place, to: IpAddr, id: u16, patience: Duration) -> Result<bool> {
    let v4 = to.is_ipv4();
    let (protocol, request, reply, nobody): (_, _, _, IpAddr) = if v4 {
        (libc::IPPROTO_ICMP, 8, 0, Ipv4Addr::UNSPECIFIED.into())
    } else {
        (libc::IPPROTO_ICMPV6, 128, 129, Ipv6Addr::UNSPECIFIED.into())
    };
    let content = Content::Icmp {
        kind: request,
        code: 0,
        rest: u32::from(id) << 16 | 1,
        payload: vec![0; 16],
    };
    // The kernel knows the source, and makes the checksum of ICMPv6.
    let packet = Packet::new(nobody, to, content).bytes();
    let socket = raw(place, v4, protocol)?;
    socket.send_to(
        &packet[ETHERNET + ip_header(v4)..],
        &SocketAddr::new(to, 0).into(),
    )?;
    hears(&socket, to, patience, |message| {
        message[0] == reply && message[4..6] == id.to_be_bytes()
    })
}

/// Sends a packet of a protocol without ports that says to be from `source`; says whether it arrived.
pub(crate) fn arrives(
    protocol: u8,
    sender: &Place,
    receiver: &Place,
    [source, to]: [IpAddr; 2],
    patience: Duration,
) -> Result<bool> {
    let v4 = to.is_ipv4();
    let inbox = raw(receiver, v4, protocol.into())?;
    let outbox = raw(sender, v4, libc::IPPROTO_RAW)?;
    if !v4 {
        outbox.set_header_included_v6(true)?;
    }
    let content = Content::Other {
        protocol,
        payload: 16,
    };
    let packet = Packet::new(source, to, content).bytes();
    let packet = &packet[ETHERNET..];
    outbox.send_to(packet, &SocketAddr::new(to, 0).into())?;
    hears(&inbox, source, patience, |content| {
        content == &packet[ip_header(v4)..]
    })
}
