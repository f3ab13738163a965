//! Asks the agent, and waits for one that is not there.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{Answer, Request};

/// Pause before an agent that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// What an answer may take beyond the time that the agent has for it.
const GRACE: Duration = Duration::from_secs(1);

/// No agent answered.
#[derive(Debug, thiserror::Error)]
#[error(
    "no agent answers on {} ({source}): is `weir run` running on this node, with runDir as its --run-dir?", path.display()
)]
pub struct AgentError {
    path: PathBuf,
    source: io::Error,
}

/// Asks once.
///
/// # Errors
/// When no agent listens, or none answers in time.
pub fn ask(socket: &Path, request: &Request, deadline: Instant) -> Result<Answer, AgentError> {
    exchange(socket, request, deadline).map_err(|source| AgentError {
        path: socket.to_owned(),
        source,
    })
}

/// Asks until an agent answers: one that is being replaced is back within seconds.
pub(super) fn persist(
    socket: &Path,
    request: &Request,
    deadline: Instant,
) -> Result<Answer, AgentError> {
    loop {
        match ask(socket, request, deadline) {
            Err(_) if Instant::now() + PAUSE < deadline => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

fn exchange(socket: &Path, request: &Request, deadline: Instant) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    let left = deadline.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left + GRACE))?;
    let mut request = request.clone();
    if let Request::Add(announcement) = &mut request {
        announcement.wait_milliseconds = left.as_millis().try_into().unwrap_or(u64::MAX);
    }
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        let ended = "it ended before it answered";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
    }
    Ok(serde_json::from_str(&answer)?)
}
