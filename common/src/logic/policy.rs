//! What the rules of a pod say to a peer.

use super::context::{Context, Direction, Scratch};
use crate::abi::{
    Address, CLASS_UNSET, CLASS_WORLD, Class, Endpoint, EndpointKey, PrefixKey, ROW_ABSENT,
    ROW_OPEN, RULE_NONE, RULE_NOT_ISOLATED, Range, VerdictKey, control, range_bound,
};

/// Steps of a binary search in a segment of fewer than 65536 ranges.
const SEARCH_STEPS: u32 = 17;

/// Finds the local pod that has `address`; failing that, if `by_device`, the one behind the hook's device. Leaves it in
/// `s.endpoint`, and in `s.version` which version of the two-version elements judges the packet: read once, for between two readings the node
/// may flip, and the pod's new row would meet the peer's old class. False if there is none.
#[inline(never)]
pub(super) fn find_endpoint<C: Context>(
    ctx: C,
    s: &mut Scratch,
    address: &Address,
    by_device: bool,
) -> bool {
    s.version = ctx.control(control::VERSION) as u32 & 1;
    s.endpoint = Endpoint::default();
    if let Some(endpoint) = ctx.endpoint(&EndpointKey::address(*address))
        && endpoint.rows(s.version).ingress != ROW_ABSENT
    {
        s.endpoint = endpoint;
        return true;
    }
    by_device && find_behind(ctx, s)
}

/// Finds the pod behind the hook's device, whatever the packet's addresses, in `s.version`; leaves it in `s.endpoint`. False if there is none.
#[inline(always)]
pub(super) fn find_behind<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    match ctx.endpoint(&EndpointKey::device(ctx.ifindex())) {
        Some(endpoint) if endpoint.rows(s.version).ingress != ROW_ABSENT => {
            s.endpoint = endpoint;
            true
        }
        _ => false,
    }
}

/// Judges a connection of the pod in `s.endpoint` with `peer` by its ingress or egress row in `s.version`; leaves the rule in `s.rule`, and
/// gives it: `RULE_NONE` is a denial. `port` is the port at the destination of the connection, 0 for protocols without ports.
#[inline(always)]
pub(super) fn judge<C: Context>(
    ctx: C,
    s: &mut Scratch,
    peer: &Address,
    direction: Direction,
    bound: u32,
) -> u32 {
    s.direction = direction;
    judge_peer(ctx, s, peer, bound)
}

/// The direction stands in the scratch: a fifth argument would be one too many for a function called, and see `translation` there.
#[inline(never)]
fn judge_peer<C: Context>(ctx: C, s: &mut Scratch, peer: &Address, bound: u32) -> u32 {
    let version = s.version;
    let rows = s.endpoint.rows(version);
    let row = match s.direction {
        Direction::Ingress => rows.ingress,
        Direction::Egress => rows.egress,
    };
    s.rule = if row == ROW_OPEN {
        RULE_NOT_ISOLATED
    } else {
        rule_of(ctx, row, class_of(ctx, peer, version), bound)
    };
    s.rule
}

/// The bound of a destination port, or of a protocol without ports.
#[inline(always)]
pub(super) fn bound(protocol: u8, port: u16, has_ports: bool) -> u32 {
    range_bound(protocol, if has_ports { port } else { 0 })
}

#[inline(always)]
fn class_of<C: Context>(ctx: C, peer: &Address, version: u32) -> u32 {
    let own = ctx
        .class(peer)
        .map_or(CLASS_UNSET, |class: Class| class.at(version));
    if own != CLASS_UNSET {
        return own;
    }
    ctx.prefix(&PrefixKey::host(*peer))
        .map_or(CLASS_WORLD, |class| class.at(version))
}

/// The rule whose range holds `bound`.
#[inline(always)]
fn rule_of<C: Context>(ctx: C, row: u32, class: u32, bound: u32) -> u32 {
    let Some(segment) = ctx.verdict(&VerdictKey { row, class }) else {
        return RULE_NONE;
    };
    let mut low = 0;
    let mut high = segment.count;
    let mut found = Range::default();
    let mut step = 0;
    // Finds the last range that starts at or below `bound`.
    while step < SEARCH_STEPS && low < high {
        step += 1;
        let middle = low + (high - low) / 2;
        let Some(range) = ctx.range(segment.base.wrapping_add(middle)) else {
            return RULE_NONE;
        };
        if range.first <= bound {
            found = range;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if found.first <= bound && bound <= found.last {
        found.rule
    } else {
        RULE_NONE
    }
}
