//! The fast path, before the node's network stack: what clients outside and backends on other nodes say to each other through
//! this node goes out again at once, by the device that it came in by.
//!
//! It sends a packet on, with all that `from_net`, routing and `to_net` would do to it, or leaves it to them as it is. A connection
//! that they have carried is theirs from then on: netfilter judges by what it has seen of a connection.

use super::checksum::{difference16, fold, pseudo_header, replace};
use super::conntrack::{is_live, is_syn, note};
use super::context::{Context, Routes, Scratch, Translation, Tuple};
use super::from_net::{enter, follow, touch};
use super::masquerade::source_port;
use super::outcome::{Outcome, account, sample};
use super::parse::{FLOW, WHOLE};
use super::receive::receive_from_network;
use super::rewrite::{Which, rewrite};
use super::service::{TRANSLATED, translate};
use super::wire::{ETHERNET, Ethernet, IPV4, IPV6, Ipv4, Ipv6, MacAddress, protocol};
use crate::abi::{
    BACKEND_SIDE, EXTERNAL, FAST, FRONTEND_SIDE, FlowRef, Hook, SOURCE_SIDE, Verdict,
};
use crate::reason::Reason;

/// What is reported is reported as of `from_net`, in whose place this is.
const HOOK: Hook = Hook::FromNet;
/// For `from_net` to decide about, and to count.
const LEAVE: Outcome = Outcome::pass(Reason::NotService);

/// Decides about a packet at the XDP hook of an uplink: `Verdict::Return` if it goes out again as it is now, `Verdict::Pass` if it
/// was left as it came.
#[inline(always)]
pub fn xdp_net<C: Context + Routes>(ctx: C, s: &mut Scratch) -> Outcome {
    let length = ctx.length();
    let outcome = decide(ctx, s);
    match outcome.verdict() {
        Verdict::Pass => outcome,
        Verdict::Drop | Verdict::Return => account(ctx, s, HOOK, outcome, length),
    }
}

#[inline(always)]
fn decide<C: Context + Routes>(ctx: C, s: &mut Scratch) -> Outcome {
    if !read(ctx, s) {
        return LEAVE;
    }
    s.external = 1;
    let ready = match ctx.flow(&s.tuple.key) {
        None => begin(ctx, s),
        Some(flow) => {
            let flags = flow.flags();
            if flags & SOURCE_SIDE != 0 && flow.opener() != s.tuple.source() {
                answer(ctx, s, flow)
            } else if flags & (FRONTEND_SIDE | EXTERNAL) != FRONTEND_SIDE | EXTERNAL {
                false
            } else {
                match request(ctx, s, flow) {
                    Some(flow) => go_on(ctx, s, flow),
                    None => begin(ctx, s),
                }
            }
        }
    };
    if ready { send(ctx, s) } else { LEAVE }
}

/// Reads the packet; whether it may be one for the fast path.
#[inline(never)]
fn read<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    receive_from_network(ctx, s, HOOK) == Outcome::UNDECIDED && is_plain(ctx, s)
}

/// [`follow`], with a stack of its own.
#[inline(never)]
fn request<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef) -> Option<FlowRef> {
    follow(ctx, s, front)
}

/// A later packet from a client, of the flow with this backend-side entry.
#[inline(always)]
fn go_on<C: Context + Routes>(ctx: C, s: &mut Scratch, flow: FlowRef) -> bool {
    flow.flags() & FAST != 0 && leads_back(ctx, s) && forward(ctx, s, flow)
}

/// First packet of a flow, or one whose backend is gone.
#[inline(always)]
fn begin<C: Context + Routes>(ctx: C, s: &mut Scratch) -> bool {
    open(ctx, s)
        && ctx.flow(&s.judged.key).is_some_and(|flow| {
            if !ctx.dry_run() {
                flow.set_fast(true);
            }
            forward(ctx, s, flow)
        })
}

/// Whether this is TCP or UDP right behind an IP header without options, with a hop to spare and a complete checksum; notes what
/// routing needs.
///
/// Of a packet that a veth or tunnel brought from a sender on the same machine, the checksum may be that of the pseudo header only,
/// for a device to complete, and nothing tells XDP so. One good packet in 65,536 looks like that, too, and takes the long way.
#[inline(always)]
fn is_plain<C: Context>(ctx: C, s: &mut Scratch) -> bool {
    let h = &s.headers;
    if h.kind != FLOW || h.fragment != WHOLE {
        return false;
    }
    let (header, length, hops, class) = if h.v6 == 1 {
        let Some(ip) = ctx.load::<Ipv6>(h.network) else {
            return false;
        };
        let payload = u32::from(u16::from_be(ip.payload_length));
        let class = ip.version_class_flow & 0x0fff_ffffu32.to_be();
        (IPV6, IPV6 + payload, ip.hop_limit, class)
    } else {
        let Some(ip) = ctx.load::<Ipv4>(h.network) else {
            return false;
        };
        let length = u32::from(u16::from_be(ip.total_length));
        (IPV4, length, ip.ttl, u32::from(ip.service))
    };
    let checksum = match h.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return false,
    };
    if h.network != ETHERNET || h.transport != ETHERNET + header || hops <= 1 {
        return false;
    }
    let Some(checksum) = ctx.load::<u16>(h.transport + checksum) else {
        return false;
    };
    s.route.class = class;
    s.route.length = length;
    checksum != !fold(pseudo_header(h, h.protocol, length.wrapping_sub(header)))
}

