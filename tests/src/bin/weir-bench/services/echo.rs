//! A server that costs as little as one can: one thread, one client at a time, one byte for one byte.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_tests::netns::Place;

/// How long it waits for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running server; ends with this value.
pub(super) struct Server {
    place: Place,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a TCP port of all addresses of `place`.
    pub(super) fn start(place: &Place, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = place
            .run(|| TcpListener::bind(address))
            .with_context(|| format!("listen on {address}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = place.spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away is its own affair: it counts what it got.
                let _ = stream.and_then(serve);
            }
        })?;
        Ok(Self {
            place: place.clone(),
            address: SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let address = self.address;
        let woken = self.place.run(|| TcpStream::connect(address)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// Says [`LAST`] to ask for an answer and the end, which then comes from the server, so that the client's port is free at once.
pub(super) const LAST: u8 = b'.';
/// Asks for an answer.
pub(super) const NEXT: u8 = b'?';

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
        if byte[0] == LAST {
            break;
        }
    }
    Ok(())
}
