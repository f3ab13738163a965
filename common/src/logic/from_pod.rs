//! Packets that leave a pod: sender checked, Services translated, egress judged.

use super::conntrack::{is_approved, is_live, is_over, is_syn, note};
use super::context::{Context, Direction, Scratch, Translation, Tuple};
use super::entry::{approval, insert, insert_frontend_side};
use super::icmp;
use super::known::{Renewal, known, meet, passing, renew};
use super::netfilter::behind;
use super::outcome::{Outcome, account, sample};
use super::parse::{FLOW, Headers};
use super::policy::{bound, find_behind, find_endpoint, judge};
use super::receive::{receive, unjudged};
use super::reject::refuse;
use super::rewrite::{Which, rewrite, swap_ethernet};
use super::service::{
    NOT_A_SERVICE, TO_ITSELF, TRANSLATED, client_port, hairpin_address, is_ours, is_served,
    own_port, translate,
};
use super::wire::protocol;
use crate::abi::{
    Address, EndpointKey, FRONTEND_SIDE, FlowRef, HAIRPIN, Hook, NAT, NETFILTER, ROLE_OPENER,
    ROLE_RESPONDER, RULE_HAIRPIN, RULE_NODE, RULE_NONE, RULE_NOT_ISOLATED, control,
};
use crate::reason::Reason;

const HOOK: Hook = Hook::FromPod;

/// Decides about a packet at the ingress of the host end of a pod's veth.
#[inline(always)]
pub fn from_pod<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let length = ctx.length();
    let outcome = decide(ctx, s);
    account(ctx, s, HOOK, outcome, length)
}

#[inline(always)]
fn decide<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let received = receive(ctx, s, HOOK);
    if received != Outcome::UNDECIDED {
        return received;
    }
    if s.headers.kind != FLOW {
        let decided = decide_error(ctx, s);
        if decided != Outcome::UNDECIDED {
            return decided;
        }
    }
    if let Some(flow) = meet(ctx, s) {
        let now = ctx.now();
        let source = s.tuple.source();
        if flow.flags() & FRONTEND_SIDE != 0 {
            let outcome = if flow.flags() & NETFILTER != 0 {
                left_to_netfilter(ctx, s, flow, now)
            } else {
                established_to_service(ctx, s, flow, now)
            };
            if outcome != Outcome::UNDECIDED {
                return outcome;
            }
        } else {
            if flow.flags() & (NAT | HAIRPIN) == NAT
                && flow.opener() == source
                && is_live(ctx, flow, s.headers.protocol, now)
                && !(is_syn(&s.headers) && is_over(flow))
            {
                // These ends already talk through a Service; the answers would go to that connection.
                return unjudged(s, Reason::TupleClash);
            }
            let end = flow.end(source);
            if is_approved(ctx, flow, HOOK, &s.headers, &end, now) {
                note(ctx, flow, HOOK, &s.headers, source, now);
                if flow.flags() & HAIRPIN != 0 {
                    return hairpin_reply(ctx, s, flow);
                }
                return Outcome::pass(passing(HOOK, end.role));
            }
        }
    }
    decide_new(ctx, s)
}

/// A later packet from a client to a Service: two lookups and a rewrite.
#[inline(never)]
fn established_to_service<C: Context>(
    ctx: C,
    s: &mut Scratch,
    front: FlowRef,
    now: u32,
) -> Outcome {
    let (address, port) = front.nat();
    let (backend, fingerprint) = front.backend();
    if !is_served(ctx, backend, fingerprint, &s.headers) {
        return Outcome::UNDECIDED;
    }
    let h = &s.headers;
    let hairpin = front.flags() & HAIRPIN != 0;
    let source = if hairpin {
        hairpin_address(h.v6 == 1)
    } else {
        h.source
    };
    s.external = 0;
    s.source_port = client_port(s, front);
    s.judged = Tuple::new(&source, s.source_port, &address, port, h.protocol);
    let Some(flow) = ctx.flow(&s.judged.key) else {
        return Outcome::UNDECIDED;
    };
    // The entry must be this frontend's: another Service may have the same backend.
    if !is_ours(flow, s) {
        return Outcome::UNDECIDED;
    }
    let side = s.judged.source();
    let end = if hairpin {
        front.end(s.tuple.source())
    } else {
        flow.end(side)
    };
    if !is_approved(ctx, flow, HOOK, h, &end, now) {
        return Outcome::UNDECIDED;
    }
    note(ctx, flow, HOOK, h, side, now);
    if !ctx.dry_run() {
        front.touch(now);
        front.see_tcp_flags(s.tuple.source(), h.tcp_flags);
    }
    if hairpin {
        return hairpin_forward(ctx, s, &address, port);
    }
    if !rewrite(ctx, h, Which::Destination, &address, port) || !stand_in(ctx, s) {
        return unjudged(s, Reason::RewriteFailed);
    }
    Outcome::pass(Reason::Established)
}

