//! Ethernet frames made from a description, with right checksums.

use std::net::IpAddr;

use crc::{CRC_32_ISCSI, Crc};
use weir_common::logic::protocol;

/// TCP flag bits.
pub mod tcp {
    /// No more data from this side.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Gives up.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// A packet to be.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// What is in it.
    pub content: Content,
    /// Bytes of IPv4 options (multiple of 4, at most 40), or of an IPv6 hop-by-hop header (multiple of 8).
    pub options: usize,
    /// Identification, offset in units of eight bytes, and whether more follow.
    pub fragment: Option<(u32, u16, bool)>,
    /// Time to live, or hop limit.
    pub hops: u8,
}

/// Transport header and payload; payloads are lengths in bytes where their content does not matter.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the headers")]
pub enum Content {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
        payload: usize,
    },
    /// Without `checksum` the field is zero (IPv4 only).
    Udp {
        source: u16,
        destination: u16,
        payload: usize,
        checksum: bool,
    },
    Sctp {
        source: u16,
        destination: u16,
        payload: usize,
    },
    /// ICMP or ICMPv6, with the rest of the header.
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
        payload: Vec<u8>,
    },
    Other {
        protocol: u8,
        payload: usize,
    },
}

impl Packet {
    /// A whole packet without options.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, content: Content) -> Self {
        Self {
            source,
            destination,
            content,
            options: 0,
            fragment: None,
            hops: 64,
        }
    }

    /// The bytes, with made-up MAC addresses.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (number, transport) = self.transport();
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let header = 20 + self.options;
                let (id, offset, more) = self.fragment.unwrap_or((0, 0, false));
                let mut ip = vec![0x40 | (header / 4) as u8, 0];
                ip.extend(((header + transport.len()) as u16).to_be_bytes());
                ip.extend((id as u16).to_be_bytes());
                ip.extend((offset | u16::from(more) << 13).to_be_bytes());
                ip.extend([self.hops, number, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                // No-operation options.
                ip.extend(vec![1; self.options]);
                let checksum = checksum(0, &ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                let mut next = number;
                let mut extensions = Vec::new();
                if let Some((id, offset, more)) = self.fragment {
                    extensions = vec![next, 0];
                    extensions.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    extensions.extend(id.to_be_bytes());
                    next = protocol::FRAGMENT;
                }
                if self.options > 0 {
                    let mut hop_by_hop = vec![next, (self.options / 8 - 1) as u8];
                    // PadN over the rest.
                    hop_by_hop.extend([1, (self.options - 4) as u8]);
                    hop_by_hop.extend(vec![0; self.options - 4]);
                    hop_by_hop.extend(extensions);
                    extensions = hop_by_hop;
                    next = protocol::HOP_BY_HOP;
                }
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((extensions.len() + transport.len()) as u16).to_be_bytes());
                frame.extend([next, self.hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(extensions);
            }
            _ => unreachable!("both addresses are of one family"),
        }
        frame.extend(transport);
        frame
    }

    /// Protocol number and bytes behind the IP header; a later fragment has no transport header.
    fn transport(&self) -> (u8, Vec<u8>) {
        let later = self.fragment.is_some_and(|(_, offset, _)| offset > 0);
        let (number, mut bytes, checksum_at) = match &self.content {
            Content::Tcp {
                source,
                destination,
                flags,
                payload,
            } => {
                let mut tcp = ports(*source, *destination);
                tcp.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, *flags, 1, 0, 0, 0, 0, 0]);
                tcp.extend(filler(*payload));
                (protocol::TCP, tcp, Some(16))
            }
            Content::Udp {
                source,
                destination,
                payload,
                checksum,
            } => {
                let mut udp = ports(*source, *destination);
                udp.extend((8 + *payload as u16).to_be_bytes());
                udp.extend([0, 0]);
                udp.extend(filler(*payload));
                (protocol::UDP, udp, checksum.then_some(6))
            }
            Content::Sctp {
                source,
                destination,
                payload,
            } => {
                let mut sctp = ports(*source, *destination);
                sctp.extend([0; 8]);
                sctp.extend(filler(*payload));
                set_sctp_checksum(&mut sctp);
                (protocol::SCTP, sctp, None)
            }
            Content::Icmp {
                kind,
                code,
                rest,
                payload,
            } => {
                let mut icmp = vec![*kind, *code, 0, 0];
                icmp.extend(rest.to_be_bytes());
                icmp.extend(payload);
                (
                    if self.source.is_ipv4() {
                        protocol::ICMP
                    } else {
                        protocol::ICMPV6
                    },
                    icmp,
                    Some(2),
                )
            }
            Content::Other { protocol, payload } => (*protocol, filler(*payload), None),
        };
        if later {
            return (number, filler(32));
        }
        if let Some(at) = checksum_at {
            let pseudo = if number == protocol::ICMP {
                0
            } else {
                pseudo_header(self.source, self.destination, number, bytes.len())
            };
            let checksum = match checksum(pseudo, &bytes) {
                0 if number == protocol::UDP => 0xffff,
                checksum => checksum,
            };
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        (number, bytes)
    }
}

