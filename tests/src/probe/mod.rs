//! Plain-socket clients and servers, run inside namespaces, that know nothing of what a test expects.

mod client;
mod dns;
mod echo;
mod load;
mod mirror;
mod server;
mod stream;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use client::{Outcome, Probe, Protocol, eventually};
pub use dns::{Answer, DnsServer, Query, Records};
pub use echo::EchoServer;
pub use load::{Connections, Load, LoadReport, connections};
pub use mirror::Mirror;
pub use stream::{Report, Stream, StreamOptions};

/// What a client sends: one line of JSON in TCP, one datagram in UDP.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// Numbers the messages of a connection, so that a late answer is not taken for a new one.
    number: u64,
}

/// What an echo server answers, in the same framing.
#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    /// The number of the message that this answers.
    number: u64,
    /// Who the server is.
    identity: String,
    /// The client, as the server sees it.
    source: SocketAddr,
}
