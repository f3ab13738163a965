//! From bytes to addresses, ports and what kind of packet it is.

use super::context::Packet;
use super::wire::{
    ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, Extension, IPV6, Icmp,
    Ipv4, Ipv6, Ports, Tcp, Udp, protocol,
};
use crate::abi::Address;
use crate::reason::Reason;

/// Extension headers that are followed; one more makes the packet unreadable.
const MAX_EXTENSIONS: u32 = 6;
/// The end of a packet whose length is not told.
const ANYWHERE: u32 = u32::MAX;
/// No header that we read ends beyond this offset; also what the verifier must know of a variable offset.
const MAX_OFFSET: u32 = 1024;

/// Not a fragment.
pub(super) const WHOLE: u8 = 0;
/// The fragment with the transport header.
pub(super) const FIRST_FRAGMENT: u8 = 1;
/// A fragment without it.
pub(super) const LATER_FRAGMENT: u8 = 2;

/// A flow's packet.
pub(super) const FLOW: u8 = 0;
/// ICMP error about another packet.
pub(super) const ICMP_ERROR: u8 = 1;

/// A parsed packet. Ports are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port; of an ICMP echo message its identifier, and one more at the end that answers; else 0.
    pub source_port: u16,
    /// Destination port; the same; else 0.
    pub destination_port: u16,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// TCP flags, 0 for other protocols and later fragments.
    pub tcp_flags: u8,
    /// Whole, first or later fragment.
    pub(super) fragment: u8,
    /// Flow or ICMP error.
    pub(super) kind: u8,
    /// Identification of a fragmented datagram.
    pub(super) fragment_id: u32,
    /// Offset of the IP header.
    pub(super) network: u32,
    /// Offset of the transport header.
    pub(super) transport: u32,
    /// 1 for IPv6.
    pub(super) v6: u32,
    /// IPv6: how many more hops it may take.
    pub(super) hop_limit: u32,
    /// Length of the packet when it arrived.
    pub length: u32,
}

impl Headers {
    /// Nothing known of the transport header.
    #[inline(always)]
    fn forget_transport(&mut self) {
        self.kind = FLOW;
        self.tcp_flags = 0;
        self.source_port = 0;
        self.destination_port = 0;
    }

    /// Port that policy judges at the destination: protocols without ports have 0.
    #[inline(always)]
    pub(super) fn has_ports(&self) -> bool {
        matches!(
            self.protocol,
            protocol::TCP | protocol::UDP | protocol::SCTP
        )
    }
}

/// Parsed: a packet to decide about.
pub(super) const PARSED: u32 = 0;

/// Parses a packet from its Ethernet header on. Gives [`PARSED`], or the number of the reason for which the packet passes or is
/// dropped as it is.
#[inline(never)]
pub(super) fn parse<P: Packet>(packet: P, headers: &mut Headers) -> u32 {
    headers.length = packet.length();
    let first = parse_once(packet, headers);
    if first != Reason::Truncated as u32 || !packet.pull() {
        return first;
    }
    parse_once(packet, headers)
}

#[inline(never)]
fn parse_once<P: Packet>(packet: P, headers: &mut Headers) -> u32 {
    let Some(ethernet) = packet.load::<Ethernet>(0) else {
        return unreadable(headers, Reason::Truncated);
    };
    match ethernet.kind {
        ETHERTYPE_IPV4 => parse_v4(packet, headers, ETHERNET, false),
        ETHERTYPE_IPV6 => parse_v6(packet, headers, ETHERNET, false),
        // The kernel has taken one tag off. Below a second it would find IP again, which we have not read (CVE-2021-27853).
        kind if ETHERTYPE_VLAN.contains(&kind) => unreadable(headers, Reason::BadHeader),
        _ => Reason::NotIp as u32,
    }
}

/// No IP header that could be read: what the last packet left must not be taken for this one's.
#[inline(always)]
fn unreadable(headers: &mut Headers, reason: Reason) -> u32 {
    *headers = Headers {
        length: headers.length,
        ..Headers::default()
    };
    reason as u32
}

