//! Long-lived connections that count what they lose, for tests that restart something underneath.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::client::{Probe, Protocol, line};
use super::server::is_timeout;
use super::{Echo, Message};
use crate::netns::Place;

/// How a [`Stream`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// The pause between messages.
    pub interval: Duration,
    /// TCP: an answer that takes longer ends the stream with an error. UDP: an answer that takes longer is lost.
    pub stall: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(5),
            stall: Duration::from_secs(1),
        }
    }
}

/// What a stream has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages sent.
    pub sent: u64,
    /// Messages answered in time.
    pub answered: u64,
    /// Messages without an answer in time.
    pub lost: u64,
    /// The longest wait for an answer that came.
    pub slowest: Duration,
    /// Everyone who answered: more than one means that the flow moved.
    pub identities: BTreeSet<String>,
    /// Every address the servers saw: more than one means that a translation changed.
    pub sources: BTreeSet<SocketAddr>,
    /// The first error, and when; it ended a TCP stream.
    pub error: Option<String>,
}

impl Report {
    /// Checks that the stream ran, lost nothing, and stayed with one server and one source address.
    pub fn ensure_unharmed(&self) -> Result<()> {
        let steady = self.identities.len() == 1 && self.sources.len() == 1;
        if self.error.is_some() || self.lost > 0 || self.answered == 0 || !steady {
            bail!("a connection was harmed: {self:?}");
        }
        Ok(())
    }

    /// Keeps the first error.
    fn note<T>(&mut self, result: io::Result<T>) -> Option<T> {
        let sent = self.sent;
        let keep = |error| {
            self.error
                .get_or_insert_with(|| format!("after {sent} messages: {error}"));
        };
        result.map_err(keep).ok()
    }

    fn take(&mut self, echo: Echo, waited: Duration) {
        self.answered += 1;
        self.slowest = self.slowest.max(waited);
        self.identities.insert(echo.identity);
        self.sources.insert(echo.source);
    }
}

/// A connection in use; it goes on until [`Self::finish`].
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

impl Stream {
    /// Connects from `place` as `probe` says and keeps sending. Returns once the first answer is there.
    pub fn start(place: &impl AsRef<Place>, probe: Probe, options: StreamOptions) -> Result<Self> {
        let place = place.as_ref();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (started, first) = std::sync::mpsc::channel();
        let thread = place.spawn(move || {
            let mut report = Report::default();
            // Whoever gave up waiting for the first answer needs no message.
            let started = || {
                let _ = started.send(());
            };
            let result = match probe.protocol {
                Protocol::Tcp => tcp(&probe, options, &flag, &mut report, started),
                Protocol::Udp | Protocol::UdpUnconnected => {
                    udp(&probe, options, &flag, &mut report, started)
                }
            };
            report.note(result);
            report
        })?;
        let stream = Self {
            stop,
            thread: Some(thread),
        };
        // The thread drops its end of the channel when it fails, so this waits no longer than the stream lives.
        if first.recv_timeout(probe.timeout + options.stall).is_err() {
            let report = stream.finish()?;
            bail!(
                "no answer from {} to the first message in {}: {report:?}",
                probe.to,
                place.name()
            );
        }
        Ok(stream)
    }

    /// Stops sending, waits for the answers under way, and tells what happened.
    pub fn finish(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a stream is finished once")?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a stream's thread panicked"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Dropped unfinished, so nobody asks for the report.
            let _ = thread.join();
        }
    }
}

/// Sends a message, waits for its answer, pauses.
fn tcp(
    probe: &Probe,
    options: StreamOptions,
    stop: &AtomicBool,
    report: &mut Report,
    started: impl Fn(),
) -> io::Result<()> {
    let mut writer = probe.connect()?;
    writer.set_read_timeout(Some(options.stall))?;
    let mut reader = BufReader::new(writer.try_clone()?);
    let mut answer = String::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        writer.write_all(&line(&Message {
            number: report.sent,
        })?)?;
        report.sent += 1;
        answer.clear();
        let read = reader
            .read_line(&mut answer)
            .inspect_err(|_| report.lost += 1)?;
        if read == 0 {
            report.lost += 1;
            return Err(io::Error::other("the server closed the connection"));
        }
        report.take(serde_json::from_str(&answer)?, start.elapsed());
        if report.answered == 1 {
            started();
        }
        thread::sleep(options.interval);
    }
    Ok(())
}

/// Sends at every interval whatever comes back, and matches the answers by number.
///
/// Errors (a port that is closed for a moment) cost the datagrams they hit, and the stream goes on.
fn udp(
    probe: &Probe,
    options: StreamOptions,
    stop: &AtomicBool,
    report: &mut Report,
    started: impl Fn(),
) -> io::Result<()> {
    let socket = probe.connect_udp()?;
    let mut waiting = BTreeMap::new();
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        let stopped = stop.load(Ordering::Relaxed);
        if !stopped && now >= next {
            let message = serde_json::to_vec(&Message {
                number: report.sent,
            })?;
            // Unsent, it stays without an answer and counts as lost in time.
            report.note(socket.send(&message));
            waiting.insert(report.sent, now);
            report.sent += 1;
            next = now + options.interval;
        }
        let before = waiting.len();
        waiting.retain(|_, sent| now.duration_since(*sent) < options.stall);
        report.lost += (before - waiting.len()) as u64;
        if stopped && waiting.is_empty() {
            return Ok(());
        }
        // When stopped, answers come at any time; before, listen until the next message is due.
        let pause = if stopped {
            options.interval
        } else {
            next.saturating_duration_since(now)
        };
        // A time-out of zero would mean none.
        socket.set_read_timeout(Some(pause.max(Duration::from_micros(100))))?;
        let received = receive(&socket);
        if let Some(Some(echo)) = report.note(received)
            && let Some(sent) = waiting.remove(&echo.number)
        {
            report.take(echo, sent.elapsed());
            if report.answered == 1 {
                started();
            }
        }
    }
}

/// The next answer, or none in time.
fn receive(socket: &UdpSocket) -> io::Result<Option<Echo>> {
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(length) => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
        Err(error) if is_timeout(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
