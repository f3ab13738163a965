//! Addresses and ports in packets, with every checksum that covers them.

use super::checksum::{difference, difference16, replace};
use super::context::Packet;
use super::crc32c::CRC32C;
use super::parse::{Headers, LATER_FRAGMENT, WHOLE};
use super::wire::{IPV6, Ipv4, Ipv6, MacAddress, protocol};
use crate::abi::Address;

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Source,
    Destination,
}

/// Sets one end of a packet. False if that could not be done; the packet must then be dropped.
#[inline(always)]
pub(super) fn rewrite<P: Packet>(
    packet: P,
    headers: &Headers,
    which: Which,
    address: &Address,
    port: u16,
) -> bool {
    let (old_address, old_port) = match which {
        Which::Source => (headers.source, headers.source_port),
        Which::Destination => (headers.destination, headers.destination_port),
    };
    let with_transport = headers.fragment != LATER_FRAGMENT;
    let change_port = with_transport && headers.has_ports() && old_port != port;
    if change_port && headers.protocol == protocol::SCTP {
        // As its checksum sees it: both ports in one little-endian word.
        let change = u32::from((old_port ^ port).swap_bytes());
        if !correct_sctp(packet, headers, change << (8 * port_offset(which))) {
            return false;
        }
    }
    if !store_address(packet, headers, which, &old_address, address) {
        return false;
    }
    if change_port && !packet.store(headers.transport + port_offset(which), port.to_be()) {
        return false;
    }
    let Some(checksum) = checksum_offset(headers) else {
        return true;
    };
    if !with_transport {
        return true;
    }
    let optional = headers.protocol == protocol::UDP;
    let v6 = headers.v6 == 1;
    let at = headers.transport + checksum;
    if !packet.fix_checksum(at, difference(&old_address, address), true, optional, v6) {
        return false;
    }
    !change_port
        || packet.fix_checksum(
            at,
            difference16(old_port.to_be(), port.to_be()),
            false,
            optional,
            v6,
        )
}

/// Corrects SCTP's checksum for changed ports; addresses it does not cover. It is over the whole message, whose length a fragment
/// does not tell: false.
#[inline(always)]
fn correct_sctp<P: Packet>(packet: P, headers: &Headers, change: u32) -> bool {
    let at = headers.transport + 8;
    let (Some(checksum), Some(end)) = (packet.load::<u32>(at), end(packet, headers)) else {
        return false;
    };
    if headers.fragment != WHOLE || end < at {
        return false;
    }
    // Not there yet: a device, or the kernel in front of one, computes it at the end.
    if checksum == 0 {
        return true;
    }
    let effect = packet.crc32c_effect(change, end - headers.transport, CRC32C);
    packet.store(at, checksum ^ effect.to_le())
}

/// Where the packet ends, as its IP header says.
#[inline(always)]
fn end<P: Packet>(packet: P, headers: &Headers) -> Option<u32> {
    let at = headers.network;
    if headers.v6 == 1 {
        let ip = packet.load::<Ipv6>(at)?;
        return Some(at + IPV6 + u32::from(u16::from_be(ip.payload_length)));
    }
    let ip = packet.load::<Ipv4>(at)?;
    Some(at + u32::from(u16::from_be(ip.total_length)))
}

/// Stores an address, and corrects the IPv4 header checksum.
#[inline(always)]
pub(super) fn store_address<P: Packet>(
    packet: P,
    headers: &Headers,
    which: Which,
    old: &Address,
    new: &Address,
) -> bool {
    let at = headers.network + address_offset(headers.v6 == 1, which);
    if headers.v6 == 1 {
        return packet.store(at, new.words);
    }
    let checksum_at = headers.network + 10;
    let Some(checksum) = packet.load::<u16>(checksum_at) else {
        return false;
    };
    packet.store(at, new.words[3])
        && packet.store(checksum_at, replace(checksum, difference(old, new)))
}

/// Offset of an address in the IP header.
#[inline(always)]
pub(super) const fn address_offset(v6: bool, which: Which) -> u32 {
    match (v6, which) {
        (false, Which::Source) => 12,
        (false, Which::Destination) => 16,
        (true, Which::Source) => 8,
        (true, Which::Destination) => 24,
    }
}

/// Offset of a port in the transport header.
#[inline(always)]
pub(super) const fn port_offset(which: Which) -> u32 {
    match which {
        Which::Source => 0,
        Which::Destination => 2,
    }
}

/// Offset, in the transport header, of the checksum that covers the pseudo header, if there is one.
#[inline(always)]
const fn checksum_offset(headers: &Headers) -> Option<u32> {
    match headers.protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Swaps the Ethernet addresses, for a packet that goes back where it came from.
#[inline(always)]
pub(super) fn swap_ethernet<P: Packet>(packet: P) -> bool {
    let (Some(destination), Some(source)) =
        (packet.load::<MacAddress>(0), packet.load::<MacAddress>(6))
    else {
        return false;
    };
    packet.store(0, source) && packet.store(6, destination)
}
