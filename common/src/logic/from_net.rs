//! Packets that come to the node from outside: to Services, and answers of backends on other nodes.

use super::conntrack::{is_live, is_over, is_syn};
use super::context::{Context, Scratch, Translation, Tuple};
use super::entry::{insert, insert_frontend_side};
use super::fragment::remember;
use super::icmp;
use super::outcome::{Outcome, account, sample};
use super::parse::FLOW;
use super::receive::{receive_from_network, unjudged};
use super::reject::refuse;
use super::rewrite::{Which, rewrite};
use super::service::{NOT_A_SERVICE, TRANSLATED, find, is_ours, is_served, translate};
use crate::abi::{
    BACKEND_SIDE, EXTERNAL, FRONTEND_SIDE, FlowRef, Hook, NETFILTER, SOURCE_SIDE, Side,
};
use crate::reason::Reason;

const HOOK: Hook = Hook::FromNet;

/// Decides about a packet at the ingress of an uplink or tunnel device.
#[inline(always)]
pub fn from_net<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let length = ctx.length();
    let outcome = decide(ctx, s);
    account(ctx, s, HOOK, outcome, length)
}

#[inline(always)]
fn decide<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let received = receive_from_network(ctx, s, HOOK);
    if received != Outcome::UNDECIDED {
        return match received {
            lost if lost == Outcome::drop(Reason::UnknownFragment) => lost_fragment(ctx, s),
            other => other,
        };
    }
    s.external = 1;
    if s.headers.kind != FLOW {
        return match icmp::decide(ctx, s, HOOK) {
            Outcome::UNDECIDED => Outcome::pass(Reason::NotService),
            decided => decided,
        };
    }
    if let Some(flow) = ctx.flow(&s.tuple.key) {
        let outcome = known(ctx, s, flow);
        if outcome != Outcome::UNDECIDED {
            return outcome;
        }
    }
    open(ctx, s)
}

/// A fragment whose first one was not translated here: if that was lost, nobody knows which backend has the rest.
#[inline(never)]
fn lost_fragment<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    if find(&ctx, &s.headers.destination, 0, 0).is_some() {
        unjudged(s, Reason::UnknownFragment)
    } else {
        Outcome::pass(Reason::NotService)
    }
}

/// A packet at whose tuple the table has an entry. `UNDECIDED`: what it is for is to be found out.
#[inline(always)]
fn known<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    let flags = flow.flags();
    if flags & (FRONTEND_SIDE | EXTERNAL) == FRONTEND_SIDE | EXTERNAL {
        return established(ctx, s, flow);
    }
    if !is_live(ctx, flow, s.headers.protocol, ctx.now()) {
        return Outcome::UNDECIDED;
    }
    if flags & NETFILTER != 0 {
        return left_to_netfilter(ctx, s, flow);
    }
    let opens = flow.opener() == s.tuple.source();
    if flags & SOURCE_SIDE != 0 && !opens {
        return answered(ctx, s, flow);
    }
    if flags & (BACKEND_SIDE | EXTERNAL) == BACKEND_SIDE | EXTERNAL && opens {
        return direct(ctx, s, flow);
    }
    Outcome::pass(Reason::NotService)
}

/// A later packet from a client to a Service in a connection that netfilter translates. A SYN asks for a new one.
#[inline(always)]
fn left_to_netfilter<C: Context>(ctx: C, s: &Scratch, front: FlowRef) -> Outcome {
    if is_syn(&s.headers) {
        return Outcome::UNDECIDED;
    }
    touch(ctx, front, s, s.tuple.source(), ctx.now());
    Outcome::pass(Reason::NotService)
}

/// A later packet from a client to a Service.
#[inline(never)]
fn established<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef) -> Outcome {
    match follow(ctx, s, front) {
        Some(_) => deliver(ctx, s, Reason::Established),
        None => Outcome::UNDECIDED,
    }
}

