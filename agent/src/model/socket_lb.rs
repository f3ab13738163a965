//! Whose sockets are served.

use std::fmt;
use std::str::FromStr;

/// Whose connections to Services are translated in the socket, when a process names the address (`--socket-lb`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketLb {
    /// Those of the node's own network: its processes and host-network pods, whose packets pass no pod's device.
    #[default]
    Host,
    /// Pods', too, where that gives what the packet path gives.
    All,
    /// Nobody's.
    None,
}

impl fmt::Display for SocketLb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::All => "all",
            Self::None => "none",
        })
    }
}

impl FromStr for SocketLb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => Ok(Self::Host),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            other => Err(format!("`{other}` is none of host, all, none")),
        }
    }
}
