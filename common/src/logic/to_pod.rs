//! Packets that enter a pod: ingress judged, translations undone.

use super::conntrack::{is_approved, note};
use super::context::{Context, Direction, Scratch, Translation};
use super::entry::insert;
use super::icmp;
use super::known::{Renewal, known, meet, passing, renew};
use super::netfilter::{behind, is_early};
use super::outcome::{Outcome, account, sample};
use super::parse::FLOW;
use super::policy::{bound, find_endpoint, judge};
use super::receive::{receive, unjudged};
use super::rewrite::{Which, rewrite};
use crate::abi::{
    BACKEND_SIDE, FlowRef, HAIRPIN, Hook, NAT, NETFILTER, ROLE_RESPONDER, RULE_NODE, RULE_NONE,
    RULE_NOT_ISOLATED,
};
use crate::reason::Reason;

const HOOK: Hook = Hook::ToPod;

/// Decides about a packet at the egress of the host end of a pod's veth.
#[inline(always)]
pub fn to_pod<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let length = ctx.length();
    let outcome = decide(ctx, s);
    account(ctx, s, HOOK, outcome, length)
}

#[inline(always)]
fn decide<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    // Only `from_pod` sends a packet back out of the device that it came in by, and it has judged it.
    if ctx.ingress_ifindex() == ctx.ifindex() {
        return Outcome::pass(Reason::Hairpin);
    }
    let received = receive(ctx, s, HOOK);
    if received != Outcome::UNDECIDED {
        return received;
    }
    if s.headers.kind != FLOW {
        let related = icmp::decide(ctx, s, HOOK);
        if related != Outcome::UNDECIDED {
            return related;
        }
    }
    if let Some(flow) = meet(ctx, s) {
        let now = ctx.now();
        if flow.flags() & NETFILTER != 0 {
            let outcome = left_to_netfilter(ctx, s, flow, now);
            if outcome != Outcome::UNDECIDED {
                return outcome;
            }
        } else if flow.flags() & (BACKEND_SIDE | HAIRPIN) == BACKEND_SIDE {
            let source = s.tuple.source();
            let end = flow.end(source.other());
            if is_approved(ctx, flow, HOOK, &s.headers, &end, now) {
                note(ctx, flow, HOOK, &s.headers, source, now);
                return deliver(ctx, s, flow, passing(HOOK, end.role));
            }
        }
    }
    decide_new(ctx, s)
}

/// An answer of a Service in a connection that netfilter translates, and has translated by now.
#[inline(never)]
fn left_to_netfilter<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef, now: u32) -> Outcome {
    s.judged = s.tuple;
    let Some(flow) = behind(ctx, s, front) else {
        return Outcome::UNDECIDED;
    };
    let source = s.judged.source();
    let end = flow.end(source.other());
    if !is_approved(ctx, flow, HOOK, &s.headers, &end, now) {
        return Outcome::UNDECIDED;
    }
    note(ctx, flow, HOOK, &s.headers, source, now);
    if !ctx.dry_run() {
        front.touch(now);
    }
    Outcome::pass(passing(HOOK, end.role))
}

/// Lets a packet of a known flow in. The opener of a translated flow believes to talk to the frontend, from a port of its own.
#[inline(always)]
fn deliver<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef, reason: Reason) -> Outcome {
    if flow.flags() & NAT != 0
        && flow.opener() != s.tuple.source()
        && !(put_frontend_back(ctx, s, flow) && give_port_back(ctx, s, flow))
    {
        return unjudged(s, Reason::RewriteFailed);
    }
    Outcome::pass(reason)
}

#[inline(never)]
fn put_frontend_back<C: Context>(ctx: C, s: &Scratch, flow: FlowRef) -> bool {
    let (address, port) = flow.nat();
    rewrite(ctx, &s.headers, Which::Source, &address, port)
}

/// Gives the client's own port back, where another stands in for it.
#[inline(never)]
fn give_port_back<C: Context>(ctx: C, s: &Scratch, flow: FlowRef) -> bool {
    let own_port = flow.source_port();
    let own = &s.headers.destination;
    own_port == 0 || rewrite(ctx, &s.headers, Which::Destination, own, own_port)
}

/// First packet of a flow, or one whose approval no longer counts.
#[inline(never)]
fn decide_new<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.judged = s.tuple;
    let destination = s.headers.destination;
    if !find_endpoint(ctx, s, &destination, true) {
        return Outcome::pass(Reason::NotLocal);
    }
    match known(ctx, s) {
        Some(flow) => judge_known(ctx, s, flow),
        None => open(ctx, s),
    }
}

/// A packet of a flow that this pod's side has not approved, or not under the present policies.
#[inline(never)]
fn judge_known<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    match renew(ctx, s, flow, HOOK, judge_role) {
        Renewal::Denied => Outcome::drop(Reason::PolicyDenied),
        Renewal::Continued(reason) => deliver(ctx, s, flow, reason),
        Renewal::Opened => opened(ctx, s),
    }
}

/// Judges the packet's flow in the direction in which it was opened.
#[inline(always)]
fn judge_role<C: Context>(ctx: C, s: &mut Scratch, role: u32, _: u32) -> u32 {
    if role == ROLE_RESPONDER {
        return judge_ingress(ctx, s);
    }
    let h = &s.headers;
    let source = s.judged.source() as usize & 1;
    let (peer, port) = (s.judged.key.addresses[source], s.judged.key.ports[source]);
    let bound = bound(h.protocol, port, h.has_ports());
    judge(ctx, s, &peer, Direction::Egress, bound)
}

/// NetworkPolicy API: traffic from the pod's own node is always allowed. That is what was born on this host, and nothing that
/// it forwards.
#[inline(always)]
fn judge_ingress<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    if ctx.ingress_ifindex() == 0 {
        s.rule = RULE_NODE;
        return RULE_NODE;
    }
    let h = &s.headers;
    let (peer, bound) = (
        h.source,
        bound(h.protocol, h.destination_port, h.has_ports()),
    );
    judge(ctx, s, &peer, Direction::Ingress, bound)
}

#[inline(never)]
fn open<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    if is_early(ctx, &s.headers) {
        return Outcome::drop(Reason::TakingOver);
    }
    if judge_ingress(ctx, s) == RULE_NONE {
        return Outcome::drop(Reason::PolicyDenied);
    }
    let local = s.tuple.source().other();
    s.external = 0;
    s.translation = Translation::None;
    if !insert(ctx, s, local, ROLE_RESPONDER) {
        return Outcome::drop(Reason::FlowTableFull);
    }
    opened(ctx, s)
}

#[inline(always)]
fn opened<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let outcome = Outcome::pass(match s.rule {
        RULE_NODE => Reason::Node,
        RULE_NOT_ISOLATED => Reason::NotIsolated,
        _ => Reason::PolicyAllowed,
    });
    sample(ctx, s, outcome);
    outcome
}
