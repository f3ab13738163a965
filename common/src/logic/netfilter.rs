//! Connections to Services that netfilter translates: they were opened before Weir served here, and stay netfilter's to their end.
//!
//! Their packets pass as they are, but are judged as what netfilter makes of them: policy knows clients and backends.

use super::conntrack::is_syn;
use super::context::{Context, Scratch, Tuple};
use super::parse::Headers;
use super::wire::protocol;
use crate::abi::{BACKEND_SIDE, FlowRef, control};

/// Makes the judged tuple, which is between a client and a Service and has the entry `front`, the one between client and backend,
/// in the same direction, and gives the entry there.
#[inline(always)]
pub(super) fn behind<C: Context>(ctx: C, s: &mut Scratch, front: FlowRef) -> Option<FlowRef> {
    aim(s, front);
    let flow = ctx.flow(&s.judged.key)?;
    (flow.flags() & BACKEND_SIDE != 0).then_some(flow)
}

#[inline(never)]
fn aim(s: &mut Scratch, front: FlowRef) -> u32 {
    let (client, client_port) = front.source();
    let (backend, port) = front.nat();
    let protocol = s.judged.key.protocol;
    s.judged = if front.opener() == s.judged.source() {
        Tuple::new(&client, client_port, &backend, port, protocol)
    } else {
        Tuple::new(&backend, port, &client, client_port, protocol)
    };
    0
}

/// Whether the packet may belong to a connection that is about to be entered. It is sent again, and then it is known whose it is.
#[inline(always)]
pub(super) fn is_early<C: Context>(ctx: C, h: &Headers) -> bool {
    h.protocol == protocol::TCP && !is_syn(h) && ctx.control(control::TAKING_OVER) != 0
}
