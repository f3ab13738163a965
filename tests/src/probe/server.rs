//! The loop that all servers share: a socket of each transport, a thread each, stopped together.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Place;
use crate::process::Sole;

/// How long a server takes to see that it should stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Connections waiting to be accepted, at most.
const BACKLOG: i32 = 1024;

/// The largest datagram there is.
pub(super) const DATAGRAM: usize = 65_535;

/// What a server does with its clients; one value serves them all.
pub(super) trait Service: Send + Sync + 'static {
    /// The answer to a datagram, or none.
    fn datagram(&self, datagram: &[u8], peer: SocketAddr) -> Option<Vec<u8>>;

    /// Serves one connection to its end. Reads end early with a time-out, so that it can look at `stop`.
    fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) -> io::Result<()>;
}

/// A running server; it closes its sockets and connections when dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` with TCP and UDP inside `place`; `[::]` takes IPv4 clients too.
    pub(super) fn start(place: &Place, address: SocketAddr, service: impl Service) -> Result<Self> {
        let (listener, socket) = place
            .run(|| -> io::Result<_> {
                Ok((Sole::new(listen(address)?), Sole::new(bind(address)?)))
            })
            .with_context(|| format!("listen on {address} in {}", place.name()))?;
        let service = Arc::new(service);
        let mut server = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (stop, tcp_service) = (Arc::clone(&server.stop), Arc::clone(&service));
        server
            .threads
            .push(place.spawn(move || accept(&listener, &*tcp_service, &stop))?);
        let stop = Arc::clone(&server.stop);
        server
            .threads
            .push(place.spawn(move || receive(&socket, &*service, &stop))?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !thread::panicking() {
                panic!("a probe server panicked");
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A server that returns after a restart must not wait for the old one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // Linux ends a waiting accept after the receive time-out too.
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn accept(listener: &TcpListener, service: &impl Service, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    scope.spawn(move || serve(stream, peer, service, stop));
                }
                Err(error) if is_timeout(&error) => {}
                // The client gave up while it waited: nothing to serve.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => panic!("accept: {error}"),
            }
        }
    });
}

/// Clients come and go as tests please, so the end of a connection is never an error here.
fn serve(stream: TcpStream, peer: SocketAddr, service: &impl Service, stop: &AtomicBool) {
    let ready = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_nodelay(true));
    let _ = ready.and_then(|()| service.connection(stream, canonical(peer), stop));
}

fn receive(socket: &UdpSocket, service: &impl Service, stop: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                if let Some(answer) = service.datagram(&buffer[..length], canonical(peer)) {
                    // A client that cannot be answered sees it by the missing answer.
                    let _ = socket.send_to(&answer, peer);
                }
            }
            Err(error) if is_timeout(&error) => {}
            // An earlier answer was refused; the socket goes on.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("receive: {error}"),
        }
    }
}

/// Whether a read ended because its time was over.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    // Interrupted: the same for the caller, who looks whether to stop and reads again.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A dual-stack socket shows IPv4 peers as mapped addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
