//! Agents on nodes of network namespaces: what clients in pods see, on every way of wiring pods and of attaching programs.
//!
//! Needs root and an agent with its kernel programs inside (`WEIR_BINARY`); says SKIP otherwise.

// xtask: threads=2 minutes=40 soak

#[path = "nodes/asked.rs"]
mod asked;
#[path = "nodes/audit.rs"]
mod audit;
#[path = "nodes/bad_input.rs"]
mod bad_input;
#[path = "nodes/carriers.rs"]
mod carriers;
#[path = "nodes/choice.rs"]
mod choice;
#[path = "nodes/cni.rs"]
mod cni;
#[path = "nodes/connections.rs"]
mod connections;
#[path = "nodes/dns.rs"]
mod dns;
#[path = "nodes/ends.rs"]
mod ends;
#[path = "nodes/established.rs"]
mod established;
#[path = "nodes/external.rs"]
mod external;
#[path = "nodes/fixture.rs"]
mod fixture;
#[path = "nodes/followed.rs"]
mod followed;
#[path = "nodes/foreign_sources.rs"]
mod foreign_sources;
#[path = "nodes/fragments.rs"]
mod fragments;
#[path = "nodes/host.rs"]
mod host;
#[path = "nodes/hubble.rs"]
mod hubble;
#[path = "nodes/isolation.rs"]
mod isolation;
#[path = "nodes/judged.rs"]
mod judged;
#[path = "nodes/lifecycle.rs"]
mod lifecycle;
#[path = "nodes/overlay.rs"]
mod overlay;
#[path = "nodes/path_mtu.rs"]
mod path_mtu;
#[path = "nodes/policies.rs"]
mod policies;
#[path = "nodes/raw.rs"]
mod raw;
#[path = "nodes/removed.rs"]
mod removed;
#[path = "nodes/restarts.rs"]
mod restarts;
#[path = "nodes/room.rs"]
mod room;
#[path = "nodes/sctp.rs"]
mod sctp;
#[path = "nodes/services.rs"]
mod services;
#[path = "nodes/sockets.rs"]
mod sockets;
#[path = "nodes/top.rs"]
mod top;
