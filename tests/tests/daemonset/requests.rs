//! Clients that ask a web server for its name, until they are told to stop.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use weir_tests::netns::Place;

/// Long enough for packets that are sent again.
const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
/// How often a load balancer asks nodes whether they have endpoints.
const CHECK: Duration = Duration::from_millis(500);

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Anew for each request, to the addresses in turn.
    New,
    /// Once; again, to the next address, when the server ends the connection.
    Kept,
    /// Anew, to those of the addresses where `health` says yes.
    Balanced {
        /// The Service's healthCheckNodePort.
        health: u16,
    },
}

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Tally {
    kind: Kind,
    to: Vec<SocketAddr>,
    /// Requests by who answered.
    pub(crate) answered: BTreeMap<String, u64>,
    /// Requests without an answer.
    failed: Vec<String>,
    /// Connections that ended between two requests.
    pub(crate) closed: usize,
}

impl Tally {
    pub(crate) fn summary(&self) -> String {
        let made: u64 = self.answered.values().sum();
        format!(
            "{:?} to {:?}: {made} requests to {} servers, {} failed {:?}, {} connections ended",
            self.kind,
            self.to,
            self.answered.len(),
            self.failed.len(),
            self.failed.iter().take(5).collect::<Vec<_>>(),
            self.closed
        )
    }

    /// Checks that there were many requests, and that all were answered.
    pub(crate) fn ensure_answered(&self) -> Result<()> {
        let made: u64 = self.answered.values().sum();
        ensure!(made > 100 && self.failed.is_empty(), "{}", self.summary());
        Ok(())
    }
}

/// A client at work.
#[derive(Debug)]
pub(crate) struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Requests {
    /// Starts a client in `place`.
    pub(crate) fn start(place: &Place, kind: Kind, to: Vec<SocketAddr>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = place.spawn(move || {
            let mut client = Client::new(kind, to);
            while !flag.load(Ordering::Relaxed) {
                client.ask();
                thread::sleep(PAUSE);
            }
            client.tally
        })?;
        Ok(Self { stop, thread })
    }

    /// One request from `place`.
    pub(crate) fn once(place: &Place, to: SocketAddr) -> Result<()> {
        place.run(|| Connection::open(to)?.get("/hostname").map(drop))?;
        Ok(())
    }

    /// Stops it.
    pub(crate) fn finish(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let tally = self.thread.join();
        tally.map_err(|_| anyhow!("a client panicked"))
    }
}

struct Client {
    tally: Tally,
    turn: usize,
    kept: Option<Connection>,
    healthy: Vec<SocketAddr>,
    checked: Option<Instant>,
}

impl Client {
    fn new(kind: Kind, to: Vec<SocketAddr>) -> Self {
        Self {
            healthy: to.clone(),
            tally: Tally {
                kind,
                to,
                answered: BTreeMap::new(),
                failed: Vec::new(),
                closed: 0,
            },
            turn: 0,
            kept: None,
            checked: None,
        }
    }

    fn ask(&mut self) {
        match self.request() {
            Ok(name) => *self.tally.answered.entry(name).or_default() += 1,
            Err(error) => self.tally.failed.push(format!("{error:#}")),
        }
    }

    fn request(&mut self) -> Result<String> {
        if let Kind::Balanced { health } = self.tally.kind
            && self.checked.is_none_or(|last| last.elapsed() > CHECK)
        {
            self.check(health);
        }
        if let Some(mut kept) = self.kept.take() {
            match kept.get("/hostname") {
                Ok(name) => {
                    self.kept = Some(kept);
                    return Ok(name);
                }
                // An idempotent request that meets the end of its connection is sent again (RFC 9112 section 9.3.1).
                Err(error) if is_end(&error) => self.tally.closed += 1,
                Err(error) => bail!("kept, {}: {error}", kept.to),
            }
        }
        self.turn += 1;
        let Some(&to) = self.healthy.get(self.turn % self.healthy.len().max(1)) else {
            bail!("no node is healthy");
        };
        let answer = Connection::open(to)
            .and_then(|mut connection| Ok((connection.get("/hostname")?, connection)));
        let (name, connection) = answer.map_err(|error| anyhow!("{to}: {error}"))?;
        if matches!(self.tally.kind, Kind::Kept) {
            self.kept = Some(connection);
        }
        Ok(name)
    }

    fn check(&mut self, health: u16) {
        let is_healthy = |to: &&SocketAddr| {
            let check = SocketAddr::new(to.ip(), health);
            Connection::open(check)
                .and_then(|mut connection| connection.get("/"))
                .is_ok()
        };
        self.healthy = self.tally.to.iter().filter(is_healthy).copied().collect();
        self.checked = Some(Instant::now());
    }
}

/// A connection to a web server.
struct Connection {
    to: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let stream = BufReader::new(stream);
        Ok(Self { to, stream })
    }

    /// The text at `path`; an error for any other status than 200.
    fn get(&mut self, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.to);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let mut length = 0;
        loop {
            let header = self.line()?.to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if status.split(' ').nth(1) != Some("200") {
            return Err(io::Error::other(status));
        }
        String::from_utf8(body).map_err(io::Error::other)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Whether the peer has ended the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