/// Gives the packet the port that the backend sees as the client's, if it is not the client's own.
#[inline(always)]
fn stand_in<C: Context>(ctx: C, s: &Scratch) -> bool {
    own_port(s) == 0 || change_source_port(ctx, s)
}

#[inline(never)]
fn change_source_port<C: Context>(ctx: C, s: &Scratch) -> bool {
    rewrite(
        ctx,
        &s.headers,
        Which::Source,
        &s.headers.source,
        s.source_port,
    )
}

/// A later packet to a Service in a connection that netfilter translates.
#[inline(never)]
fn left_to_netfilter<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef, now: u32) -> Outcome {
    s.judged = s.tuple;
    let Some(flow) = behind(ctx, s, front) else {
        return Outcome::UNDECIDED;
    };
    let side = s.judged.source();
    if is_syn(&s.headers) || !is_approved(ctx, flow, HOOK, &s.headers, &flow.end(side), now) {
        return Outcome::UNDECIDED;
    }
    note(ctx, flow, HOOK, &s.headers, side, now);
    if !ctx.dry_run() {
        front.touch(now);
    }
    Outcome::pass(Reason::Established)
}

/// An ICMP error: the flow that it is about approves it, if the pod speaks for itself. `UNDECIDED` if there is no such flow.
#[inline(never)]
fn decide_error<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.judged = s.tuple;
    let checked = check_sender(ctx, s);
    if checked != Outcome::UNDECIDED {
        return checked;
    }
    icmp::decide(ctx, s, HOOK)
}

/// First packet of a flow, or one whose approval no longer counts.
#[inline(never)]
fn decide_new<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.judged = s.tuple;
    s.external = 0;
    let checked = check_sender(ctx, s);
    if checked != Outcome::UNDECIDED {
        return checked;
    }
    if let Some(flow) = known(ctx, s) {
        return judge_known(ctx, s, flow);
    }
    match translate(ctx, s) {
        NOT_A_SERVICE => {
            s.translation = Translation::None;
            open(ctx, s)
        }
        TRANSLATED => {
            s.translation = Translation::ToBackend;
            open(ctx, s)
        }
        TO_ITSELF => open_to_itself(ctx, s),
        reason => refuse(ctx, s, reason),
    }
}

/// Finds the pod, and refuses a source address that is not its own, or has the pod behind the device answer for it.
#[inline(never)]
fn check_sender<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let source = s.headers.source;
    let h = &s.headers;
    if source.is_unspecified()
        && h.protocol == protocol::UDP
        && h.source_port == 68
        && h.destination_port == 67
    {
        return Outcome::pass(Reason::Dhcp);
    }
    // The API does not know link-local addresses; the device says whose they are.
    let found = find_endpoint(ctx, s, &source, source.is_link_local_v6());
    let own = match s.endpoint.ifindex {
        // Where that pod is has not been found out yet; but it is not where another one is.
        0 => ctx
            .endpoint(&EndpointKey::device(ctx.ifindex()))
            .is_none_or(|behind| behind.id == s.endpoint.id),
        ifindex => ifindex == ctx.ifindex(),
    };
    let answered =
        found && own || ctx.control(control::FOREIGN_SOURCES) != 0 && find_behind(ctx, s);
    if answered {
        Outcome::UNDECIDED
    } else {
        Outcome::drop(Reason::SpoofedSource)
    }
}

/// A packet of a flow that this pod's side has not approved, or not under the present policies.
#[inline(never)]
fn judge_known<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    match renew(ctx, s, flow, HOOK, judge_role) {
        Renewal::Denied => Outcome::drop(Reason::PolicyDenied),
        Renewal::Continued(reason) => Outcome::pass(reason),
        Renewal::Opened => opened(ctx, s),
    }
}

