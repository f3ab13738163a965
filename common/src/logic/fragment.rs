//! Ports of fragments that carry none.

use super::context::{Context, Scratch};
use super::parse::{FIRST_FRAGMENT, Headers, LATER_FRAGMENT};
use crate::abi::{FragmentKey, FragmentPorts};

/// Seconds that a datagram's fragments may be apart: the kernel's reassembly time.
const TIMEOUT_SECONDS: u32 = 30;

/// Notes the ports of a first fragment, or fills in those of a later one; false if its first fragment was not seen.
#[inline(never)]
pub(super) fn resolve<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    match s.headers.fragment {
        FIRST_FRAGMENT => {
            note(ctx, s);
            true
        }
        LATER_FRAGMENT => fill_in(ctx, s),
        _ => true,
    }
}

/// Fills in the ports of a later fragment; false if its first fragment was not noted.
#[inline(never)]
pub(super) fn recall<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    fill_in(ctx, s)
}

/// Notes the ports of a packet that is translated, if it is a first fragment.
#[inline(never)]
pub(super) fn remember<C: Context>(ctx: C, s: &Scratch) {
    if s.headers.fragment == FIRST_FRAGMENT {
        note(ctx, s);
    }
}

#[inline(always)]
fn note<C: Context>(ctx: C, s: &Scratch) {
    if ctx.dry_run() {
        return;
    }
    let key = key_of(&s.headers, s.hook as u8, ctx.ifindex());
    let ports = FragmentPorts {
        source: s.headers.source_port,
        destination: s.headers.destination_port,
        seen: ctx.now(),
        protocol: u32::from(s.headers.protocol),
    };
    ctx.insert_fragment(&key, &ports);
}

#[inline(always)]
fn fill_in<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    let key = key_of(&s.headers, s.hook as u8, ctx.ifindex());
    let Some(ports) = ctx.fragment(&key) else {
        return false;
    };
    if ctx.now().wrapping_sub(ports.seen) > TIMEOUT_SECONDS * ctx.ticks_per_second() {
        return false;
    }
    s.headers.source_port = ports.source;
    s.headers.destination_port = ports.destination;
    s.headers.protocol = ports.protocol as u8;
    true
}

#[inline(always)]
fn key_of(headers: &Headers, hook: u8, ifindex: u32) -> FragmentKey {
    FragmentKey {
        source: headers.source,
        destination: headers.destination,
        id: headers.fragment_id,
        ifindex,
        protocol: if headers.v6 == 1 { 0 } else { headers.protocol },
        hook,
        reserved: [0; 2],
    }
}
