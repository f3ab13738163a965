//! A DNS server for a few names, and the client for it: what a cluster's DNS looks like to the network.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord,
    SimpleDnsError, TYPE,
};

use super::client::{Outcome, Probe, Protocol, outcome_of};
use super::server::{Server, Service, is_timeout};
use crate::netns::Place;

/// Seconds that answers may be kept.
const TTL: u32 = 5;

/// The names a server knows, without a final dot, in lower case.
pub type Records = BTreeMap<String, Vec<IpAddr>>;

/// Answers A and AAAA queries by UDP and TCP, IPv4 and IPv6, until it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    _server: Server,
}

impl DnsServer {
    /// Listens on `port` of all addresses of `place`.
    pub fn start(place: &impl AsRef<Place>, port: u16, records: Records) -> Result<Self> {
        Self::start_on(
            place,
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            records,
        )
    }

    /// Listens on one address only, and answers from it: on a machine of several addresses the kernel would choose another one
    /// for datagrams.
    pub fn start_on(
        place: &impl AsRef<Place>,
        address: SocketAddr,
        records: Records,
    ) -> Result<Self> {
        Ok(Self {
            _server: Server::start(place.as_ref(), address, Zone(records))?,
        })
    }
}

struct Zone(Records);

impl Zone {
    fn answer(&self, query: &[u8]) -> Result<Vec<u8>, SimpleDnsError> {
        let query = Packet::parse(query)?;
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        for question in query.questions {
            let name = question.qname.to_string().to_ascii_lowercase();
            match self.0.get(&name) {
                None => *reply.rcode_mut() = RCODE::NameError,
                Some(addresses) => {
                    let records = addresses
                        .iter()
                        .map(|&address| record(question.qname.clone(), address));
                    reply
                        .answers
                        .extend(records.filter(|record| record.match_qtype(question.qtype)));
                }
            }
            reply.questions.push(question);
        }
        reply.build_bytes_vec_compressed()
    }
}

fn record(name: Name<'_>, address: IpAddr) -> ResourceRecord<'_> {
    let data = match address {
        IpAddr::V4(address) => RData::A(A::from(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA::from(address)),
    };
    ResourceRecord::new(name, CLASS::IN, TTL, data)
}

impl Service for Zone {
    fn datagram(&self, datagram: &[u8], _peer: SocketAddr) -> Option<Vec<u8>> {
        // What is no query gets no answer.
        self.answer(datagram).ok()
    }

    fn connection(
        &self,
        mut stream: TcpStream,
        _peer: SocketAddr,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let query = match read_message(&mut stream, stop) {
                Ok(query) => query,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            };
            let answer = self.answer(&query).map_err(io::Error::other)?;
            stream.write_all(&framed(&answer)?)?;
        }
        Ok(())
    }
}

/// A question to a DNS server.
#[derive(Clone, Debug)]
pub struct Query {
    /// The server, and how to speak to it.
    pub probe: Probe,
    /// The name to look up, without a final dot.
    pub name: String,
    /// Whether to ask for AAAA instead of A.
    pub ipv6: bool,
}

/// What came of a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The addresses, in the order of the answer; none when the name has none of that family.
    Addresses(Vec<IpAddr>),
    /// The server knows no such name (NXDOMAIN).
    NoSuchName,
    /// No answer, and why.
    None(Outcome),
}

impl Query {
    /// Asks from `place`.
    #[must_use]
    pub fn run(&self, place: &impl AsRef<Place>) -> Answer {
        place.as_ref().run(|| {
            self.ask()
                .unwrap_or_else(|error| Answer::None(outcome_of(&error)))
        })
    }

    fn ask(&self) -> io::Result<Answer> {
        let id = 0x5765;
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        let kind = QTYPE::TYPE(if self.ipv6 { TYPE::AAAA } else { TYPE::A });
        let name = Name::new(&self.name).map_err(io::Error::other)?;
        query
            .questions
            .push(Question::new(name, kind, QCLASS::CLASS(CLASS::IN), false));
        let query = query.build_bytes_vec().map_err(io::Error::other)?;
        let reply = match self.probe.protocol {
            Protocol::Tcp => {
                let mut stream = self.probe.connect()?;
                stream.write_all(&framed(&query)?)?;
                read_message(&mut stream, &AtomicBool::new(true))?
            }
            Protocol::Udp | Protocol::UdpUnconnected => self.probe.ask_datagram(&query)?,
        };
        let reply = Packet::parse(&reply).map_err(io::Error::other)?;
        if reply.id() != id {
            return Err(io::Error::other("the answer is to another question"));
        }
        match reply.rcode() {
            RCODE::NoError => Ok(Answer::Addresses(
                reply.answers.iter().filter_map(address).collect(),
            )),
            RCODE::NameError => Ok(Answer::NoSuchName),
            other => Err(io::Error::other(format!("the server says {other:?}"))),
        }
    }
}

fn address(record: &ResourceRecord<'_>) -> Option<IpAddr> {
    match &record.rdata {
        RData::A(a) => Some(std::net::Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    }
}

/// A message as TCP carries it, after its length (RFC 1035 4.2.2).
fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), message].concat())
}

/// The next message of a TCP stream. Time-outs end the wait once `stop` is set.
fn read_message(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_full(stream, &mut length, stop)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    read_full(stream, &mut message, stop)?;
    Ok(message)
}

fn read_full(stream: &mut TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if is_timeout(&error) && !stop.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
