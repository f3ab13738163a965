//! ICMP errors about flows: let through on the flow's approval, translated with it.

use super::checksum::{add, difference, difference16};
use super::conntrack::{holds, is_live};
use super::context::{Context, Scratch, Tuple};
use super::netfilter::behind;
use super::outcome::Outcome;
use super::parse::{Headers, LATER_FRAGMENT, PARSED, parse_quoted};
use super::receive::unjudged;
use super::rewrite::{Which, port_offset, rewrite, store_address};
use super::wire::Icmp;
use crate::abi::{
    Address, BACKEND_SIDE, EXTERNAL, FRONTEND_SIDE, HAIRPIN, Hook, NAT, NETFILTER, SOURCE_SIDE,
};
use crate::reason::Reason;

/// No flow is known that the error is about: judge it like any other packet.
const UNRELATED: u32 = 0;
/// The error may pass; it is translated.
const RELATED: u32 = 1;
/// It may pass, but could not be translated.
const FAILED: u32 = 2;

/// Decides about an ICMP error by the flow that it is about; `UNDECIDED` if there is none.
#[inline(always)]
pub(super) fn decide<C: Context>(ctx: C, s: &mut Scratch, hook: Hook) -> Outcome {
    match relate(ctx, s, hook) {
        UNRELATED => Outcome::UNDECIDED,
        RELATED => Outcome::pass(Reason::Related),
        _ => unjudged(s, Reason::RewriteFailed),
    }
}

/// Handles an ICMP error: quoted packet's source is the end that the error goes to.
#[inline(never)]
fn relate<C: Context>(ctx: C, s: &mut Scratch, hook: Hook) -> u32 {
    let quoted_at = s.headers.transport + Icmp::LENGTH;
    let v6 = s.headers.v6 == 1;
    if parse_quoted(ctx, &mut s.inner, quoted_at, v6) != PARSED
        || s.inner.fragment == LATER_FRAGMENT
    {
        return UNRELATED;
    }
    let inner = &s.inner;
    // RFC 1122 section 3.2.2: an error goes to the source of what it quotes. Nobody may send elsewhere on a flow's approval.
    if s.headers.destination != inner.source {
        return UNRELATED;
    }
    s.judged = Tuple::new(
        &inner.source,
        inner.source_port,
        &inner.destination,
        inner.destination_port,
        inner.protocol,
    );
    s.source_port = 0;
    match hook {
        Hook::FromPod => relate_from_pod(ctx, s),
        Hook::ToPod => relate_to_pod(ctx, s),
        Hook::FromNet => relate_from_net(ctx, s),
        Hook::ToNet => relate_to_net(ctx, s),
    }
}

/// A pod complains about a packet that it received: the quoted source is its peer.
#[inline(always)]
fn relate_from_pod<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let Some(mut flow) = ctx.flow(&s.judged.key) else {
        return UNRELATED;
    };
    let mut translated = false;
    let mut pod = s.judged.source().other();
    if flow.flags() & NETFILTER != 0 {
        // netfilter translates errors, too.
        match behind(ctx, s, flow) {
            Some(behind) => flow = behind,
            None => return UNRELATED,
        }
        pod = s.judged.source().other();
    } else if flow.flags() & (FRONTEND_SIDE | HAIRPIN) == FRONTEND_SIDE {
        // The pod saw its Service where the network has the backend, and maybe its own port where that has another.
        let (address, port) = flow.nat();
        s.source_port = flow.source_port();
        let inner = &s.inner;
        let client_port = if s.source_port == 0 {
            inner.destination_port
        } else {
            s.source_port
        };
        s.judged = Tuple::new(
            &address,
            port,
            &inner.destination,
            client_port,
            inner.protocol,
        );
        match ctx.flow(&s.judged.key) {
            Some(behind) => flow = behind,
            None => return UNRELATED,
        }
        pod = s.judged.source().other();
        (s.slot.address, s.slot.port) = (address, port);
        translated = true;
    }
    if flow.flags() & BACKEND_SIDE == 0 || !may_pass(ctx, flow, s, pod) {
        return UNRELATED;
    }
    if translated {
        return translate(ctx, s, Which::Source, Which::Destination);
    }
    RELATED
}

