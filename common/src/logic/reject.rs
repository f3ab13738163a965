//! "Nobody here": a TCP reset or an ICMP port unreachable, made of the packet that asked.

use core::hint::black_box;

use super::checksum::{add, fold, pseudo_header};
use super::context::{Context, Errors, Scratch};
use super::outcome::Outcome;
use super::parse::{Headers, LATER_FRAGMENT, wire_ports};
use super::rewrite::swap_ethernet;
use super::wire::{ETHERNET, IPV4, IPV6, Icmp, Ipv4, Ipv6, Tcp, protocol, tcp};
use crate::reason::Reason;

/// Bytes of transport header that an ICMP error quotes.
const QUOTED_TRANSPORT: u32 = 8;
/// Words of a quoted packet that are summed: IPv4 header with options, or IPv6 header with the longest chain of extensions that
/// still gets an answer, and the quoted transport header.
const MAX_QUOTED_WORDS: u32 = 32;
const HOP_LIMIT: u8 = 64;
/// ICMP errors that a processor makes at a hook within a second: what Linux sends by default (`icmp_msgs_per_sec`), so that nobody is answered with
/// a flood for a forged source. A reset is no more than what it answers, and is not limited there either.
const ERRORS_PER_SECOND: u32 = 1000;

/// What becomes of a packet to a Service that leads nowhere, by the number of the reason: whoever asks for what is not there is
/// told so, whoever may not have it is not.
#[inline(always)]
pub(super) fn refuse<C: Context>(ctx: C, s: &mut Scratch, reason: u32) -> Outcome {
    match reason {
        reason if reason == Reason::NoLocalEndpoint as u32 => {
            Outcome::drop(Reason::NoLocalEndpoint)
        }
        reason if reason == Reason::SourceRange as u32 => Outcome::drop(Reason::SourceRange),
        reason if reason == Reason::NoService as u32 => Outcome::drop(Reason::NoService),
        reason if reason == Reason::NoEndpoint as u32 => reject(ctx, s, Reason::NoEndpoint),
        reason if reason == Reason::NoServicePort as u32 => reject(ctx, s, Reason::NoServicePort),
        reason if reason == Reason::TupleClash as u32 => Outcome::drop(Reason::TupleClash),
        reason if reason == Reason::BackendGone as u32 => reject(ctx, s, Reason::BackendGone),
        reason if reason == Reason::TakingOver as u32 => Outcome::drop(Reason::TakingOver),
        _ => Outcome::drop(Reason::Internal),
    }
}

/// Answers the packet in the name of its destination and turns it around; a packet that must not be answered is dropped
/// (RFC 1122 section 3.2.2: no errors about errors, later fragments, multicast).
#[inline(never)]
fn reject<C: Context>(ctx: C, s: &mut Scratch, reason: Reason) -> Outcome {
    let h = &s.headers;
    let answered = if h.fragment == LATER_FRAGMENT || h.destination.is_multicast() {
        false
    } else {
        match h.protocol {
            protocol::TCP if h.tcp_flags & tcp::RST != 0 => false,
            protocol::TCP => reset(ctx, h),
            // Ping is no connection: a Service answers none (as with kube-proxy). Nor are errors answered.
            protocol::ICMP | protocol::ICMPV6 => false,
            _ => may_complain(ctx, &mut s.errors) && unreachable(ctx, &s.headers),
        }
    };
    if answered {
        Outcome::turn_back(reason)
    } else {
        Outcome::drop(reason)
    }
}

/// Whether another ICMP error may be made (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
#[inline(always)]
fn may_complain<C: Context>(ctx: C, errors: &mut Errors) -> bool {
    let now = ctx.now();
    if now.wrapping_sub(errors.since) >= ctx.ticks_per_second() {
        errors.since = now;
        errors.made = 0;
    }
    if errors.made >= ERRORS_PER_SECOND {
        return false;
    }
    if !ctx.dry_run() {
        errors.made += 1;
    }
    true
}

