//! The kernel side of the agent: loads and pins programs and maps, attaches them, carries out plans, reads back.

mod adopt;
mod attach;
mod bpf;
mod clsact;
mod control;
mod error;
mod events;
mod flow_table;
mod kernel;
mod object;
mod others;
mod packet_log;
mod pins;
mod probe;
mod shapes;
mod sock_diag;
mod sockets;
mod write;
mod xdp;

pub use crate::model::AttachMode;
pub use bpf::TestRun;
pub use control::StrayedWord;
pub use error::{Error, Result};
pub use events::EventReader;
pub use flow_table::{FlowTable, FlowWalk};
pub use kernel::{Floor, Judge, KernelDatapath, Options, RunOutput, cleanup};
pub use object::is_embedded;
pub use others::{Attached, Holder, OnSockets, Programs};
pub use packet_log::PacketLog;
pub use pins::{USUAL_MOUNT, mount_bpffs};
pub use probe::{Feature, NETNS_COOKIE, probe};
pub use sockets::SocketOptions;
pub use xdp::XdpState;
