//! A server that answers with who it is and whom it saw.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::server::{Server, Service, is_timeout};
use super::{Echo, Message};
use crate::netns::Place;

/// Answers every message on a TCP and a UDP port, IPv4 and IPv6, until it is dropped.
///
/// Drop it before the topology: its threads are in the namespace and the cgroup.
#[derive(Debug)]
pub struct EchoServer {
    _server: Server,
}

impl EchoServer {
    /// Listens on `port` of all addresses of `place` and answers as `identity`.
    pub fn start(place: &impl AsRef<Place>, identity: &str, port: u16) -> Result<Self> {
        Self::start_on(
            place,
            identity,
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        )
    }

    /// Listens on one address only.
    pub fn start_on(
        place: &impl AsRef<Place>,
        identity: &str,
        address: SocketAddr,
    ) -> Result<Self> {
        let server = Server::start(place.as_ref(), address, Identity(identity.to_owned()))?;
        Ok(Self { _server: server })
    }
}

struct Identity(String);

impl Identity {
    fn answer(&self, message: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        let Message { number } = serde_json::from_slice(message).ok()?;
        serde_json::to_vec(&Echo {
            number,
            identity: self.0.clone(),
            source,
        })
        .ok()
    }
}

impl Service for Identity {
    fn datagram(&self, datagram: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
        self.answer(datagram, peer)
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            // What was read of a line before a time-out stays in `line`.
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(error),
            }
            let Some(mut answer) = self.answer(&line, peer) else {
                break;
            };
            answer.push(b'\n');
            writer.write_all(&answer)?;
            line.clear();
        }
        Ok(())
    }
}
