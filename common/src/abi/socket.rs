//! What a socket remembers of the Services that its process named.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Entries of map `connected`: cookies of the node's connected UDP sockets, with their pairs. Those of ended sockets are evicted.
pub const CONNECTED: u32 = 16_384;

/// A Service address that a process named, and the backend that the kernel was given instead.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Pair {
    /// Virtual address of the Service.
    pub service: Address,
    /// Address of the endpoint.
    pub backend: Address,
    /// Service port.
    pub service_port: u16,
    /// Port of the endpoint.
    pub backend_port: u16,
    /// Index of the endpoint's [`super::BackendState`].
    pub id: u32,
    /// Fingerprint that the state must carry.
    pub fingerprint: u32,
}

/// The newest pairs of a socket, newest first: value of socket storage `socket`. A connected socket needs one; one that sends
/// datagrams to several Services, or to one whose backends change, needs more to tell whom an answer is from.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Pairs {
    /// Unused ones are all zero.
    pub pairs: [Pair; 4],
}

impl Pairs {
    /// The newest pair of a Service address.
    #[inline(always)]
    #[must_use]
    pub fn to_service(&self, address: &Address, port: u16) -> Option<&Pair> {
        self.pairs
            .iter()
            .find(|pair| pair.service_port == port && pair.service == *address)
    }

    /// The newest pair with a backend.
    #[inline(always)]
    #[must_use]
    pub fn with_backend(&self, address: &Address, port: u16) -> Option<&Pair> {
        self.pairs
            .iter()
            .find(|pair| pair.backend_port == port && pair.backend == *address)
    }

    /// Puts a pair in front of the others; the oldest one goes.
    #[inline(always)]
    pub fn push(&mut self, pair: Pair) {
        let [first, second, third, _] = self.pairs;
        self.pairs = [pair, first, second, third];
    }

    /// Forgets the pairs with a backend that the process named itself.
    #[inline(always)]
    pub fn forget_backend(&mut self, address: &Address, port: u16) {
        for pair in &mut self.pairs {
            if pair.backend_port == port && pair.backend == *address {
                *pair = Pair::default();
            }
        }
    }
}
