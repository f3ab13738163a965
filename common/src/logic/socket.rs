//! Services for sockets: a destination is translated once, when a process names it, instead of in every packet.
//!
//! The node's own processes have no packet path to a Service: their packets pass no pod's device. Pods have one; for them this
//! is a shortcut, taken only where it gives what the packet path gives.

use super::affinity::{remembered, set_for};
use super::context::Services;
use super::service::{find, is_nobodys, pick, refusal, state_of};
use super::wire::protocol;
use crate::abi::{
    AFFINITY, Address, Affinity, AffinityKey, BACKEND_DRAINING, Frontend, NODE_OUTSIDE, Pair,
    Pairs, SOURCE_RANGES, Slot,
};
use crate::reason::Reason;

/// A socket in a system call that names an address, or is told one.
pub trait Socket: Services {
    /// The address and port in the call: the one that the process named, or that it is about to be told.
    fn address(&self) -> (Address, u16);
    /// Puts others in their place, of the same family.
    fn set_address(&mut self, address: &Address, port: u16);
    /// IP protocol number.
    fn protocol(&self) -> u8;
    /// Whether it is connected.
    fn is_connected(&self) -> bool;
    /// Cookie of the socket's network namespace.
    fn netns(&self) -> u64;
    /// Cookie of the node's network namespace; 0 where it is not known.
    fn node_netns(&self) -> u64;
    /// Whether sockets of other namespaces, pods', are served too.
    fn serves_pods(&self) -> bool;
    /// A random number.
    fn random(&self) -> u32;
    /// CLOCK_MONOTONIC in nanoseconds.
    fn time(&self) -> u64;
    /// What the socket remembers, if it remembers anything.
    fn pairs(&mut self) -> Option<&mut Pairs>;
    /// The same, made where there is none; `None` if the kernel has no memory for it.
    fn make_pairs(&mut self) -> Option<&mut Pairs>;
    /// Notes where a UDP socket is being connected to, for the agent to find it when the backend goes.
    fn note_connected(&self, pair: &Pair);
}

/// What becomes of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes on, with the address that the socket has by now.
    Pass,
    /// ECONNREFUSED: what a reset or an ICMP port unreachable comes to.
    Refuse,
    /// EPERM: what a rule that drops a process's own packets gives its sender.
    Forbid,
}

/// `connect`, of TCP and UDP.
#[inline(always)]
pub fn connect<S: Socket>(socket: &mut S) -> Answer {
    match client(socket) {
        Some(client) => translate(socket, client, false),
        None => Answer::Pass,
    }
}

/// `sendto` and `sendmsg` with an address, of UDP: datagrams to a Service go where the last one went while that backend serves.
#[inline(always)]
pub fn send<S: Socket>(socket: &mut S) -> Answer {
    let Some(client) = client(socket) else {
        return Answer::Pass;
    };
    let (address, port) = socket.address();
    let last = socket
        .pairs()
        .and_then(|pairs| pairs.to_service(&address, port).copied());
    if let Some(pair) = last
        && state_of(socket, pair.id, pair.fingerprint) >= BACKEND_DRAINING
    {
        socket.set_address(&pair.backend, pair.backend_port);
        return Answer::Pass;
    }
    translate(socket, client, true)
}

/// `getpeername`, and `recvfrom` and `recvmsg` of UDP: what comes from a backend comes from the Service that was named.
#[inline(always)]
pub fn restore<S: Socket>(socket: &mut S) {
    let (address, port) = socket.address();
    let pair = socket
        .pairs()
        .and_then(|pairs| pairs.with_backend(&address, port).copied());
    if let Some(pair) = pair {
        socket.set_address(&pair.service, pair.service_port);
    }
}

/// Whose socket it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Node,
    Pod,
}

/// Whose socket it is, if it is served.
///
/// Of pods only TCP is. A UDP flow has to leave a backend that is gone, which a connected socket never does and the packet path
/// does with the next datagram.
#[inline(always)]
fn client<S: Socket>(socket: &S) -> Option<Client> {
    let protocol = socket.protocol();
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return None;
    }
    let node = socket.node_netns();
    if node != 0 && socket.netns() == node {
        return Some(Client::Node);
    }
    (socket.serves_pods() && protocol == protocol::TCP).then_some(Client::Pod)
}

/// A backend: the one that the node had before if the Service wants that, else one at random.
#[inline(always)]
fn select<S: Socket>(socket: &S, frontend: &Frontend, address: &Address) -> Option<Slot> {
    let any = || {
        let index = pick(socket.random(), frontend.internal_count);
        socket.slot(frontend.internal_base.wrapping_add(index))
    };
    if frontend.flags & AFFINITY == 0 {
        return any();
    }
    // Which address the socket will have is not decided yet; all that it can have are the node's.
    let key = AffinityKey {
        service: frontend.service,
        client: address.nobody(),
    };
    let last = socket.time();
    let set = set_for(frontend, false);
    let slot = match remembered(socket, &key, set, frontend.affinity_seconds, last) {
        Some(known) => known.slot,
        None => any()?,
    };
    socket.remember(&key, &Affinity { last, slot });
    Some(slot)
}

#[inline(always)]
fn translate<S: Socket>(socket: &mut S, client: Client, datagram: bool) -> Answer {
    let (address, port) = socket.address();
    let protocol = socket.protocol();
    let Some(frontend) = find(socket, &address, port, protocol) else {
        // Its answers come from where the process thinks they do. Not so where the kernel names the backend: it does, in `send` on
        // a connected IPv6 socket whose peer has an IPv4 address.
        if !(datagram && socket.is_connected())
            && let Some(pairs) = socket.pairs()
        {
            pairs.forget_backend(&address, port);
        }
        // As with a port that a Service does not have, below.
        let asks_only = protocol == protocol::UDP && !datagram;
        return if client == Client::Node && !asks_only && is_nobodys(socket, &address) {
            Answer::Forbid
        } else {
            Answer::Pass
        };
    };
    let refusal = refusal(&frontend, false);
    if client == Client::Pod
        && (refusal.is_some()
            || frontend.flags & (AFFINITY | SOURCE_RANGES) != 0
            || address.is_loopback())
    {
        // The packet path counts and reports refusals, and knows a client by its address. Loopback addresses are each pod's own.
        return Answer::Pass;
    }
    if client == Client::Node && frontend.flags & NODE_OUTSIDE != 0 {
        return Answer::Forbid;
    }
    match refusal {
        None => {}
        // Resolvers connect a UDP socket to any port of an address only to learn the source address (RFC 6724).
        Some(Reason::NoServicePort) if protocol == protocol::UDP && !datagram => {
            return Answer::Pass;
        }
        Some(Reason::NoLocalEndpoint) => return Answer::Forbid,
        Some(_) => return Answer::Refuse,
    }
    let Some(slot) = select(socket, &frontend, &address) else {
        return Answer::Forbid;
    };
    let pair = Pair {
        service: address,
        backend: slot.address,
        service_port: port,
        backend_port: slot.port,
        id: slot.backend,
        fingerprint: slot.fingerprint,
    };
    // Without memory for it the connection works all the same; only the name of its peer is the backend's.
    if let Some(pairs) = socket.make_pairs() {
        pairs.push(pair);
    }
    if protocol == protocol::UDP && !datagram {
        socket.note_connected(&pair);
    }
    socket.set_address(&slot.address, slot.port);
    Answer::Pass
}