/// Somebody complains about a packet that the pod sent: the quoted source is the pod.
#[inline(always)]
fn relate_to_pod<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let Some(mut flow) = ctx.flow(&s.judged.key) else {
        return UNRELATED;
    };
    if flow.flags() & NETFILTER != 0 {
        match behind(ctx, s, flow) {
            Some(behind) => flow = behind,
            None => return UNRELATED,
        }
    }
    let pod = s.judged.source();
    if flow.flags() & BACKEND_SIDE == 0 || !may_pass(ctx, flow, s, pod) {
        return UNRELATED;
    }
    if flow.flags() & NAT == 0 || flow.opener() != pod {
        return RELATED;
    }
    (s.slot.address, s.slot.port) = flow.nat();
    s.source_port = flow.source_port();
    translate(ctx, s, Which::Destination, Which::Source)
}

/// Somebody outside complains about a packet that left by an uplink: a Service's answer, or a client's in the node's name.
#[inline(always)]
fn relate_from_net<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let Some(flow) = ctx.flow(&s.judged.key) else {
        return UNRELATED;
    };
    let flags = flow.flags();
    let opener_sent = flow.opener() == s.judged.source();
    let answered = flags & (FRONTEND_SIDE | EXTERNAL) == FRONTEND_SIDE | EXTERNAL && !opener_sent;
    let sent_on = flags & SOURCE_SIDE != 0 && opener_sent;
    if !(answered || sent_on) || !is_live(ctx, flow, s.inner.protocol, ctx.now()) {
        return UNRELATED;
    }
    (s.slot.address, s.slot.port) = flow.nat();
    translate(ctx, s, Which::Source, Which::Destination)
}

/// An error leaves by an uplink, from a backend, or from this node or a router about a packet as it was on this node.
#[inline(always)]
fn relate_to_net<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let Some(flow) = ctx.flow(&s.judged.key) else {
        return UNRELATED;
    };
    if flow.flags() & (BACKEND_SIDE | EXTERNAL) != BACKEND_SIDE | EXTERNAL
        || !is_live(ctx, flow, s.inner.protocol, ctx.now())
    {
        return UNRELATED;
    }
    // To the client about the Service, or to the backend about the node that speaks for the client.
    (s.slot.address, s.slot.port) = if flow.opener() == s.judged.source() {
        flow.nat()
    } else {
        flow.source()
    };
    if s.slot.port == 0 {
        return UNRELATED;
    }
    translate(ctx, s, Which::Destination, Which::Source)
}

#[inline(always)]
fn may_pass<C: Context>(
    ctx: C,
    flow: crate::abi::FlowRef,
    s: &Scratch,
    pod: crate::abi::Side,
) -> bool {
    holds(ctx, &flow.end(pod)) && is_live(ctx, flow, s.inner.protocol, ctx.now())
}

/// Makes the peer in the quoted packet, and in the error itself where it stands there too, the one in `s.slot`; and gives the client
/// its port back where it had another.
#[inline(never)]
fn translate<C: Context>(ctx: C, s: &Scratch, in_quoted: Which, in_error: Which) -> u32 {
    let (address, port) = (&s.slot.address, s.slot.port);
    let inner = &s.inner;
    let (old_address, old_port) = end_of(inner, in_quoted);
    let v6 = inner.v6 == 1;
    if !store_address(ctx, inner, in_quoted, &old_address, address) {
        return FAILED;
    }
    // The IPv4 header's own checksum makes up for its address; IPv6 has none.
    let mut changed = if v6 {
        difference(&old_address, address)
    } else {
        0
    };
    if port != old_port {
        if !ctx.store(inner.transport + port_offset(in_quoted), port.to_be()) {
            return FAILED;
        }
        changed = add(changed, difference16(old_port.to_be(), port.to_be()));
    }
    if s.source_port != 0 {
        // The client is the other end.
        let (_, old_port) = end_of(inner, in_error);
        let port = s.source_port;
        if !ctx.store(inner.transport + port_offset(in_error), port.to_be()) {
            return FAILED;
        }
        changed = add(changed, difference16(old_port.to_be(), port.to_be()));
    }
    if changed != 0 && !ctx.fix_checksum(s.headers.transport + 2, changed, false, false, v6) {
        return FAILED;
    }
    let (outer_address, _) = end_of(&s.headers, in_error);
    let ours = outer_address == old_address;
    if ours && !rewrite(ctx, &s.headers, in_error, address, 0) {
        return FAILED;
    }
    RELATED
}

#[inline(always)]
fn end_of(headers: &Headers, which: Which) -> (Address, u16) {
    match which {
        Which::Source => (headers.source, headers.source_port),
        Which::Destination => (headers.destination, headers.destination_port),
    }
}