/// The backend-side entry of the flow that the packet belongs to by its frontend-side entry, if it may go on; `s.judged` is its
/// tuple. Notes the packet in both.
#[inline(always)]
pub(super) fn follow<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef) -> Option<FlowRef> {
    let (address, port) = front.nat();
    let (backend, fingerprint) = front.backend();
    let h = &s.headers;
    if !is_served(ctx, backend, fingerprint, h) {
        return None;
    }
    s.judged = Tuple::new(&h.source, h.source_port, &address, port, h.protocol);
    let flow = ctx.flow(&s.judged.key)?;
    let now = ctx.now();
    if !is_ours(flow, s) || !is_live(ctx, flow, h.protocol, now) || (is_syn(h) && is_over(flow)) {
        return None;
    }
    touch(ctx, flow, s, s.judged.source(), now);
    touch(ctx, front, s, s.tuple.source(), now);
    Some(flow)
}

/// An answer to a port of the node that stands for a client.
#[inline(never)]
fn answered<C: Context>(ctx: C, s: &mut Scratch, port: FlowRef) -> Outcome {
    s.judged = s.tuple;
    touch(ctx, port, s, s.tuple.source(), ctx.now());
    remember(ctx, s);
    let (address, client_port) = port.nat();
    if rewrite(ctx, &s.headers, Which::Destination, &address, client_port) {
        Outcome::pass(Reason::Reply)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}

/// A client goes past the Service to a backend that it talks to through the Service, from the same port. The answers would go to
/// that connection, unless it is over.
#[inline(never)]
fn direct<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    if !(is_syn(&s.headers) && is_over(flow)) {
        s.judged = s.tuple;
        return Outcome::drop(Reason::TupleClash);
    }
    if !ctx.dry_run() {
        ctx.delete_flow(&s.tuple.key);
    }
    Outcome::pass(Reason::NotService)
}

/// First packet of a flow, or one whose backend is gone.
#[inline(never)]
fn open<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.judged = s.tuple;
    match translate(ctx, s) {
        NOT_A_SERVICE => Outcome::pass(Reason::NotService),
        TRANSLATED => begin(ctx, s),
        reason => refuse(ctx, s, reason),
    }
}

/// Sends the first packet of a flow to the backend in `s.judged`.
#[inline(never)]
fn begin<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.translation = Translation::ToBackend;
    if !enter(ctx, s) {
        return Outcome::drop(Reason::FlowTableFull);
    }
    let outcome = deliver(ctx, s, Reason::Translated);
    sample(ctx, s, outcome);
    outcome
}

/// Puts the flow into the table. One to the same backend through the same frontend that lives goes on, with what it has been
/// allowed and given: only its frontend-side entry was lost.
#[inline(never)]
pub(super) fn enter<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    let source = s.judged.source();
    if let Some(flow) = ctx.flow(&s.judged.key) {
        let now = ctx.now();
        let fresh = is_syn(&s.headers) && is_over(flow);
        if is_ours(flow, s) && !fresh && is_live(ctx, flow, s.headers.protocol, now) {
            touch(ctx, flow, s, source, now);
            return insert_frontend_side(ctx, s);
        }
    }
    insert(ctx, s, source, 0)
}

/// Sends the packet to the backend in `s.judged`.
#[inline(always)]
fn deliver<C: Context>(ctx: C, s: &mut Scratch, reason: Reason) -> Outcome {
    remember(ctx, s);
    let backend = s.judged.source().other() as usize & 1;
    let (address, port) = (s.judged.key.addresses[backend], s.judged.key.ports[backend]);
    if rewrite(ctx, &s.headers, Which::Destination, &address, port) {
        Outcome::pass(reason)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}

/// Notes a packet from `side`. It is counted where it leaves the node's own network, see `conntrack::note`.
#[inline(always)]
pub(super) fn touch<C: Context>(ctx: C, flow: FlowRef, s: &Scratch, side: Side, now: u32) {
    if ctx.dry_run() {
        return;
    }
    flow.touch(now);
    if s.headers.tcp_flags != 0 {
        flow.see_tcp_flags(side, s.headers.tcp_flags);
    }
}
