//! Sockets whose system calls go through the socket logic.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use weir_common::abi::{
    Address, Affinity, AffinityKey, BackendState, Frontend, FrontendKey, Pair, Pairs, Slot,
    SourceKey,
};
use weir_common::logic::{self, Answer, Services, Socket};

use super::tables::Simulator;

/// Cookie of the simulated node's network namespace.
const NODE_NETNS: u64 = 7;

/// A socket on a simulated node.
pub struct SimulatedSocket<'s> {
    simulator: &'s Simulator,
    protocol: u8,
    netns: u64,
    /// What the agent told the programs.
    node_netns: u64,
    serves_pods: bool,
    /// Whether the kernel has memory for what the socket is to remember.
    pub memory: bool,
    /// The random number of the next calls.
    pub random: u32,
    /// The time of the next calls, in nanoseconds.
    pub time: u64,
    connected: bool,
    noted: Cell<Option<Pair>>,
    address: (Address, u16),
    pairs: Option<Pairs>,
}

impl<'s> SimulatedSocket<'s> {
    /// A socket of a process of the node.
    #[must_use]
    pub fn of_node(simulator: &'s Simulator, protocol: u8) -> Self {
        Self {
            simulator,
            protocol,
            netns: NODE_NETNS,
            node_netns: NODE_NETNS,
            serves_pods: false,
            memory: true,
            random: 0,
            time: 0,
            connected: false,
            noted: Cell::new(None),
            address: (Address::UNSPECIFIED, 0),
            pairs: None,
        }
    }

    /// A socket in a pod, which is served or not.
    #[must_use]
    pub fn of_pod(simulator: &'s Simulator, protocol: u8, served: bool) -> Self {
        Self {
            netns: NODE_NETNS + 1,
            serves_pods: served,
            ..Self::of_node(simulator, protocol)
        }
    }

    /// The same on a kernel that does not tell cookies.
    #[must_use]
    pub fn without_cookie(self) -> Self {
        Self {
            node_netns: 0,
            ..self
        }
    }

    /// What the agent could find: where the socket was connected to last.
    #[must_use]
    pub fn noted(&self) -> Option<Pair> {
        self.noted.get()
    }

    /// Ends the socket, so that the node can change; gives what it remembers.
    #[must_use]
    pub fn close(self) -> Option<Pairs> {
        self.pairs
    }

    /// The same socket again, on the node as it is by now.
    #[must_use]
    pub fn remembering(self, pairs: Option<Pairs>) -> Self {
        Self { pairs, ..self }
    }

    /// `connect`: where to, or the error.
    pub fn connect(&mut self, to: SocketAddr) -> Result<SocketAddr, Answer> {
        let connected = self.call(to, logic::connect);
        self.connected = connected.is_ok();
        connected
    }

    /// `sendto`: where to, or the error.
    pub fn send(&mut self, to: SocketAddr) -> Result<SocketAddr, Answer> {
        self.call(to, logic::send)
    }

    /// `recvfrom` or `getpeername`: who it is, as the process is told.
    pub fn told(&mut self, from: SocketAddr) -> SocketAddr {
        let told = self.call(from, |socket| {
            logic::restore(socket);
            Answer::Pass
        });
        told.unwrap_or(from)
    }

    fn call(
        &mut self,
        address: SocketAddr,
        logic: impl FnOnce(&mut Self) -> Answer,
    ) -> Result<SocketAddr, Answer> {
        self.address = (address.ip().into(), address.port());
        match logic(self) {
            Answer::Pass => Ok(SocketAddr::new(self.address.0.into(), self.address.1)),
            answer => Err(answer),
        }
    }
}

/// The address that an IPv6 socket has for an IPv4 one.
#[must_use]
pub fn mapped(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(ip.into(), address.port())
}

impl Services for SimulatedSocket<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.simulator.maps.frontend(key)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.simulator.maps.slot(index)
    }

    fn backend(&self, id: u32) -> Option<BackendState> {
        Some(self.simulator.maps.backend(id))
    }

    fn admits(&self, key: &SourceKey) -> bool {
        self.simulator.maps.admits(key)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.simulator.affinities.borrow().get(key).copied()
    }

    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        let mut affinities = self.simulator.affinities.borrow_mut();
        affinities.insert(*key, *affinity);
    }
}

impl Socket for SimulatedSocket<'_> {
    fn address(&self) -> (Address, u16) {
        self.address
    }

    fn set_address(&mut self, address: &Address, port: u16) {
        assert_eq!(
            address.is_v4(),
            self.address.0.is_v4(),
            "an address of another family"
        );
        self.address = (*address, port);
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn is_connected(&self) -> bool {
        self.connected
    }

    fn netns(&self) -> u64 {
        self.netns
    }

    fn node_netns(&self) -> u64 {
        self.node_netns
    }

    fn serves_pods(&self) -> bool {
        self.serves_pods
    }

    fn random(&self) -> u32 {
        self.random
    }

    fn time(&self) -> u64 {
        self.time
    }

    fn pairs(&mut self) -> Option<&mut Pairs> {
        self.pairs.as_mut()
    }

    fn make_pairs(&mut self) -> Option<&mut Pairs> {
        if !self.memory {
            return None;
        }
        Some(self.pairs.get_or_insert_default())
    }

    fn note_connected(&self, pair: &Pair) {
        self.noted.set(Some(*pair));
    }
}
