//! Flows that the table has already.

use super::conntrack::{is_live, is_over, is_syn, note, opening_role};
use super::context::{Context, Scratch};
use super::entry::approval;
use super::netfilter::behind;
use super::parse::FLOW;
use crate::abi::{BACKEND_SIDE, End, FlowRef, HAIRPIN, Hook, NETFILTER, RULE_NONE, Side};
use crate::reason::Reason;

/// The entry at the packet's own tuple, if any; [`known`] need not look again for what is not there.
#[inline(always)]
pub(super) fn meet<C: Context>(ctx: C, s: &mut Scratch) -> Option<FlowRef> {
    let flow = if s.headers.kind == FLOW {
        ctx.flow(&s.tuple.key)
    } else {
        None
    };
    s.met = u32::from(flow.is_some());
    flow
}

/// The live flow between exactly the packet's ends, if it may belong to that; where netfilter translates, between the ends that it
/// makes of them. The judged tuple is that flow's.
#[inline(always)]
pub(super) fn known<C: Context>(ctx: C, s: &mut Scratch) -> Option<FlowRef> {
    if s.met == 0 {
        return None;
    }
    let mut flow = ctx.flow(&s.tuple.key)?;
    if flow.flags() & NETFILTER != 0 {
        // A SYN asks for a new connection, which is Weir's.
        let found = if is_syn(&s.headers) {
            None
        } else {
            behind(ctx, s, flow)
        };
        match found {
            Some(behind) => flow = behind,
            None => {
                s.judged = s.tuple;
                return None;
            }
        }
    }
    let usable = flow.flags() & (BACKEND_SIDE | HAIRPIN) == BACKEND_SIDE
        && is_live(ctx, flow, s.headers.protocol, ctx.now());
    (usable && !(is_syn(&s.headers) && is_over(flow))).then_some(flow)
}

/// The end of the packet's flow that the hook's pod is.
#[inline(always)]
const fn local(hook: Hook, source: Side) -> Side {
    match hook {
        Hook::FromPod | Hook::FromNet => source,
        Hook::ToPod | Hook::ToNet => source.other(),
    }
}

/// Why a packet of an approved flow passes `hook`, by the role of the hook's pod.
#[inline(always)]
pub(super) const fn passing(hook: Hook, role: u32) -> Reason {
    if role == opening_role(hook) {
        Reason::Established
    } else {
        Reason::Reply
    }
}

/// What came of judging a known flow.
pub(super) enum Renewal {
    /// It may not go on.
    Denied,
    /// It was approved before and is again.
    Continued(Reason),
    /// This pod's side approved it for the first time, or again after a denial.
    Opened,
}

/// Judges a flow, at the judged tuple, that the pod in `s.endpoint` has not approved, or not under the present policies, and notes what comes of it.
/// `judge_role` gives the rule (`RULE_NONE`: denied) for the pod's role and the rule that it had, if any.
#[inline(always)]
pub(super) fn renew<C: Context>(
    ctx: C,
    s: &mut Scratch,
    flow: FlowRef,
    hook: Hook,
    judge_role: impl FnOnce(C, &mut Scratch, u32, u32) -> u32,
) -> Renewal {
    let source = s.judged.source();
    let local = local(hook, source);
    let end = flow.end(local);
    let again = end.role != 0 && end.endpoint == s.endpoint.id && !is_syn(&s.headers);
    let role = if again { end.role } else { opening_role(hook) };
    if judge_role(ctx, s, role, end.rule) == RULE_NONE {
        if again && !ctx.dry_run() {
            // The role stays: which end opened the flow is not to be found out from what comes next.
            let rule = RULE_NONE;
            flow.set_end(local, End { rule, ..end });
        }
        return Renewal::Denied;
    }
    if !ctx.dry_run() {
        flow.set_end(local, approval(ctx, s, role));
    }
    note(ctx, flow, hook, &s.headers, source, ctx.now());
    if again && end.rule != RULE_NONE {
        Renewal::Continued(passing(hook, role))
    } else {
        Renewal::Opened
    }
}
