//! Connections that others track.

use std::net::IpAddr;

/// Source and destination of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
}

/// A connection that netfilter tracks and may translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What its opener sends, before any translation.
    pub asked: Ends,
    /// What the other end sends, before any translation.
    pub answered: Ends,
}

impl Connection {
    /// Whether its opener means another destination than the one that answers.
    #[must_use]
    pub fn is_redirected(&self) -> bool {
        (self.asked.destination, self.asked.destination_port)
            != (self.answered.source, self.answered.source_port)
    }
}
