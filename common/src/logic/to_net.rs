//! Packets that leave the node: clients' on their way to backends on other nodes, and what Services answer to clients outside.

use super::conntrack::{is_live, note};
use super::context::{Context, Scratch};
use super::entry::fill;
use super::fragment::remember;
use super::icmp;
use super::masquerade::masquerade;
use super::outcome::{Outcome, account};
use super::parse::{FLOW, WHOLE};
use super::receive::receive_from_network;
use super::rewrite::{Which, rewrite};
use super::wire::protocol;
use crate::abi::{
    BACKEND_SIDE, EXTERNAL, FAST, FRONTEND_SIDE, FlowRef, FrontendKey, Hook, NODE_PORT,
};
use crate::reason::Reason;

const HOOK: Hook = Hook::ToNet;

/// Decides about a packet at the egress of an uplink or tunnel device.
#[inline(always)]
pub fn to_net<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let length = ctx.length();
    let outcome = decide(ctx, s);
    account(ctx, s, HOOK, outcome, length)
}

#[inline(always)]
fn decide<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let received = receive_from_network(ctx, s, HOOK);
    if received != Outcome::UNDECIDED {
        return match received {
            // Of a datagram that was not translated, as far as is known.
            lost if lost == Outcome::drop(Reason::UnknownFragment) => {
                Outcome::pass(Reason::NotService)
            }
            other => other,
        };
    }
    if s.headers.kind != FLOW {
        return match icmp::decide(ctx, s, HOOK) {
            Outcome::UNDECIDED => Outcome::pass(Reason::NotService),
            decided => decided,
        };
    }
    let now = ctx.now();
    let Some(flow) = ctx.flow(&s.tuple.key) else {
        return other(ctx, s);
    };
    if flow.flags() & (BACKEND_SIDE | EXTERNAL) != BACKEND_SIDE | EXTERNAL
        || !is_live(ctx, flow, s.headers.protocol, now)
    {
        return other(ctx, s);
    }
    if flow.flags() & FAST != 0 && !ctx.dry_run() {
        // From here on the stack has seen part of it, and must see the rest.
        flow.set_fast(false);
    }
    note(ctx, flow, HOOK, &s.headers, s.tuple.source(), now);
    if flow.opener() == s.tuple.source() {
        masquerade(ctx, s, flow)
    } else {
        answer(ctx, s, flow)
    }
}

/// The client believes to talk to the frontend.
#[inline(never)]
fn answer<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    s.judged = s.tuple;
    remember(ctx, s);
    let (address, port) = flow.nat();
    if rewrite(ctx, &s.headers, Which::Source, &address, port) {
        Outcome::pass(Reason::Reply)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}

/// Not a Service's. But a datagram from a port of the node that is a node port, too, was sent by a socket of the node, or by
/// somebody for whom the kernel chose that port: the answer is theirs (k/k#33723). TCP's answers tell by their flags.
#[inline(never)]
fn other<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let h = &s.headers;
    let key = FrontendKey {
        address: h.source,
        port: h.source_port,
        protocol: h.protocol,
        reserved: 0,
    };
    if h.protocol == protocol::UDP
        && h.fragment == WHOLE
        && !ctx.dry_run()
        && let Some(frontend) = ctx.frontend(&key)
        && frontend.flags & NODE_PORT != 0
        && !is_client(ctx, s)
    {
        let source = s.tuple.source();
        fill(ctx, s, source);
        // Without it the answer goes to the Service, as it would have before.
        let _ = ctx.insert_flow(&s.tuple.key, &s.flow);
    }
    Outcome::pass(Reason::NotService)
}

/// Whether the destination talks to that node port itself, from the same port.
#[inline(always)]
fn is_client<C: Context>(ctx: C, s: &Scratch) -> bool {
    ctx.flow(&s.tuple.key).is_some_and(|flow| {
        flow.flags() & FRONTEND_SIDE != 0 && is_live(ctx, flow, s.headers.protocol, ctx.now())
    })
}