/// RFC 9260 section 6.8.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Makes the checksum right of an SCTP packet without its IP header.
pub fn set_sctp_checksum(sctp: &mut [u8]) {
    if sctp.len() >= 12 {
        sctp[8..12].fill(0);
        let checksum = CRC32C.checksum(sctp);
        sctp[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn filler(length: usize) -> Vec<u8> {
    (0..length).map(|i| i as u8).collect()
}

/// Sum of the pseudo header (RFC 768, RFC 8200 section 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, number: u8, length: usize) -> u64 {
    let words = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    words(source) + words(destination) + u64::from(number) + length as u64
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| {
            u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum()
}

fn checksum(start: u64, bytes: &[u8]) -> u16 {
    let mut sum = start + sum(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is wrong with a frame's checksums, if anything; frames that cannot be read, and fragments, have nothing to check but
/// their IPv4 header.
#[must_use]
pub fn checksum_error(frame: &[u8]) -> Option<String> {
    let (source, destination, mut next, mut at): (IpAddr, IpAddr, u8, usize) =
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let ip = frame.get(14..34)?;
                let header = usize::from(ip[0] & 0xf) * 4;
                if checksum(0, frame.get(14..14 + header)?) != 0 {
                    return Some("IPv4 header".to_owned());
                }
                if u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
                    return None;
                }
                let v4 = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 4]>::try_from(&ip[at..at + 4]).ok()?.into())
                };
                (v4(12)?, v4(16)?, ip[9], 14 + header)
            }
            [0x86, 0xdd] => {
                let ip = frame.get(14..54)?;
                let v6 = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 16]>::try_from(&ip[at..at + 16]).ok()?.into())
                };
                (v6(8)?, v6(24)?, ip[6], 54)
            }
            _ => return None,
        };
    while next == protocol::HOP_BY_HOP || next == protocol::DESTINATION {
        let extension = frame.get(at..at + 2)?;
        next = extension[0];
        at += (usize::from(extension[1]) + 1) * 8;
    }
    let transport = frame.get(at..)?;
    let pseudo = match next {
        protocol::ICMP => 0,
        protocol::UDP if transport.get(6..8)? == [0, 0] => return None,
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
            pseudo_header(source, destination, next, transport.len())
        }
        protocol::SCTP if transport.get(8..12)? == [0; 4] => return None,
        protocol::SCTP => {
            let mut right = transport.to_vec();
            set_sctp_checksum(&mut right);
            return (transport != right).then(|| "SCTP".to_owned());
        }
        _ => return None,
    };
    (checksum(pseudo, transport) != 0).then(|| format!("protocol {next}"))
}

/// The packet that the other end would answer with: ends swapped, TCP flags those of an answer.
#[must_use]
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let (addresses, size, transport, number) = match frame.get(12..14)? {
        [0x08, 0x00] => (
            26,
            4,
            14 + usize::from(frame.get(14)? & 0xf) * 4,
            *frame.get(23)?,
        ),
        [0x86, 0xdd] => (22, 16, 54, *frame.get(20)?),
        _ => return None,
    };
    for i in 0..size {
        frame.swap(addresses + i, addresses + size + i);
    }
    for i in 0..6 {
        frame.swap(i, 6 + i);
    }
    if frame.len() < transport + 8 {
        return None;
    }
    match number {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            frame.swap(transport, transport + 2);
            frame.swap(transport + 1, transport + 3);
            if number == protocol::SCTP {
                set_sctp_checksum(frame.get_mut(transport..)?);
            }
        }
        _ => {}
    }
    if number == protocol::TCP {
        let flags = *frame.get(transport + 13)?;
        let answer = if flags & tcp::SYN != 0 && flags & tcp::ACK == 0 {
            tcp::SYN | tcp::ACK
        } else {
            tcp::ACK
        };
        set_tcp_flags(&mut frame, transport, answer);
    }
    Some(frame)
}

/// Sets the flags of the TCP header at `transport`, and corrects the checksum.
pub fn set_tcp_flags(frame: &mut [u8], transport: usize, flags: u8) {
    if frame.len() < transport + 20 {
        return;
    }
    let old = frame[transport + 13];
    frame[transport + 13] = flags;
    let checksum = u16::from_be_bytes([frame[transport + 16], frame[transport + 17]]);
    let mut sum = u32::from(!checksum) + u32::from(flags) + u32::from(!u16::from(old));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[transport + 16..transport + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
