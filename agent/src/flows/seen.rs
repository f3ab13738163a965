//! Who uses what.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{ObjectName, Protocol};

/// Connections that were let through, as they are after translation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Who opened them.
    pub from: SeenEnd,
    /// Who took them.
    pub to: SeenEnd,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the end that took them.
    pub port: u16,
    /// How many.
    pub connections: usize,
}

/// An end of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenEnd {
    /// Address.
    pub address: IpAddr,
    /// The pod that had it then; `None` for the one that has it now, if any.
    pub pod: Option<ObjectName>,
}
