//! Bytes that a server sends back as they are, for packets of every size.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::client::{Probe, Protocol};
use super::server::{Server, Service, is_timeout};
use crate::netns::Place;
use crate::process::Sole;

/// Sends back what it gets on a TCP and a UDP port, IPv4 and IPv6, until it is dropped.
///
/// Drop it before the topology: its threads are in the namespace and the cgroup.
#[derive(Debug)]
pub struct Mirror {
    _server: Server,
}

impl Mirror {
    /// Listens on `port` of all addresses of `place`.
    pub fn start(place: &impl AsRef<Place>, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let server = Server::start(place.as_ref(), address, Reflection)?;
        Ok(Self { _server: server })
    }
}

struct Reflection;

impl Service for Reflection {
    fn datagram(&self, datagram: &[u8], _peer: SocketAddr) -> Option<Vec<u8>> {
        Some(datagram.to_vec())
    }

    fn connection(
        &self,
        mut stream: TcpStream,
        _peer: SocketAddr,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while !stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => stream.write_all(&buffer[..length])?,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Probe {
    /// Sends `length` bytes from `place` to a [`Mirror`], over TCP as fast as it goes, over UDP as one datagram.
    ///
    /// # Errors
    /// Other bytes came back, or not all in time.
    pub fn transfer(self, place: &impl AsRef<Place>, length: u32) -> Result<()> {
        // The upper bits of a product with an odd factor differ from byte to byte and repeat nowhere near.
        let sent: Vec<_> = (0..length)
            .map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()[0])
            .collect();
        let received = place.as_ref().run(|| match self.protocol {
            Protocol::Tcp => self.stream(&sent),
            Protocol::Udp | Protocol::UdpUnconnected => self.ask_datagram(&sent),
        });
        let received = received.with_context(|| format!("transfer {length} bytes: {self:?}"))?;
        ensure!(
            received == sent,
            "{self:?}: {} of {length} bytes came back, the first {} of them right",
            received.len(),
            received
                .iter()
                .zip(&sent)
                .take_while(|(got, sent)| got == sent)
                .count()
        );
        Ok(())
    }

    fn stream(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let stream = Sole::new(self.connect()?);
        stream.set_write_timeout(Some(self.timeout))?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (&*stream).write_all(bytes)?;
                stream.shutdown(Shutdown::Write)
            });
            let mut received = Vec::new();
            (&*stream).read_to_end(&mut received)?;
            writer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(received)
        })
    }
}
