//! A verdict with its reason, counted and reported.

use super::context::{Context, Scratch};
use crate::abi::{Hook, Verdict, control};
use crate::reason::Reason;

/// Verdict and reason in one register.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u32);

impl Outcome {
    /// Nothing decided yet.
    pub(super) const UNDECIDED: Self = Self(u32::MAX);

    /// Let the packet go on.
    #[inline(always)]
    #[must_use]
    pub const fn pass(reason: Reason) -> Self {
        Self::new(Verdict::Pass, reason)
    }

    /// Drop it.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: Reason) -> Self {
        Self::new(Verdict::Drop, reason)
    }

    /// Send it back out of the device it came in by.
    #[inline(always)]
    #[must_use]
    pub const fn turn_back(reason: Reason) -> Self {
        Self::new(Verdict::Return, reason)
    }

    #[inline(always)]
    const fn new(verdict: Verdict, reason: Reason) -> Self {
        Self((verdict as u32) << 8 | reason as u32)
    }

    /// What happens to the packet.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self.0 >> 8 {
            0 => Verdict::Pass,
            2 => Verdict::Return,
            _ => Verdict::Drop,
        }
    }

    /// Number of the reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> u8 {
        self.0 as u8
    }
}

/// Counts the packet under its reason, and reports drops.
#[inline(always)]
pub(super) fn account<C: Context>(
    ctx: C,
    s: &mut Scratch,
    hook: Hook,
    outcome: Outcome,
    length: u32,
) -> Outcome {
    if !ctx.dry_run() {
        ctx.count(hook as u32 * Reason::SLOTS + (outcome.0 & 0x7f), length);
        if outcome.reason() >= Reason::PolicyDenied as u8 {
            report(ctx, s, outcome.0);
        }
    }
    outcome
}

/// Reports the first packet of an allowed flow, one in so many.
#[inline(always)]
pub(super) fn sample<C: Context>(ctx: C, s: &mut Scratch, outcome: Outcome) {
    let every = ctx.control(control::SAMPLE) as u32;
    if ctx.dry_run() || every == 0 {
        return;
    }
    if every == 1 || ctx.random().is_multiple_of(every) {
        report(ctx, s, outcome.0);
    }
}

#[inline(never)]
fn report<C: Context>(ctx: C, s: &mut Scratch, outcome: u32) {
    let Scratch {
        headers,
        judged,
        endpoint,
        event,
        ..
    } = s;
    let destination = judged.source().other() as usize & 1;
    event.time = ctx.time();
    event.endpoint = endpoint.id;
    event.source = headers.source;
    event.destination = headers.destination;
    event.judged = judged.key.addresses[destination];
    event.source_port = headers.source_port;
    event.destination_port = headers.destination_port;
    event.judged_port = judged.key.ports[destination];
    event.protocol = headers.protocol;
    event.hook = s.hook as u8;
    event.verdict = (outcome >> 8) as u8;
    event.reason = outcome as u8;
    event.tcp_flags = headers.tcp_flags;
    event.reserved = 0;
    event.rule = s.rule;
    event.length = headers.length;
    event.ifindex = ctx.ifindex();
    ctx.emit(event);
}
