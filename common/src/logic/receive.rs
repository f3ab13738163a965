//! What all hooks do first: read the packet.

use super::context::{Context, Scratch, Tuple};
use super::fragment;
use super::outcome::Outcome;
use super::parse::{LATER_FRAGMENT, PARSED, WHOLE, parse};
use crate::abi::{Hook, RULE_NONE};
use crate::reason::Reason;

/// Reads the packet into `s.headers` and `s.tuple`. `UNDECIDED` if there is something to decide.
#[inline(always)]
pub(super) fn receive<C: Context>(ctx: C, s: &mut Scratch, hook: Hook) -> Outcome {
    s.hook = hook as u32;
    s.rule = RULE_NONE;
    let parsed = parse(ctx, &mut s.headers);
    if parsed != PARSED {
        return unparsed(s, parsed);
    }
    if s.headers.fragment != WHOLE && !fragment::resolve(ctx, s) {
        return unjudged(s, Reason::UnknownFragment);
    }
    let h = &s.headers;
    s.tuple = Tuple::new(
        &h.source,
        h.source_port,
        &h.destination,
        h.destination_port,
        h.protocol,
    );
    Outcome::UNDECIDED
}

/// The same at a device of the node, most of whose packets are none of Weir's business: what cannot be read is for others to judge.
/// The ports of first fragments are noted when they turn out to be translated. Later fragments of unknown ones have no ports.
#[inline(always)]
pub(super) fn receive_from_network<C: Context>(ctx: C, s: &mut Scratch, hook: Hook) -> Outcome {
    s.hook = hook as u32;
    s.rule = RULE_NONE;
    s.endpoint.id = 0;
    match parse(ctx, &mut s.headers) {
        PARSED => {}
        r if r == Reason::NotIp as u32 => return Outcome::pass(Reason::NotIp),
        r if r == Reason::Neighbor as u32 => return Outcome::pass(Reason::Neighbor),
        _ => return Outcome::pass(Reason::NotService),
    }
    if s.headers.fragment == LATER_FRAGMENT && !fragment::recall(ctx, s) {
        return Outcome::drop(Reason::UnknownFragment);
    }
    let h = &s.headers;
    s.tuple = Tuple::new(
        &h.source,
        h.source_port,
        &h.destination,
        h.destination_port,
        h.protocol,
    );
    Outcome::UNDECIDED
}

/// Drops a packet before a pod was found for it: what the last packet left in the scratch must not be reported with this one.
#[inline(always)]
pub(super) fn unjudged(s: &mut Scratch, reason: Reason) -> Outcome {
    s.endpoint.id = 0;
    s.judged = Tuple::default();
    Outcome::drop(reason)
}

/// What becomes of a packet that did not parse to a flow or an ICMP error.
#[inline(always)]
fn unparsed(s: &mut Scratch, reason: u32) -> Outcome {
    match reason {
        r if r == Reason::NotIp as u32 => Outcome::pass(Reason::NotIp),
        r if r == Reason::Neighbor as u32 => Outcome::pass(Reason::Neighbor),
        r if r == Reason::BadHeader as u32 => unjudged(s, Reason::BadHeader),
        _ => unjudged(s, Reason::Truncated),
    }
}
