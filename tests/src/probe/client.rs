//! One exchange with a server, and what came of it.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::net::connect_unspec;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::server::{DATAGRAM, is_timeout};
use super::{Echo, Message};
use crate::netns::Place;
use crate::process::Sole;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP from a connected socket, as most programs do: the kernel drops answers from other addresses.
    Udp,
    /// UDP by `sendto` and `recvfrom`, as DNS resolvers do; an answer from another address is an error.
    UdpUnconnected,
}

/// What came of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered.
    Connected {
        /// Who answered.
        identity: String,
        /// The client's address and port, as the server sees them.
        source: SocketAddr,
    },
    /// Nobody listens there (TCP reset in answer to SYN, ICMP port unreachable).
    Refused,
    /// A connection was reset after it was made.
    Reset,
    /// No route, or a router said so (ICMP unreachable).
    Unreachable,
    /// A local rule or a router forbids it (EPERM, EACCES).
    Prohibited,
    /// Nothing came back in time.
    Timeout,
    /// The TCP connection was made, and then no answer came in time.
    NoAnswer,
    /// Something else, as the system calls it.
    Failed(String),
}

impl Outcome {
    /// The server that answered, if one did.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        match self {
            Self::Connected { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// The client's address, as the server saw it.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Connected { source, .. } => Some(*source),
            _ => None,
        }
    }
}

/// An exchange to make: one message, one answer.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// How to speak.
    pub protocol: Protocol,
    /// Whom to speak to.
    pub to: SocketAddr,
    /// The local address; the kernel chooses what is left out, and the port if that is 0.
    pub from: Option<SocketAddr>,
    /// The longest wait, for connecting and for the answer each.
    pub timeout: Duration,
}

impl Probe {
    /// A TCP exchange with a time-out of one second.
    #[must_use]
    pub fn tcp(to: SocketAddr) -> Self {
        Self {
            protocol: Protocol::Tcp,
            to,
            from: None,
            timeout: Duration::from_secs(1),
        }
    }

    /// The same by UDP, from a connected socket.
    #[must_use]
    pub fn udp(to: SocketAddr) -> Self {
        Self {
            protocol: Protocol::Udp,
            ..Self::tcp(to)
        }
    }

    /// The same with another protocol.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The same with another time-out.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same from that address.
    #[must_use]
    pub fn from(self, from: SocketAddr) -> Self {
        Self {
            from: Some(from),
            ..self
        }
    }

    /// Makes the exchange from `place`.
    #[must_use]
    pub fn run(self, place: &impl AsRef<Place>) -> Outcome {
        place.as_ref().run(|| self.exchange())
    }

    /// Makes the exchange from the calling thread's namespace: for many, on one thread.
    pub fn exchange(self) -> Outcome {
        let echo = match self.protocol {
            Protocol::Tcp => match self.connect() {
                Ok(stream) => self
                    .ask_tcp(stream)
                    .map_err(|error| match outcome_of(&error) {
                        Outcome::Timeout => Outcome::NoAnswer,
                        outcome => outcome,
                    }),
                Err(error) => Err(match outcome_of(&error) {
                    // Before the connection is made, a reset is the answer to the SYN.
                    Outcome::Reset => Outcome::Refused,
                    outcome => outcome,
                }),
            },
            Protocol::Udp | Protocol::UdpUnconnected => {
                self.ask_udp().map_err(|error| outcome_of(&error))
            }
        };
        match echo {
            Ok(Echo {
                identity, source, ..
            }) => Outcome::Connected { identity, source },
            Err(outcome) => outcome,
        }
    }

    /// Makes a TCP connection whose reads end with a time-out.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM)?;
        socket.connect_timeout(&self.to.into(), self.timeout)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    /// Makes a connected UDP socket whose reads end with a time-out.
    pub(super) fn connect_udp(&self) -> io::Result<UdpSocket> {
        let socket = self.socket(Type::DGRAM)?;
        socket.connect(&self.to.into())?;
        socket.set_read_timeout(Some(self.timeout))?;
        Ok(socket.into())
    }

    fn socket(&self, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.to), kind, None)?;
        if let Some(from) = self.from {
            // A test that names a port may use it again at once.
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        Ok(socket)
    }

    fn ask_tcp(&self, stream: TcpStream) -> io::Result<Echo> {
        let stream = Sole::new(stream);
        (&*stream).write_all(&line(&Message { number: 0 })?)?;
        let mut answer = String::new();
        if BufReader::new(&*stream).read_line(&mut answer)? == 0 {
            return Err(io::Error::other(
                "the server closed the connection without an answer",
            ));
        }
        if self.from.is_some() {
            // Not to wait in TIME-WAIT, with a port that the test wants to use again.
            connect_unspec(&*stream)?;
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn ask_udp(&self) -> io::Result<Echo> {
        let answer = self.ask_datagram(&serde_json::to_vec(&Message { number: 0 })?)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Sends one datagram and gives the one that answers it.
    pub(super) fn ask_datagram(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; DATAGRAM];
        let length = if self.protocol == Protocol::UdpUnconnected {
            let socket = Sole::new(UdpSocket::from(self.socket(Type::DGRAM)?));
            socket.set_read_timeout(Some(self.timeout))?;
            socket.send_to(message, self.to)?;
            let (length, peer) = socket.recv_from(&mut buffer)?;
            if peer != self.to {
                return Err(io::Error::other(format!(
                    "asked {} and was answered by {peer}",
                    self.to
                )));
            }
            length
        } else {
            let socket = Sole::new(self.connect_udp()?);
            socket.send(message)?;
            socket.recv(&mut buffer)?
        };
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Tries `probe` until its outcome is the one that `wanted` waits for, and gives the last outcome.
///
/// For what a system may take a moment to do; the caller asserts on the outcome. Tries once more at the deadline.
#[must_use]
pub fn eventually(
    limit: Duration,
    probe: impl Fn() -> Outcome,
    wanted: impl Fn(&Outcome) -> bool,
) -> Outcome {
    let deadline = Instant::now() + limit;
    loop {
        let late = Instant::now() >= deadline;
        let outcome = probe();
        if late || wanted(&outcome) {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One message as a line.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    if is_timeout(error) {
        return Outcome::Timeout;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Outcome::Reset,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
        ErrorKind::PermissionDenied => Outcome::Prohibited,
        _ if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => Outcome::Unreachable,
        _ => Outcome::Failed(error.to_string()),
    }
}
