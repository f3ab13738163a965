//! From a frontend to a backend.

use super::affinity::{remembered, set_for};
use super::conntrack::{is_live, is_over, is_syn};
use super::context::{Context, Scratch, Services, Tuple};
use super::netfilter::is_early;
use super::parse::Headers;
use super::wire::{protocol, tcp};
use crate::abi::{
    AFFINITY, Address, AffinityKey, BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_GONE, BACKEND_SIDE,
    BackendState, DROP_EXTERNAL, DROP_INTERNAL, EXTERNAL, FRONTEND_SIDE, FlowRef, Frontend,
    FrontendKey, NAT, NETFILTER, NODE_PORT, SERVICES_ONLY, SHARED, SOURCE_RANGES, Slot, SourceKey,
    WILDCARD, control,
};
use crate::reason::Reason;

/// Source address, as the pod sees it, of a connection that a pod makes to itself through a Service.
pub const HAIRPIN_V4: Address =
    Address::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 42, 1]);
/// The same for IPv6: an address of a unique local prefix (RFC 4193) of Weir's own.
pub const HAIRPIN_V6: Address = Address::from_bytes([
    0xfd, 0x57, 0x65, 0x69, 0x72, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
]);

/// Backends, and then ports, tried before giving up on one whose tuple is free.
const TRIES: u32 = 4;
/// Ports that stand in for a client's own. Kernels give none of them to a connection by themselves (`ip_local_port_range`).
const STAND_INS: [u32; 2] = [61_000, 65_535];

/// Not addressed to a Service.
pub(super) const NOT_A_SERVICE: u32 = 0;
/// `s.slot` and `s.judged` hold the backend.
pub(super) const TRANSLATED: u32 = 1;
/// `s.slot` holds the backend, which is the client itself.
pub(super) const TO_ITSELF: u32 = 2;
/// `s.slot` holds the backend that it should be, but the client's port is taken there.
const TAKEN: u32 = 3;
// Any other result is the number of the reason to drop or reject.

/// Address that stands for the client in a hairpin.
#[inline(always)]
pub(super) fn hairpin_address(v6: bool) -> Address {
    if v6 { HAIRPIN_V6 } else { HAIRPIN_V4 }
}

/// Finds where the packet in `s.headers` goes if it is addressed to a Service: to the backend that its flow has, else to the one
/// that its client had before if the Service wants that, else to one at random.
#[inline(always)]
pub(super) fn translate<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let kept = keep(ctx, s);
    if kept != NOT_A_SERVICE {
        return kept;
    }
    s.source_port = s.headers.source_port;
    let found = seek(ctx, s);
    if found != TRANSLATED {
        return found;
    }
    let mut result = NOT_A_SERVICE;
    if s.frontend.flags & AFFINITY != 0 {
        result = select_again(ctx, s);
    }
    if result == NOT_A_SERVICE {
        result = select(ctx, s);
    }
    if result == TAKEN {
        result = stand_in(ctx, s);
    }
    result
}

/// Finds the frontend that the packet is addressed to: `TRANSLATED` if `s.frontend` has backends for it.
#[inline(never)]
fn seek<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let h = &s.headers;
    let port = if h.has_ports() { h.destination_port } else { 0 };
    let Some(frontend) = find(&ctx, &h.destination, port, h.protocol) else {
        // Uplinks carry much that is none of Services' business: there, only what may open a connection is looked up once more.
        return if !(s.external != 0 && goes_on(h)) && is_nobodys(&ctx, &h.destination) {
            Reason::NoService as u32
        } else {
            NOT_A_SERVICE
        };
    };
    if s.external != 0 && frontend.flags & NODE_PORT != 0 && goes_on(h) {
        return NOT_A_SERVICE;
    }
    if is_early(ctx, h) {
        return Reason::TakingOver as u32;
    }
    if frontend.flags & SOURCE_RANGES != 0
        && !ctx.admits(&SourceKey::client(frontend.service, h.source))
    {
        return Reason::SourceRange as u32;
    }
    s.frontend = frontend;
    s.service = frontend.service;
    refusal(&frontend, s.external != 0).map_or(TRANSLATED, |reason| reason as u32)
}

/// Whether an address that has no frontend is for Services. Routed on, it would go round between a node and its router.
#[inline(always)]
pub(super) fn is_nobodys<M: Services>(maps: &M, address: &Address) -> bool {
    maps.admits(&SourceKey::client(SERVICES_ONLY, *address))
}

/// Whether the packet belongs to a connection that exists already: on the node's own address that is one of the node's, or of
/// somebody who borrows the address (k/k#33723).
#[inline(always)]
fn goes_on(h: &Headers) -> bool {
    h.protocol == protocol::TCP && !is_syn(h)
}

/// Whether the backend in `s.slot` is the client itself. Only a pod's packets are turned around, at its own device.
#[inline(always)]
fn leads_where(s: &Scratch) -> u32 {
    if s.external == 0 && s.slot.address == s.headers.source {
        TO_ITSELF
    } else {
        TRANSLATED
    }
}