/// Judges the packet's flow in the direction in which it was opened: as its opener this pod needs egress to the peer; as its
/// responder, ingress from the peer, unless the peer was this node.
#[inline(always)]
fn judge_role<C: Context>(ctx: C, s: &mut Scratch, role: u32, rule: u32) -> u32 {
    let h = &s.headers;
    let destination = s.judged.source().other() as usize & 1;
    let (peer, port) = (
        s.judged.key.addresses[destination],
        s.judged.key.ports[destination],
    );
    if role == ROLE_RESPONDER {
        if rule == RULE_NODE {
            s.rule = RULE_NODE;
            return RULE_NODE;
        }
        let bound = bound(h.protocol, h.source_port, h.has_ports());
        return judge(ctx, s, &peer, Direction::Ingress, bound);
    }
    let bound = bound(h.protocol, port, h.has_ports());
    judge(ctx, s, &peer, Direction::Egress, bound)
}

/// Judges and opens a flow to the judged destination.
#[inline(never)]
fn open<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let source = s.judged.source();
    let destination = source.other() as usize & 1;
    let (peer, port) = (
        s.judged.key.addresses[destination],
        s.judged.key.ports[destination],
    );
    let bound = bound(s.headers.protocol, port, s.headers.has_ports());
    if judge(ctx, s, &peer, Direction::Egress, bound) == RULE_NONE {
        return Outcome::drop(Reason::PolicyDenied);
    }
    if !enter(ctx, s) {
        return Outcome::drop(Reason::FlowTableFull);
    }
    if s.translation == Translation::ToBackend
        && (!rewrite(ctx, &s.headers, Which::Destination, &peer, port) || !stand_in(ctx, s))
    {
        return Outcome::drop(Reason::RewriteFailed);
    }
    opened(ctx, s)
}

/// Puts the flow into the table. A flow to the same backend through the same Service that is still there (its frontend-side
/// entry was evicted, or its approval is old) goes on.
#[inline(never)]
fn enter<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    let source = s.judged.source();
    if s.translation == Translation::ToBackend
        && let Some(flow) = ctx.flow(&s.judged.key)
    {
        let same = is_ours(flow, s);
        let fresh = is_syn(&s.headers) && is_over(flow);
        if same && !fresh && is_live(ctx, flow, s.headers.protocol, ctx.now()) {
            if !ctx.dry_run() {
                flow.set_end(source, approval(ctx, s, ROLE_OPENER));
            }
            note(ctx, flow, HOOK, &s.headers, source, ctx.now());
            return insert_frontend_side(ctx, s);
        }
    }
    insert(ctx, s, source, ROLE_OPENER)
}

#[inline(always)]
fn opened<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    let reason = if s.rule == RULE_NOT_ISOLATED {
        Reason::NotIsolated
    } else {
        Reason::PolicyAllowed
    };
    let outcome = Outcome::pass(reason);
    sample(ctx, s, outcome);
    outcome
}

/// A pod that reaches itself through a Service is never cut off by policy: it could talk to itself anyway.
#[inline(never)]
fn open_to_itself<C: Context>(ctx: C, s: &mut Scratch) -> Outcome {
    s.rule = RULE_HAIRPIN;
    // The pod is the responder of the entry at its own address, and the stand-in address has no pod.
    let pod = s.judged.source().other();
    s.translation = Translation::ToItself;
    if !insert(ctx, s, pod, ROLE_RESPONDER) {
        return Outcome::drop(Reason::FlowTableFull);
    }
    let (address, port) = (s.slot.address, s.slot.port);
    let outcome = hairpin_forward(ctx, s, &address, port);
    sample(ctx, s, outcome);
    outcome
}

/// Turns a packet to a Service around to the pod that sent it.
#[inline(never)]
fn hairpin_forward<C: Context>(ctx: C, s: &mut Scratch, address: &Address, port: u16) -> Outcome {
    let stand_in = hairpin_address(s.headers.v6 == 1);
    turn_around(ctx, &s.headers, &stand_in, s.source_port, address, port)
}

/// Turns the answer around: it comes from the Service, to the pod's own address.
#[inline(never)]
fn hairpin_reply<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> Outcome {
    let (address, port) = flow.nat();
    let own = s.headers.source;
    let own_port = match flow.source_port() {
        0 => s.headers.destination_port,
        own_port => own_port,
    };
    turn_around(ctx, &s.headers, &address, port, &own, own_port)
}

#[inline(always)]
fn turn_around<C: Context>(
    ctx: C,
    h: &Headers,
    source: &Address,
    source_port: u16,
    destination: &Address,
    destination_port: u16,
) -> Outcome {
    let done = rewrite(ctx, h, Which::Source, source, source_port)
        && rewrite(ctx, h, Which::Destination, destination, destination_port)
        && swap_ethernet(ctx);
    if done {
        Outcome::turn_back(Reason::Hairpin)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}
