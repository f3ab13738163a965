//! Which device of the node leads to which local pod, from what the kernel's routing netlink tells. Links, routes, neighbours and
//! bridge tables are read in the process's own network namespace; pods' namespaces are never entered.

mod delete;
mod details;
mod dump;
pub mod netfilter;
mod nets;
mod questions;
mod resolve;
mod table;
mod watch;

pub use delete::delete;
pub use details::{Details, Peer, Tunnel, XdpMode, details};
pub use dump::{first_veth, links};
pub use resolve::{Local, Owners, Question, Resolution, resolve};
pub use table::{Family, Link, LinkKind, LinkTable, Mac, Neighbour};
pub use watch::watch;

/// Failure of the link to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel refused to tell.
    #[error("cannot list {what}: {source}")]
    List {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The kernel refused to remove a device.
    #[error(
        "cannot remove device {name}: {source}; it takes CAP_NET_ADMIN in the node's network namespace"
    )]
    Delete {
        /// Which.
        name: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The socket broke.
    #[error("the netlink connection ended: start again")]
    Ended,
}
