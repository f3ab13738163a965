//! Clients outside, to a backend on another node, in the node's name: the answers must come back by this node.

use super::conntrack::{is_live, is_over, is_syn};
use super::context::{Context, Scratch, Tuple};
use super::entry::fill;
use super::fragment::remember;
use super::outcome::Outcome;
use super::rewrite::{Which, rewrite};
use super::service::pick;
use crate::abi::{Address, Device, FlowRef, NAT, OPENER_HIGH, SOURCE_SIDE, Side};
use crate::reason::Reason;

/// Ports tried before giving up. A range that is full to nine tenths has a free one among these 11 times in 12.
const TRIES: u32 = 24;
/// Beside the number of a port: the flow did not have it before.
const TAKEN_NOW: u32 = 1 << 16;

/// Sends a client's packet on with the source that its flow has on this device, or gets now. `flow` is the backend-side entry.
#[inline(never)]
pub(super) fn masquerade<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    let Some(device) = ctx.device(ctx.ifindex()) else {
        return Outcome::drop(Reason::NoSourcePort);
    };
    s.device = device;
    s.judged = s.tuple;
    let address = device.address(s.headers.v6 == 1);
    match source_port(ctx, s, flow) {
        0 => Outcome::drop(Reason::NoSourcePort),
        port if port & TAKEN_NOW != 0 => send(ctx, s, &address, port as u16, Reason::Translated),
        port => send(ctx, s, &address, port as u16, Reason::Established),
    }
}

/// The port that the flow has on the device in `s.device`, or gets now; 0 if there is none for it. The packet's destination in
/// `s.headers` is the backend.
#[inline(always)]
pub(super) fn source_port<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> u32 {
    let address = s.device.address(s.headers.v6 == 1);
    let (known, port) = flow.source();
    let known = port != 0 && known == address;
    let port = if known { port } else { 0 };
    if known && is_held(ctx, s, &address, port) {
        return u32::from(port);
    }
    if address.is_unspecified() {
        return 0;
    }
    let port = find_port(ctx, s, port);
    if port == 0 {
        return 0;
    }
    if !ctx.dry_run() {
        flow.set_source(address, port as u16);
    }
    port | TAKEN_NOW
}

#[inline(always)]
fn send<C: Context>(
    ctx: C,
    s: &mut Scratch,
    address: &Address,
    port: u16,
    reason: Reason,
) -> Outcome {
    remember(ctx, s);
    if rewrite(ctx, &s.headers, Which::Source, address, port) {
        Outcome::pass(reason)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}

/// Whether the port still leads back to the client; notes the packet there.
#[inline(always)]
fn is_held<C: Context>(ctx: C, s: &Scratch, address: &Address, port: u16) -> bool {
    let h = &s.headers;
    let tuple = Tuple::new(
        address,
        port,
        &h.destination,
        h.destination_port,
        h.protocol,
    );
    let Some(held) = ctx.flow(&tuple.key) else {
        return false;
    };
    if held.flags() & SOURCE_SIDE == 0
        || held.nat() != (h.source, h.source_port)
        || (is_syn(h) && is_over(held))
    {
        return false;
    }
    if !ctx.dry_run() {
        held.touch(ctx.now());
        if h.tcp_flags != 0 {
            held.see_tcp_flags(tuple.source(), h.tcp_flags);
        }
    }
    true
}

/// A port of the device in `s.device` that from now on leads back to the client: `wanted` (0: none), the client's own, or one of
/// the range for that. 0 if none is free.
#[inline(never)]
fn find_port<C: Context>(ctx: C, s: &mut Scratch, wanted: u16) -> u32 {
    fill(ctx, s, Side::Low);
    s.flow.nat_address = s.headers.source;
    s.flow.nat_port = s.headers.source_port;
    let own = s.headers.source_port;
    let first = if wanted != 0 {
        wanted
    } else if may_keep(&s.device, own) {
        own
    } else {
        0
    };
    if first != 0 && hold(ctx, s, u32::from(first)) {
        return u32::from(first);
    }
    let [low, high] = s.device.ports;
    if low == 0 || high < low {
        return 0;
    }
    let count = u32::from(high - low) + 1;
    let start = pick(ctx.random(), count);
    let mut tries = 0;
    while tries < TRIES {
        let port = u32::from(low) + (start + tries) % count;
        if hold(ctx, s, port) {
            return port;
        }
        tries += 1;
    }
    0
}

/// The node's own sockets may have ports of the kernel's range, to the same backend.
#[inline(always)]
const fn may_keep(device: &Device, port: u16) -> bool {
    let [low, high] = device.local_ports;
    port != 0 && (port < low || port > high)
}

/// Takes a port towards the packet's destination for the entry in `s.flow`, if it is free. The entry is the lock: of two
/// processors one inserts it.
#[inline(never)]
fn hold<C: Context>(ctx: C, s: &mut Scratch, port: u32) -> bool {
    let address = s.device.address(s.headers.v6 == 1);
    let h = &s.headers;
    s.judged = Tuple::new(
        &address,
        port as u16,
        &h.destination,
        h.destination_port,
        h.protocol,
    );
    (s.flow.flags, s.flow.tcp_flags) = match s.judged.source() {
        Side::Low => (SOURCE_SIDE | NAT, [h.tcp_flags, 0]),
        Side::High => (SOURCE_SIDE | NAT | OPENER_HIGH, [0, h.tcp_flags]),
    };
    let key = &s.judged.key;
    match ctx.flow(key) {
        None => ctx.dry_run() || ctx.insert_new_flow(key, &s.flow),
        Some(held) if is_free(ctx, s, held) => ctx.dry_run() || replace(ctx, s),
        Some(_) => false,
    }
}

/// Whether whom an entry holds the port for needs it no more.
#[inline(always)]
fn is_free<C: Context>(ctx: C, s: &Scratch, held: FlowRef) -> bool {
    let same =
        held.flags() & SOURCE_SIDE != 0 && held.nat() == (s.headers.source, s.headers.source_port);
    same || !is_live(ctx, held, s.headers.protocol, ctx.now())
        || (is_syn(&s.headers) && is_over(held))
}

/// Replaces a dead entry; false if another processor does so.
#[inline(never)]
fn replace<C: Context>(ctx: C, s: &Scratch) -> bool {
    let key = &s.judged.key;
    let claim = key.claim();
    if !ctx.insert_new_flow(&claim, &s.flow) {
        return false;
    }
    // Now that nobody else does: it may have been replaced since it was looked at.
    let free = ctx.flow(key).is_none_or(|held| is_free(ctx, s, held));
    let done = free && ctx.insert_flow(key, &s.flow);
    ctx.delete_flow(&claim);
    done
}
