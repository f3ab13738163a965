//! New connections and long-lived ones at once, for tests that restart something underneath.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Probe, Report, Stream, StreamOptions};
use crate::netns::Place;

/// The pause between new connections.
const PAUSE: Duration = Duration::from_millis(10);

/// Connections made one after the other.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// How many were answered, by who answered.
    pub answered: BTreeMap<String, u64>,
    /// What came of the others.
    pub failed: Vec<String>,
    /// The longest wait for an answer.
    pub slowest: Duration,
    /// How many SYNs the namespace of the client sent again meanwhile. Each stands for a packet that was lost.
    pub repeated: u64,
}

impl Connections {
    /// How many were answered.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Checks that there were some, that none failed, and that none had a packet sent again.
    pub fn ensure_unharmed(&self) -> Result<()> {
        ensure!(
            self.made() > 0 && self.failed.is_empty(),
            "new connections failed: {self:?}"
        );
        ensure!(
            self.repeated == 0,
            "a packet of a new connection was lost: {self:?}"
        );
        Ok(())
    }

    /// Makes connections from the calling thread's namespace until `more` has enough of them.
    fn make(probe: Probe, mut more: impl FnMut(&Self) -> bool) -> Self {
        let before = repeated_syns();
        let mut connections = Self::default();
        while more(&connections) {
            connections.note(probe);
        }
        match (before, repeated_syns()) {
            (Ok(before), Ok(after)) => connections.repeated = after - before,
            (Err(error), _) | (_, Err(error)) => connections.failed.push(format!("{error:#}")),
        }
        connections
    }

    fn note(&mut self, probe: Probe) {
        let start = Instant::now();
        let outcome = probe.exchange();
        self.slowest = self.slowest.max(start.elapsed());
        match outcome.identity() {
            Some(identity) => *self.answered.entry(identity.to_owned()).or_default() += 1,
            None => self
                .failed
                .push(format!("{:?} to {}: {outcome:?}", probe.protocol, probe.to)),
        }
    }
}

/// What a [`Load`] saw.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Long-lived connections, by what they were to.
    pub streams: Vec<(String, Report)>,
    /// New connections, by what they were to.
    pub connections: Vec<(String, Connections)>,
}

impl LoadReport {
    /// Checks that nothing was lost, refused, late or moved.
    pub fn ensure_unharmed(&self) -> Result<()> {
        for (name, report) in &self.streams {
            report
                .ensure_unharmed()
                .with_context(|| format!("the stream to {name}"))?;
        }
        for (name, connections) in &self.connections {
            connections
                .ensure_unharmed()
                .with_context(|| format!("new connections to {name}"))?;
        }
        Ok(())
    }
}

/// Connections that go on until [`Self::finish`].
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    streams: Vec<(String, Stream)>,
    connections: Vec<(String, JoinHandle<Connections>)>,
}

impl Load {
    /// How long a new connection may take: enough to see a slow one come through.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// Starts one long-lived connection and a sequence of new ones to each target, from `place`.
    pub fn start(place: &impl AsRef<Place>, targets: &[(impl AsRef<str>, Probe)]) -> Result<Self> {
        let mut load = Self {
            stop: Arc::default(),
            streams: Vec::new(),
            connections: Vec::new(),
        };
        load.add(place, targets)?;
        Ok(load)
    }

    /// The same from another place.
    pub fn add(
        &mut self,
        place: &impl AsRef<Place>,
        targets: &[(impl AsRef<str>, Probe)],
    ) -> Result<()> {
        for (name, probe) in targets {
            let stream = Stream::start(place, *probe, StreamOptions::default())?;
            self.streams.push((name.as_ref().to_owned(), stream));
            let (stop, probe) = (Arc::clone(&self.stop), probe.timeout(Self::LIMIT));
            let thread = place.as_ref().spawn(move || {
                Connections::make(probe, |_| {
                    thread::sleep(PAUSE);
                    !stop.load(Ordering::Relaxed)
                })
            })?;
            self.connections.push((name.as_ref().to_owned(), thread));
        }
        Ok(())
    }

    /// Ends it and tells what it saw.
    pub fn finish(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = LoadReport::default();
        for (name, stream) in self.streams.drain(..) {
            report.streams.push((name, stream.finish()?));
        }
        for (name, thread) in self.connections.drain(..) {
            let Ok(connections) = thread.join() else {
                bail!("the thread of new connections to {name} panicked");
            };
            report.connections.push((name, connections));
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (_, thread) in self.connections.drain(..) {
            // Dropped unfinished, so nobody asks what it saw.
            let _ = thread.join();
        }
    }
}

/// Makes `count` connections to `to` from `place`, one after the other, until one fails.
#[must_use]
pub fn connections(place: &impl AsRef<Place>, to: SocketAddr, count: u32) -> Connections {
    place.as_ref().run(|| {
        Connections::make(Probe::tcp(to), |made| {
            made.failed.is_empty() && made.made() < u64::from(count)
        })
    })
}

/// How many SYNs the calling thread's namespace has sent again since it was made.
fn repeated_syns() -> Result<u64> {
    let path = "/proc/thread-self/net/netstat";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    // Names in one line, values in the next, each after the same first word.
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = lines.next().zip(lines.next()).context(path)?;
    let mut fields = names.split_whitespace().zip(values.split_whitespace());
    let value = fields.find(|(name, _)| *name == "TCPSynRetrans");
    value.context(path)?.1.parse().context(path)
}