/// The frontend at an address and port; where no Service port claims the port (0 is none), the wildcard of the address.
#[inline(always)]
pub(super) fn find<M: Services>(
    maps: &M,
    address: &Address,
    port: u16,
    protocol: u8,
) -> Option<Frontend> {
    let key = FrontendKey {
        address: *address,
        port,
        protocol,
        reserved: 0,
    };
    if port != 0
        && let Some(frontend) = maps.frontend(&key)
    {
        return Some(frontend);
    }
    let mut rest = key;
    rest.port = 0;
    rest.protocol = 0;
    let wildcard = maps.frontend(&rest)?;
    // The Service may have come between the two lookups: the agent writes its ports before the wildcard.
    let claimed = if port == 0 { None } else { maps.frontend(&key) };
    Some(claimed.unwrap_or(wildcard))
}

/// First slot and length of the set for clients outside the cluster, or inside.
#[inline(always)]
const fn set_of(frontend: &Frontend, external: bool) -> (u32, u32) {
    if external {
        (frontend.external_base, frontend.external_count)
    } else {
        (frontend.internal_base, frontend.internal_count)
    }
}

/// Why a frontend leads clients outside the cluster, or inside, nowhere, if it does not.
#[inline(always)]
#[must_use]
pub fn refusal(frontend: &Frontend, external: bool) -> Option<Reason> {
    let drop = if external {
        DROP_EXTERNAL
    } else {
        DROP_INTERNAL
    };
    if frontend.flags & WILDCARD != 0 {
        Some(Reason::NoServicePort)
    } else if set_of(frontend, external).1 != 0 {
        None
    } else if frontend.flags & drop != 0 {
        Some(Reason::NoLocalEndpoint)
    } else {
        Some(Reason::NoEndpoint)
    }
}

/// One of `count`: maps [0, 2^32) to [0, count) without a division.
#[inline(always)]
pub(super) fn pick(random: u32, count: u32) -> u32 {
    ((u64::from(random) * u64::from(count)) >> 32) as u32
}

/// State of the backend with an id, if that still is the one with this fingerprint.
#[inline(always)]
pub(super) fn state_of<M: Services>(maps: &M, backend: u32, fingerprint: u32) -> u16 {
    match maps.backend(backend) {
        Some(BackendState {
            fingerprint: theirs,
            state,
            ..
        }) if theirs == fingerprint => state,
        _ => BACKEND_GONE,
    }
}

/// Keeps the backend of the flow that the packet belongs to, if it still may; `NOT_A_SERVICE` if it has none or must leave it.
#[inline(never)]
fn keep<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let Some(flow) = ctx.flow(&s.tuple.key) else {
        return NOT_A_SERVICE;
    };
    if flow.flags() & (FRONTEND_SIDE | EXTERNAL | NETFILTER) != FRONTEND_SIDE | external_flag(s) {
        return NOT_A_SERVICE;
    }
    let (backend, fingerprint) = flow.backend();
    let fate = fate(ctx, backend, fingerprint, &s.headers);
    if fate == LEFT {
        return NOT_A_SERVICE;
    }
    let (address, port) = flow.nat();
    s.service = flow.service();
    s.slot = Slot {
        address,
        port,
        flags: 0,
        backend,
        fingerprint,
        reserved: 0,
    };
    s.source_port = client_port(s, flow);
    aim(s, address, port);
    // The entry behind has seen both directions: it knows whether the connection lives. Where it was evicted, what the client
    // sent must do.
    let known = match ctx.flow(&s.judged.key) {
        Some(behind) if is_ours(behind, s) => behind,
        Some(_) if clashes(ctx, s) => return NOT_A_SERVICE,
        _ => flow,
    };
    if !is_live(ctx, known, s.headers.protocol, ctx.now()) || (is_syn(&s.headers) && is_over(known))
    {
        return NOT_A_SERVICE;
    }
    if fate == CUT {
        return Reason::BackendGone as u32;
    }
    leads_where(s)
}

/// Whether a backend-side entry belongs to the frontend that the packet is addressed to.
#[inline(always)]
pub(super) fn is_ours(flow: FlowRef, s: &Scratch) -> bool {
    flow.flags() & (NAT | EXTERNAL) == NAT | external_flag(s)
        && flow.nat() == (s.headers.destination, s.headers.destination_port)
        && (s.external != 0 || flow.source_port() == own_port(s))
}

/// The port that the backend of a frontend-side entry sees as its client's, whose packet is in `s.headers`.
#[inline(always)]
pub(super) fn client_port(s: &Scratch, front: FlowRef) -> u16 {
    let stand_in = front.source_port();
    if s.external != 0 || stand_in == 0 {
        s.headers.source_port
    } else {
        stand_in
    }
}

/// The client's own port if `s.source_port` stands in for it, else 0.
#[inline(always)]
pub(super) const fn own_port(s: &Scratch) -> u16 {
    if s.source_port == s.headers.source_port {
        0
    } else {
        s.headers.source_port
    }
}

/// The flag that entries of the packet's kind of client have.
#[inline(always)]
pub(super) const fn external_flag(s: &Scratch) -> u16 {
    if s.external == 0 { 0 } else { EXTERNAL }
}

