//! Addresses and ports in packets, with every checksum that covers them.

use super::checksum::{difference, difference16, replace};
use super::context::Packet;
use super::parse::{Headers, LATER_FRAGMENT};
use super::wire::{MacAddress, protocol};
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
    // SCTP's CRC32c covers the ports, but no address.
    if change_port && headers.protocol == protocol::SCTP {
        return false;
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
        protocol::ICMPV6 if headers.v6 == 1 => Some(2),
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