/// Finds a backend, and puts the flow into the table. The way back must be the way it came: a sender that is not where its address
/// is, and a path with two sides, are routing's to judge.
#[inline(never)]
fn open<C: Context + Routes>(ctx: C, s: &mut Scratch) -> bool {
    if s.headers.protocol == protocol::TCP && !is_syn(&s.headers) {
        return false;
    }
    s.judged = s.tuple;
    if translate(ctx, s) != TRANSLATED {
        return false;
    }
    let key = &s.judged.key;
    if ctx.flow(key).is_some_and(|flow| flow.flags() & FAST == 0) {
        return false;
    }
    if !leads_back(ctx, s) || !answers_lead_back(ctx, s) {
        return false;
    }
    s.translation = Translation::ToBackend;
    if !enter(ctx, s) {
        return false;
    }
    sample(ctx, s, Outcome::pass(Reason::Translated));
    true
}

/// Readies a client's packet for the backend in `s.judged`, in the node's name.
#[inline(never)]
fn forward<C: Context>(ctx: C, s: &mut Scratch, flow: FlowRef) -> bool {
    let Some(device) = ctx.device(ctx.ifindex()) else {
        return false;
    };
    s.device = device;
    // The packet as it came, and as it would be behind `from_net`.
    s.inner = s.headers;
    s.tuple = s.judged;
    s.headers.destination = s.route.destination;
    s.headers.destination_port = s.route.destination_port;
    let port = source_port(ctx, s, flow) as u16;
    if port == 0 {
        return false;
    }
    note(
        ctx,
        flow,
        Hook::ToNet,
        &s.headers,
        s.tuple.source(),
        ctx.now(),
    );
    s.route.source = s.device.address(s.headers.v6 == 1);
    s.route.source_port = port;
    true
}

/// Readies an answer to a port of the node that stands for a client.
#[inline(never)]
fn answer<C: Context + Routes>(ctx: C, s: &mut Scratch, port: FlowRef) -> bool {
    let (client, client_port) = port.nat();
    let h = &s.headers;
    s.judged = Tuple::new(&h.source, h.source_port, &client, client_port, h.protocol);
    let Some(flow) = ctx.flow(&s.judged.key) else {
        return false;
    };
    let now = ctx.now();
    let wanted = BACKEND_SIDE | EXTERNAL | FAST;
    if flow.flags() & wanted != wanted
        || flow.opener() == s.judged.source()
        || !is_live(ctx, port, h.protocol, now)
        || !is_live(ctx, flow, h.protocol, now)
        || !leads_back(ctx, s)
    {
        return false;
    }
    touch(ctx, port, s, s.tuple.source(), now);
    note(ctx, flow, Hook::ToNet, &s.headers, s.judged.source(), now);
    s.inner = s.headers;
    (s.route.source, s.route.source_port) = flow.nat();
    true
}

/// Whether a packet between the ends in `s.judged` leaves by the device that it came in by, to which it was addressed; the answer
/// stays in `s.route`.
#[inline(never)]
fn leads_back<C: Context + Routes>(ctx: C, s: &mut Scratch) -> bool {
    let source = s.judged.source();
    ask(ctx, s, source as usize & 1)
        && ctx
            .load::<Ethernet>(0)
            .is_some_and(|ethernet| ethernet.destination == MacAddress(s.route.from))
}

/// The same for the answers to it. Leaves the way of the packet itself in `s.route`.
#[inline(never)]
fn answers_lead_back<C: Context + Routes>(ctx: C, s: &mut Scratch) -> bool {
    let there = s.route;
    s.route.length = 0;
    let source = s.judged.source().other();
    let back = ask(ctx, s, source as usize & 1);
    s.route = there;
    back
}

#[inline(always)]
fn ask<C: Context + Routes>(ctx: C, s: &mut Scratch, source: usize) -> bool {
    let key = &s.judged.key;
    let route = &mut s.route;
    route.source = key.addresses[source];
    route.source_port = key.ports[source];
    route.destination = key.addresses[source ^ 1];
    route.destination_port = key.ports[source ^ 1];
    route.protocol = key.protocol;
    route.v6 = s.headers.v6;
    ctx.route(route) && route.ifindex == ctx.ifindex()
}

/// Makes the packet in `s.inner` one between the ends in `s.route`, a hop further on that way.
#[inline(never)]
fn send<C: Context>(ctx: C, s: &Scratch) -> Outcome {
    let (before, route) = (&s.inner, &s.route);
    let (to, from) = (&route.destination, &route.source);
    if rewrite(ctx, before, Which::Destination, to, route.destination_port)
        && rewrite(ctx, before, Which::Source, from, route.source_port)
        && hop(ctx, s)
    {
        Outcome::turn_back(Reason::FastPath)
    } else {
        Outcome::drop(Reason::RewriteFailed)
    }
}

/// What a router does to every packet: to the next machine, with one hop less (RFC 1812 section 5.3.1, RFC 8200 section 3).
#[inline(always)]
fn hop<C: Context>(ctx: C, s: &Scratch) -> bool {
    if !ctx.store(0, MacAddress(s.route.to)) || !ctx.store(6, MacAddress(s.route.from)) {
        return false;
    }
    if s.inner.v6 == 1 {
        let at = ETHERNET + 7;
        return ctx
            .load::<u8>(at)
            .is_some_and(|hops| ctx.store(at, hops.wrapping_sub(1)));
    }
    // With the protocol the TTL is one of the words that the checksum is over.
    let (at, checksum_at) = (ETHERNET + 8, ETHERNET + 10);
    let (Some(old), Some(checksum)) = (ctx.load::<u16>(at), ctx.load::<u16>(checksum_at)) else {
        return false;
    };
    let new = u16::from_be(old).wrapping_sub(0x100).to_be();
    ctx.store(at, new) && ctx.store(checksum_at, replace(checksum, difference16(old, new)))
}