/// RFC 9293 section 3.10.7.1: what a closed port answers.
#[inline(always)]
fn reset<C: Context>(ctx: C, h: &Headers) -> bool {
    let Some(asked) = ctx.load::<Tcp>(h.transport) else {
        return false;
    };
    let header = if h.v6 == 1 { IPV6 } else { IPV4 };
    let sent = h
        .length
        .wrapping_sub(h.transport + (u32::from(asked.offset) >> 4) * 4);
    let opens_or_ends =
        u32::from(h.tcp_flags & tcp::SYN != 0) + u32::from(h.tcp_flags & tcp::FIN != 0);
    let (sequence, acknowledgement, flags) = if h.tcp_flags & tcp::ACK != 0 {
        (asked.acknowledgement, 0, tcp::RST)
    } else {
        let next = u32::from_be(asked.sequence)
            .wrapping_add(sent)
            .wrapping_add(opens_or_ends);
        (0, next.to_be(), tcp::RST | tcp::ACK)
    };
    let length = size_of::<Tcp>() as u32;
    if !ctx.trim(ETHERNET + header + length) {
        return false;
    }
    let mut answer = Tcp {
        ports: wire_ports(h.destination_port, h.source_port),
        sequence,
        acknowledgement,
        offset: 5 << 4,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    let mut sum = pseudo_header(h, protocol::TCP, length);
    sum = add(sum, word(answer.ports.source, answer.ports.destination));
    sum = add(sum, sequence);
    sum = add(sum, acknowledgement);
    sum = add(
        sum,
        u32::from(u16::from_ne_bytes([answer.offset, answer.flags])),
    );
    answer.checksum = fold(sum);
    swap_ethernet(ctx)
        && store_ip_header(ctx, h, protocol::TCP, length)
        && ctx.store(ETHERNET + header, answer)
}

/// ICMP type 3 code 3 (RFC 792), ICMPv6 type 1 code 4 (RFC 4443).
#[inline(always)]
fn unreachable<C: Context>(ctx: C, h: &Headers) -> bool {
    let v6 = h.v6 == 1;
    let quoted = h.transport + QUOTED_TRANSPORT - ETHERNET;
    if quoted > MAX_QUOTED_WORDS * 4 || !ctx.trim(ETHERNET + quoted) {
        return false;
    }
    let (header, protocol_number, kind, code) = if v6 {
        (IPV6, protocol::ICMPV6, 1, 4)
    } else {
        (IPV4, protocol::ICMP, 3, 3)
    };
    let length = Icmp::LENGTH + quoted;
    let mut answer = Icmp {
        kind,
        code,
        checksum: 0,
        id: 0,
        sequence: 0,
    };
    // ICMP for IPv4 has no pseudo header.
    let mut sum = if v6 {
        pseudo_header(h, protocol::ICMPV6, length)
    } else {
        0
    };
    sum = add(sum, u32::from(u16::from_ne_bytes([kind, code])));
    let Some(sum) = sum_words(ctx, ETHERNET, quoted / 4, sum) else {
        return false;
    };
    answer.checksum = fold(sum);
    ctx.insert_after_ethernet(header + Icmp::LENGTH)
        && swap_ethernet(ctx)
        && store_ip_header(ctx, h, protocol_number, length)
        && ctx.store(ETHERNET + header, answer)
}

#[inline(always)]
fn sum_words<C: Context>(ctx: C, offset: u32, words: u32, mut sum: u32) -> Option<u32> {
    for i in 0..MAX_QUOTED_WORDS {
        // Two bounds made one would be a bound that the verifier cannot see.
        if i == black_box(words) {
            return Some(sum);
        }
        sum = add(sum, ctx.load::<u32>(offset + i * 4)?);
    }
    Some(sum)
}

/// Two half-words as one word of a sum.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Writes the IP header of an answer: from the packet's destination to its source, `length` bytes behind it.
#[inline(always)]
fn store_ip_header<C: Context>(ctx: C, h: &Headers, protocol_number: u8, length: u32) -> bool {
    if h.v6 == 1 {
        return ctx.store(
            ETHERNET,
            Ipv6 {
                version_class_flow: (6u32 << 28).to_be(),
                payload_length: (length as u16).to_be(),
                next: protocol_number,
                hop_limit: HOP_LIMIT,
                source: h.destination.words,
                destination: h.source.words,
            },
        );
    }
    let mut ip = Ipv4 {
        version_length: 0x45,
        service: 0,
        total_length: ((IPV4 + length) as u16).to_be(),
        id: 0,
        // Do not fragment.
        fragment: 0x4000u16.to_be(),
        ttl: HOP_LIMIT,
        protocol: protocol_number,
        checksum: 0,
        source: h.destination.words[3],
        destination: h.source.words[3],
    };
    let mut sum = add(ip.source, ip.destination);
    sum = add(
        sum,
        word(u16::from_ne_bytes([ip.version_length, 0]), ip.total_length),
    );
    sum = add(sum, word(0, ip.fragment));
    sum = add(sum, u32::from(u16::from_ne_bytes([ip.ttl, ip.protocol])));
    ip.checksum = fold(sum);
    ctx.store(ETHERNET, ip)
}
