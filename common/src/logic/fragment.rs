//! Ports of fragments that carry none.

use super::context::{Context, Scratch};
use super::parse::{FIRST_FRAGMENT, Headers, LATER_FRAGMENT};
use crate::abi::{FragmentKey, FragmentPorts};

/// Seconds that a datagram's fragments may be apart: the kernel's reassembly time.
const TIMEOUT_SECONDS: u32 = 30;

/// Notes the ports of a first fragment, or fills in those of a later one; false if its first fragment was not seen.
#[inline(never)]
pub(super) fn resolve<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    let key = key_of(&s.headers, s.hook as u8, ctx.ifindex());
    match s.headers.fragment {
        FIRST_FRAGMENT => {
            if !ctx.dry_run() {
                let ports = FragmentPorts {
                    source: s.headers.source_port,
                    destination: s.headers.destination_port,
                    seen: ctx.now(),
                    protocol: u32::from(s.headers.protocol),
                };
                ctx.insert_fragment(&key, &ports);
            }
            true
        }
        LATER_FRAGMENT => match ctx.fragment(&key) {
            Some(ports)
                if ctx.now().wrapping_sub(ports.seen)
                    <= TIMEOUT_SECONDS * ctx.ticks_per_second() =>
            {
                s.headers.source_port = ports.source;
                s.headers.destination_port = ports.destination;
                s.headers.protocol = ports.protocol as u8;
                true
            }
            _ => false,
        },
        _ => true,
    }
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
