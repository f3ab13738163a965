//! The first packet of a connection, and where it is looked at.

use std::net::IpAddr;

/// IP protocol numbers (IANA) that policies or tests name.
pub mod protocol {
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Generic Routing Encapsulation, a protocol that no policy can name.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// The first packet of a connection as one node sees it: the destination is already the chosen
/// endpoint, the source not yet translated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Address of whoever opened the connection.
    pub source: IpAddr,
    /// Address of the endpoint.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port at the endpoint; 0 for protocols without ports.
    pub destination_port: u16,
    /// Name of the node that judges.
    pub observer_node: String,
    /// The packet was sent by the host's network namespace of `observer_node` (the kubelet, a
    /// host-network pod), not forwarded by it.
    pub born_on_node: bool,
}

/// Whether an ICMPv6 message keeps the link itself alive and so passes whatever policies say:
/// multicast listener reports (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861).
///
/// `message` is the ICMP type. Such packets are not flows: ask this before asking for a verdict.
pub fn beneath_policy(protocol: u8, message: u8) -> bool {
    protocol == protocol::ICMPV6 && matches!(message, 130..=132 | 133..=137 | 143)
}
