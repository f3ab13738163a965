//! Packet decisions, written once.
//!
//! Everything here is generic over a [`Context`]: in the kernel that is the `__sk_buff` and the BPF maps, in tests a byte vector
//! and ordinary maps. Nothing here allocates, panics or loops without a small constant bound. Functions that must not be inlined
//! (the verifier allows 512 bytes of stack over a chain of calls) keep their data in [`Scratch`] and return plain integers.

mod affinity;
mod checksum;
mod conntrack;
mod context;
mod crc32c;
mod entry;
mod fast;
mod fragment;
mod from_net;
mod from_pod;
mod icmp;
mod known;
mod masquerade;
mod netfilter;
mod outcome;
mod parse;
mod policy;
mod receive;
mod reject;
mod rewrite;
mod service;
mod socket;
mod to_net;
mod to_pod;
mod wire;

pub use checksum::{difference, fold, replace};
pub use conntrack::{is_closing, overdue, timeout_seconds};
pub use context::{
    Context, Env, Maps, Packet, Route, Routes, Scratch, Services, Tuple, nanoseconds,
};
pub use crc32c::crc32c_effect;
pub use fast::xdp_net;
pub use from_net::from_net;
pub use from_pod::from_pod;
pub use outcome::Outcome;
pub use parse::Headers;
pub use service::{HAIRPIN_V4, HAIRPIN_V6, refusal};
pub use socket::{Answer, Socket, connect, restore, send};
pub use to_net::to_net;
pub use to_pod::to_pod;
pub use wire::protocol;
