//! New connections and long-lived ones at once, for tests that restart something underneath.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Probe, Report, Stream, StreamOptions};
use crate::netns::Place;

/// A lost SYN is sent again after a second, so what takes less has lost no packet.
const PROMPT: Duration = Duration::from_millis(950);

/// How long a new connection may take: enough to see a slow one come through.
const LIMIT: Duration = Duration::from_secs(5);

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
            self.slowest < PROMPT,
            "a packet of a new connection was lost: {self:?}"
        );
        Ok(())
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
    /// Starts one long-lived connection and a sequence of new ones to each target, from `place`.
    pub fn start(place: &impl AsRef<Place>, targets: &[(&str, Probe)]) -> Result<Self> {
        let mut load = Self {
            stop: Arc::default(),
            streams: Vec::new(),
            connections: Vec::new(),
        };
        load.add(place, targets)?;
        Ok(load)
    }

    /// The same from another place.
    pub fn add(&mut self, place: &impl AsRef<Place>, targets: &[(&str, Probe)]) -> Result<()> {
        for (name, probe) in targets {
            let stream = Stream::start(place, *probe, StreamOptions::default())?;
            self.streams.push(((*name).to_owned(), stream));
            let (stop, probe) = (Arc::clone(&self.stop), probe.timeout(LIMIT));
            let thread = place.as_ref().spawn(move || {
                let mut connections = Connections::default();
                while !stop.load(Ordering::Relaxed) {
                    connections.note(probe);
                    thread::sleep(PAUSE);
                }
                connections
            })?;
            self.connections.push(((*name).to_owned(), thread));
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
        let mut connections = Connections::default();
        for _ in 0..count {
            connections.note(Probe::tcp(to));
            if !connections.failed.is_empty() {
                break;
            }
        }
        connections
    })
}
