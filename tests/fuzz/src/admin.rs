//! The admin socket: whatever a client sends, it gets an answer or an end, and the next client is served.

use std::future;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::broadcast;
use weir::admin::{
    Audit, DryRun, FirstPacket, HistoryEntry, Provider, RawMaps, RecordCounts, Status, serve,
};
use weir::flows::top::Activity;
use weir::flows::{Record, RuleHits};
use weir::model::Snapshot;
use weir_common::abi::{Flow, FlowKey};
use weir_tests::fixture::snapshot;

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for the beginning of one, where there may be one,
const SOON: Duration = Duration::from_millis(100);
/// and where there is hardly one.
const AT_ONCE: Duration = Duration::from_millis(1);

struct Fixed(Arc<Snapshot>);

impl Provider for Fixed {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0)
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn maps(&self) -> Result<RawMaps, String> {
        Ok(RawMaps::default())
    }

    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, String> {
        Ok(Vec::new())
    }

    fn audit(&self) -> Result<Audit, String> {
        Ok(Audit::default())
    }

    fn dry_run(&self, _: &FirstPacket) -> Option<DryRun> {
        None
    }

    fn hits(&self) -> Result<RuleHits, String> {
        Ok(RuleHits::default())
    }

    fn metrics(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn history(&self) -> Vec<HistoryEntry> {
        Vec::new()
    }

    fn records(&self) -> Vec<Record> {
        Vec::new()
    }

    /// Ends at once, so that every answer does.
    fn follow(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        (Vec::new(), broadcast::channel(1).1)
    }

    fn record_counts(&self) -> RecordCounts {
        RecordCounts::default()
    }

    /// Ends at once, so that every answer does.
    fn top(&self) -> broadcast::Receiver<Arc<Activity>> {
        broadcast::channel(1).1
    }
}

thread_local! {
    /// The directory of this thread's server, which goes with the thread.
    static DIRECTORY: TempDir = served();
}

const SOCKET: &str = "admin.sock";

/// A directory with the socket of a server.
fn served() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join(SOCKET);
    let path = socket.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let provider = Arc::new(Fixed(Arc::new(snapshot([11, 12], vec![]))));
        let served = serve(&path, provider, future::pending());
        runtime
            .expect("a runtime")
            .block_on(served)
            .expect("it is served for ever");
    });
    while UnixStream::connect(&socket).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
    directory
}

/// Sends bytes and nothing more; gives all that comes back. `soon` is how long the beginning of that is waited for: who ends a
/// connection before is not answered.
fn exchange(bytes: &[u8], soon: Duration) -> Vec<u8> {
    let mut stream = DIRECTORY
        .with(|directory| UnixStream::connect(directory.path().join(SOCKET)))
        .expect("it accepts");
    // Who is refused early may find the connection closed.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 1];
    stream.set_read_timeout(Some(soon)).expect("a time-out");
    let begun = loop {
        match stream.read(&mut answer) {
            // The search has a timer of its own.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    answer.truncate(begun.unwrap_or_default());
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("no end of the answer: {error}"),
    }
    answer
}

/// Whether bytes may be a request that is answered: its head has an end.
fn has_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// See the module.
pub(crate) fn check(bytes: &[u8]) {
    let soon = if has_head(bytes) { SOON } else { AT_ONCE };
    let answer = exchange(bytes, soon);
    if !answer.is_empty() {
        assert!(
            answer.starts_with(b"HTTP/1."),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        assert_ne!(
            answer.get(9),
            Some(&b'5'),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    let good = exchange(
        b"GET /v1/status HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n",
        PATIENCE,
    );
    assert!(
        good.starts_with(b"HTTP/1.1 200"),
        "{:?}",
        String::from_utf8_lossy(&good)
    );
}