/// The flow goes on.
const SERVED: u32 = 0;
/// It selects another backend.
const LEFT: u32 = 1;
/// It is reset.
const CUT: u32 = 2;

/// What becomes of a flow with a backend. TCP keeps its backend whatever became of it, unless the operator wants connections to one
/// that is gone reset, but opens no connection to one that takes none; UDP moves on as soon as its backend does not serve, as kube-proxy
/// makes it do (`CleanStaleEntries`).
#[inline(always)]
fn fate<C: Context>(ctx: C, backend: u32, fingerprint: u32, headers: &Headers) -> u32 {
    let state = state_of(&ctx, backend, fingerprint);
    if state == BACKEND_ACTIVE {
        return SERVED;
    }
    if headers.protocol != protocol::TCP {
        return if state == BACKEND_DRAINING {
            SERVED
        } else {
            LEFT
        };
    }
    if is_syn(headers) {
        return LEFT;
    }
    if state != BACKEND_GONE {
        return SERVED;
    }
    // A client that was reset says so to a backend that goes on sending.
    if headers.tcp_flags & tcp::RST != 0 || ctx.control(control::RESET_GONE) == 0 {
        return SERVED;
    }
    CUT
}

/// Whether a backend may go on serving a flow.
#[inline(always)]
pub(super) fn is_served<C: Context>(
    ctx: C,
    backend: u32,
    fingerprint: u32,
    headers: &Headers,
) -> bool {
    fate(ctx, backend, fingerprint, headers) == SERVED
}

/// The backend that the packet's client had before; `NOT_A_SERVICE` if it has none or must leave it.
#[inline(never)]
fn select_again<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    s.client = AffinityKey {
        service: s.service,
        client: s.headers.source,
    };
    let set = set_for(&s.frontend, s.external != 0);
    let seconds = s.frontend.affinity_seconds;
    let Some(known) = remembered(&ctx, &s.client, set, seconds, ctx.time()) else {
        return NOT_A_SERVICE;
    };
    s.slot = known.slot;
    aim(s, known.slot.address, known.slot.port);
    if clashes(ctx, s) {
        return if may_stand_in(s) {
            TAKEN
        } else {
            NOT_A_SERVICE
        };
    }
    selected(ctx, s)
}

/// A backend at random, or the next whose tuple is free; `TAKEN` if none is.
#[inline(never)]
fn select<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    let (base, count) = set_of(&s.frontend, s.external != 0);
    let mut index = pick(ctx.random(), count);
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let Some(slot) = ctx.slot(base.wrapping_add(index)) else {
            return Reason::Internal as u32;
        };
        s.slot = slot;
        aim(s, slot.address, slot.port);
        if !clashes(ctx, s) {
            return selected(ctx, s);
        }
        index = if index + 1 < count { index + 1 } else { 0 };
    }
    TAKEN
}

/// Whether another port may stand in for the client's. A client outside has its port from the node where it needs one.
#[inline(always)]
const fn may_stand_in(s: &Scratch) -> bool {
    s.external == 0
}

/// Finds another port for the client at the backend in `s.slot`: its own is taken there by a connection through another frontend.
#[inline(never)]
fn stand_in<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    if !may_stand_in(s) {
        return Reason::TupleClash as u32;
    }
    let (address, port) = (s.slot.address, s.slot.port);
    let [low, high] = STAND_INS;
    let mut candidate = low + pick(ctx.random(), high - low + 1);
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        s.source_port = candidate as u16;
        aim(s, address, port);
        if !clashes(ctx, s) {
            return selected(ctx, s);
        }
        candidate = if candidate < high { candidate + 1 } else { low };
    }
    Reason::TupleClash as u32
}

/// Notes the choice of `s.slot` for the client's next connections, if the Service wants that.
#[inline(never)]
fn selected<C: Context>(ctx: C, s: &mut Scratch) -> u32 {
    if s.frontend.flags & AFFINITY != 0 && !ctx.dry_run() {
        s.affinity.last = ctx.time();
        s.affinity.slot = s.slot;
        ctx.remember(&s.client, &s.affinity);
    }
    leads_where(s)
}

/// Sets the judged tuple to one with this destination and the client's port in `s.source_port`; a hairpin has the stand-in for the
/// client's address.
#[inline(always)]
fn aim(s: &mut Scratch, address: Address, port: u16) {
    let h = &s.headers;
    let source = if s.external == 0 && address == h.source {
        hairpin_address(h.v6 == 1)
    } else {
        h.source
    };
    s.judged = Tuple::new(&source, s.source_port, &address, port, h.protocol);
}

/// Whether the judged tuple is that of a live flow to another frontend (or to none), or of another port of the client.
#[inline(always)]
fn clashes<C: Context>(ctx: C, s: &Scratch) -> bool {
    let Some(flow) = ctx.flow(&s.judged.key) else {
        return false;
    };
    !is_ours(flow, s)
        && flow.flags() & (BACKEND_SIDE | SHARED) == BACKEND_SIDE
        && !is_over(flow)
        && is_live(ctx, flow, s.headers.protocol, ctx.now())
}