/// Parses the packet that an ICMP error quotes, of which only the first eight bytes of the transport header need be there.
#[inline(never)]
pub(super) fn parse_quoted<P: Packet>(
    packet: P,
    inner: &mut Headers,
    offset: u32,
    v6: bool,
) -> u32 {
    inner.length = 0;
    if v6 {
        parse_v6(packet, inner, offset, true)
    } else {
        parse_v4(packet, inner, offset, true)
    }
}

#[inline(always)]
fn parse_v4<P: Packet>(packet: P, headers: &mut Headers, offset: u32, quoted: bool) -> u32 {
    let Some(ip) = packet.load::<Ipv4>(offset) else {
        return unreadable(headers, Reason::Truncated);
    };
    let header_length = (u32::from(ip.version_length) & 0xf) * 4;
    let fragment = u16::from_be(ip.fragment);
    headers.fragment = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => WHOLE,
        (0, _) => FIRST_FRAGMENT,
        _ => LATER_FRAGMENT,
    };
    headers.source = Address::from_v4_word(ip.source);
    headers.destination = Address::from_v4_word(ip.destination);
    headers.fragment_id = u32::from(ip.id);
    headers.v6 = 0;
    headers.network = offset;
    headers.transport = offset + header_length;
    headers.protocol = ip.protocol;
    headers.forget_transport();
    if ip.version_length >> 4 != 4 || header_length < 20 {
        return Reason::BadHeader as u32;
    }
    let mut end = ANYWHERE;
    if !quoted {
        let total = u32::from(u16::from_be(ip.total_length));
        if total >= header_length {
            end = offset + total;
        } else if headers.length <= 0xffff {
            return Reason::Truncated as u32;
        }
        // A GSO packet beyond 64 KiB has a length of 0 (BIG TCP).
        if headers.length < offset + total {
            return Reason::Truncated as u32;
        }
    }
    // RFC 1858: a fragment at offset 1 could overwrite the TCP flags of the first.
    if fragment & 0x1fff == 1 && ip.protocol == protocol::TCP {
        return Reason::BadHeader as u32;
    }
    parse_transport(packet, headers, protocol::ICMP, end, quoted)
}

