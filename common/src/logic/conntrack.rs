//! When an entry still counts.

use super::context::Context;
use super::parse::Headers;
use super::wire::{protocol, tcp};
use crate::abi::{
    End, Flow, FlowRef, Hook, ROLE_OPENER, ROLE_RESPONDER, RULE_HAIRPIN, RULE_NODE, RULE_NONE,
    Side, control,
};

/// Seconds without a packet after which an entry of these TCP flags (of both ends together) or this protocol no longer counts.
#[inline(always)]
#[must_use]
pub const fn timeout_seconds(protocol_number: u8, low: u8, high: u8) -> u32 {
    match protocol_number {
        protocol::TCP if is_closing(low, high) => 10,
        // Not yet answered, or not yet acknowledged by both.
        protocol::TCP if low & high & tcp::ACK == 0 => 60,
        protocol::TCP => 6 * 3600,
        protocol::ICMP | protocol::ICMPV6 => 30,
        _ => 180,
    }
}

/// A reset, or the end of both directions.
#[inline(always)]
#[must_use]
pub const fn is_closing(low: u8, high: u8) -> bool {
    (low | high) & tcp::RST != 0 || low & high & tcp::FIN != 0
}

/// For how many ticks an entry has no longer counted at `now`, of which there are `ticks_per_second`; `None` while it counts. The same as
/// [`is_live`], for those who read the table from outside.
#[must_use]
pub const fn overdue(
    protocol_number: u8,
    flow: &Flow,
    now: u32,
    ticks_per_second: u32,
) -> Option<u32> {
    let [low, high] = flow.tcp_flags;
    let idle = now.wrapping_sub(flow.last_seen);
    let time = timeout_seconds(protocol_number, low, high) * ticks_per_second;
    // A packet may have come after `now` was read.
    if idle as i32 <= 0 || idle <= time {
        None
    } else {
        Some(idle - time)
    }
}

/// Whether the flow has had a packet within its time.
#[inline(always)]
pub(super) fn is_live<C: Context>(ctx: C, flow: FlowRef, protocol_number: u8, now: u32) -> bool {
    let [low, high] = flow.tcp_flags();
    let idle = now.wrapping_sub(flow.last_seen());
    // Another CPU may have stored a later time than ours.
    if idle as i32 <= 0 {
        return true;
    }
    idle <= timeout_seconds(protocol_number, low, high) * ctx.ticks_per_second()
}

/// Whether a TCP connection is over, so that a SYN opens a new one on the same ports.
#[inline(always)]
pub(super) fn is_over(flow: FlowRef) -> bool {
    let [low, high] = flow.tcp_flags();
    is_closing(low, high)
}

/// Whether the packet asks for a new TCP connection.
#[inline(always)]
pub(super) fn is_syn(headers: &Headers) -> bool {
    headers.protocol == protocol::TCP && headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// The role that the local end gets when the packet opens a connection.
#[inline(always)]
pub(super) const fn opening_role(hook: Hook) -> u32 {
    match hook {
        Hook::FromPod | Hook::FromNet => ROLE_OPENER,
        Hook::ToPod | Hook::ToNet => ROLE_RESPONDER,
    }
}

/// Whether an approval is one, of the pod behind the hook's device and under the present policies.
#[inline(always)]
pub(super) fn holds<C: Context>(ctx: C, end: &End) -> bool {
    if end.role == 0 || end.rule == RULE_NONE || end.ifindex != ctx.ifindex() {
        return false;
    }
    // No policy change takes from a pod what it says to itself.
    end.epoch == ctx.control(control::EPOCH) as u32 || end.rule == RULE_HAIRPIN
}

/// Whether the local end's approval lets this packet pass as it is: it holds, and this is still the same connection.
#[inline(always)]
pub(super) fn is_approved<C: Context>(
    ctx: C,
    flow: FlowRef,
    hook: Hook,
    headers: &Headers,
    end: &End,
    now: u32,
) -> bool {
    if !holds(ctx, end) {
        return false;
    }
    if is_syn(headers) && (end.role != opening_role(hook) || is_over(flow)) {
        return false;
    }
    // The node's exemption holds for packets that are born here, not for others that use its address.
    if matches!(hook, Hook::ToPod) && end.rule == RULE_NODE && ctx.ingress_ifindex() != 0 {
        return false;
    }
    is_live(ctx, flow, headers.protocol, now)
}

/// Notes a packet that passes: time, TCP flags, and packets and bytes, once per node.
#[inline(always)]
pub(super) fn note<C: Context>(
    ctx: C,
    flow: FlowRef,
    hook: Hook,
    headers: &Headers,
    source: Side,
    now: u32,
) {
    if ctx.dry_run() {
        return;
    }
    flow.touch(now);
    if headers.tcp_flags != 0 {
        flow.see_tcp_flags(source, headers.tcp_flags);
    }
    // A sender with a role is a local pod, whose packet was counted where it left.
    if matches!(hook, Hook::FromPod) || flow.end(source).role == 0 {
        flow.count(source, headers.length);
    }
}
