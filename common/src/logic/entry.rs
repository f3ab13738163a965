//! New conntrack entries.

use super::context::{Context, Scratch, Translation};
use super::service::{external_flag, own_port};
use crate::abi::{
    BACKEND_SIDE, End, FRONTEND_SIDE, Flow, HAIRPIN, NAT, OPENER_HIGH, ROLE_OPENER, Side, control,
};

/// The approval of the pod in `s.endpoint` by `s.rule`, as of now.
#[inline(always)]
pub(super) fn approval<C: Context>(ctx: C, s: &Scratch, role: u32) -> End {
    End {
        endpoint: s.endpoint.id,
        role,
        epoch: ctx.control(control::EPOCH) as u32,
        rule: s.rule,
        ifindex: ctx.ifindex(),
    }
}

/// Inserts the entry of a flow that the packet in `s` opens, under the judged tuple, approved at end `local`; and, if it was
/// translated, the entry that leads there from the packet's own tuple. False if the table takes none.
#[inline(never)]
pub(super) fn insert<C: Context>(ctx: C, s: &mut Scratch, local: Side, role: u32) -> bool {
    if ctx.dry_run() {
        return true;
    }
    let source = s.judged.source();
    fill(ctx, s, source);
    s.flow.flags |= BACKEND_SIDE | external_flag(s);
    // Where no pod is, none is judged, and the packet is counted further on.
    if s.external == 0 {
        s.flow.ends[local as usize & 1] = approval(ctx, s, role);
        s.flow.packets[source as usize & 1] = 1;
        s.flow.bytes[source as usize & 1] = u64::from(s.headers.length);
    }
    if s.translation == Translation::None {
        return ctx.insert_flow(&s.judged.key, &s.flow);
    }
    s.flow.flags |= NAT | hairpin_flag(s.translation);
    s.flow.nat_address = s.headers.destination;
    s.flow.nat_port = s.headers.destination_port;
    if s.external == 0 {
        s.flow.source_port = own_port(s);
    }
    set_backend(s);
    ctx.insert_flow(&s.judged.key, &s.flow) && insert_frontend_side(ctx, s)
}

/// Inserts the entry that leads from the client's view to the backend in `s.slot`.
#[inline(never)]
pub(super) fn insert_frontend_side<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    if ctx.dry_run() {
        return true;
    }
    let source = s.tuple.source();
    fill(ctx, s, source);
    s.flow.flags |= FRONTEND_SIDE | NAT | hairpin_flag(s.translation) | external_flag(s);
    if s.external == 0 {
        s.flow.ends[source as usize & 1] = approval(ctx, s, ROLE_OPENER);
        if own_port(s) != 0 {
            s.flow.source_port = s.source_port;
        }
    }
    s.flow.nat_address = s.slot.address;
    s.flow.nat_port = s.slot.port;
    set_backend(s);
    ctx.insert_flow(&s.tuple.key, &s.flow)
}

/// An entry without any meaning yet, opened at `source` by the packet.
#[inline(always)]
pub(super) fn fill<C: Context>(ctx: C, s: &mut Scratch, source: Side) {
    let now = ctx.now();
    s.flow = Flow::default();
    s.flow.last_seen = now;
    s.flow.created = now;
    s.flow.tcp_flags[source as usize & 1] = s.headers.tcp_flags;
    s.flow.flags = match source {
        Side::Low => 0,
        Side::High => OPENER_HIGH,
    };
}

#[inline(always)]
fn set_backend(s: &mut Scratch) {
    s.flow.backend = s.slot.backend;
    s.flow.fingerprint = s.slot.fingerprint;
    s.flow.service = s.service;
}

#[inline(always)]
const fn hairpin_flag(translation: Translation) -> u16 {
    match translation {
        Translation::ToItself => HAIRPIN,
        Translation::None | Translation::ToBackend => 0,
    }
}