#[inline(always)]
fn parse_v6<P: Packet>(packet: P, headers: &mut Headers, offset: u32, quoted: bool) -> u32 {
    let Some(ip) = packet.load::<Ipv6>(offset) else {
        return unreadable(headers, Reason::Truncated);
    };
    headers.source = Address { words: ip.source };
    headers.destination = Address {
        words: ip.destination,
    };
    headers.fragment = WHOLE;
    headers.fragment_id = 0;
    headers.v6 = 1;
    headers.hop_limit = u32::from(ip.hop_limit);
    headers.network = offset;
    headers.protocol = ip.next;
    headers.forget_transport();
    if u32::from_be(ip.version_class_flow) >> 28 != 6 {
        return Reason::BadHeader as u32;
    }
    let mut end = ANYWHERE;
    if !quoted {
        let payload = u32::from(u16::from_be(ip.payload_length));
        // BIG TCP, as above.
        if payload != 0 || headers.length <= 0xffff {
            end = offset + IPV6 + payload;
        }
        if headers.length < offset + IPV6 + payload {
            return Reason::Truncated as u32;
        }
    }

    let mut next = ip.next;
    let mut at = offset + IPV6;
    let mut followed = 0;
    while is_extension(next) && headers.fragment != LATER_FRAGMENT {
        if followed == MAX_EXTENSIONS {
            return Reason::BadHeader as u32;
        }
        followed += 1;
        let Some(extension) = packet.load::<Extension>(at) else {
            return Reason::Truncated as u32;
        };
        at += match next {
            protocol::FRAGMENT => {
                let fragment = u16::from_be(extension.fragment);
                headers.fragment_id = extension.id;
                headers.fragment = match (fragment & 0xfff8, fragment & 1) {
                    (0, 0) => WHOLE,
                    (0, _) => FIRST_FRAGMENT,
                    _ => LATER_FRAGMENT,
                };
                8
            }
            // RFC 4302: in words of four bytes, minus two.
            protocol::AUTHENTICATION => (u32::from(extension.length) + 2) * 4,
            _ => (u32::from(extension.length) + 1) * 8,
        };
        if at > MAX_OFFSET {
            return Reason::BadHeader as u32;
        }
        next = extension.next;
    }
    headers.transport = at;
    headers.protocol = next;
    parse_transport(packet, headers, protocol::ICMPV6, end, quoted)
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// `end` is where the packet ends: what a frame has behind that is no header, and does not arrive.
#[inline(always)]
fn parse_transport<P: Packet>(
    packet: P,
    headers: &mut Headers,
    icmp: u8,
    end: u32,
    quoted: bool,
) -> u32 {
    if headers.fragment == LATER_FRAGMENT {
        return PARSED;
    }
    let at = headers.transport;
    let length = match headers.protocol {
        protocol::TCP => size_of::<Tcp>() as u32,
        protocol::UDP | protocol::SCTP => size_of::<Udp>() as u32,
        number if number == icmp => Icmp::LENGTH,
        _ => 0,
    };
    if end < at + length {
        return Reason::Truncated as u32;
    }
    let ports = if headers.protocol == protocol::TCP && !quoted {
        let Some(tcp) = packet.load::<Tcp>(at) else {
            return Reason::Truncated as u32;
        };
        headers.tcp_flags = tcp.flags;
        tcp.ports
    } else if headers.has_ports() {
        let Some(start) = packet.load::<Udp>(at) else {
            return Reason::Truncated as u32;
        };
        start.ports
    } else if headers.protocol == icmp {
        return parse_icmp(packet, headers);
    } else {
        return PARSED;
    };
    headers.source_port = u16::from_be(ports.source);
    headers.destination_port = u16::from_be(ports.destination);
    PARSED
}

/// What a message of ICMP or ICMPv6 is, by its type (RFC 792, RFC 4443, RFC 4861, RFC 9777).
#[inline(always)]
fn parse_icmp<P: Packet>(packet: P, headers: &mut Headers) -> u32 {
    let Some(icmp) = packet.load::<Icmp>(headers.transport) else {
        return Reason::Truncated as u32;
    };
    let (error, request, reply, neighbor) = if headers.v6 == 1 {
        (
            icmp.kind >= 1 && icmp.kind <= 4,
            icmp.kind == 128,
            icmp.kind == 129,
            // Only on their own link, which is what these hop limits say; with others they are packets like any.
            match icmp.kind {
                133..=137 => headers.hop_limit == 255,
                130..=132 | 143 => headers.hop_limit == 1,
                _ => false,
            },
        )
    } else {
        (
            matches!(icmp.kind, 3 | 4 | 11 | 12),
            icmp.kind == 8,
            icmp.kind == 0,
            false,
        )
    };
    if neighbor {
        return Reason::Neighbor as u32;
    }
    if error {
        headers.kind = ICMP_ERROR;
    }
    let (asking, answering) = echo_ports(u16::from_be(icmp.id));
    if request {
        headers.source_port = asking;
        headers.destination_port = answering;
    }
    if reply {
        headers.source_port = answering;
        headers.destination_port = asking;
    }
    PARSED
}

/// What an ICMP echo message with this identifier has for ports: the end that asks, then the end that answers. They differ, so that a
/// request of one end is never taken for the answer to a request of the other.
#[inline(always)]
const fn echo_ports(id: u16) -> (u16, u16) {
    (id, id.wrapping_add(1))
}

/// Ports as they go on the wire.
#[inline(always)]
pub(super) fn wire_ports(source: u16, destination: u16) -> Ports {
    Ports {
        source: source.to_be(),
        destination: destination.to_be(),
    }
}
