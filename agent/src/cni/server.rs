//! The agent's side of the socket: it reads what plugins ask for, and tells what comes of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{Answer, Request};

/// Longest request: a sandbox is some hundred bytes, a list of all attachments of a node some ten thousand.
const LONGEST: u64 = 1 << 20;
/// Time that a plugin has for its request.
const SOON: Duration = Duration::from_secs(5);
/// Time until plugins are heard again after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until told to stop, then removes the socket. Requests are carried out by `answer`, several at a time; who sends something else
/// is told what is wrong with it.
///
/// # Errors
/// When the socket cannot be removed.
pub async fn serve<F>(
    listener: UnixListener,
    socket: &Path,
    answer: impl Fn(Request) -> F + Clone + Send + 'static,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    F: Future<Output = Answer> + Send,
{
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Too many open files, for instance, which passes; without an agent no pod would start at all.
            Err(error) => {
                tracing::warn!("cannot hear a CNI plugin: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (answer, shutdown) = (answer.clone(), shutdown.clone());
        tokio::spawn(async move {
            // A plugin whose connection ends asks the next agent.
            tokio::select! {
                () = shutdown.cancelled() => {}
                result = talk(stream, answer) => {
                    if let Err(error) = result {
                        tracing::warn!("cannot answer a CNI plugin: {error}");
                    }
                }
            }
        });
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn talk<F>(stream: UnixStream, answer: impl Fn(Request) -> F) -> io::Result<()>
where
    F: Future<Output = Answer>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(LONGEST));
    timeout(SOON, read.read_until(b'\n', &mut line)).await??;
    let answer = match Request::parse(&line) {
        Ok(request) => answer(request).await,
        Err(error) => Answer::Waiting {
            why: error.to_string(),
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::socket;
    use crate::model::Attachment;

    /// Whether it is the container `good` that is asked for.
    async fn answer(request: Request) -> Answer {
        let good = Attachment {
            container: "good".to_owned(),
            interface: "eth0".to_owned(),
        };
        if request == Request::Check(good) {
            Answer::Done
        } else {
            Answer::Unknown
        }
    }

    /// Sends bytes and nothing more; gives the answer.
    async fn exchange(path: &Path, bytes: &[u8]) -> Answer {
        let (read, mut write) = UnixStream::connect(path).await.unwrap().into_split();
        // What is too long is answered before all of it was read.
        let _ = write.write_all(bytes).await;
        drop(write);
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whatever_is_said_is_answered_and_the_next_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket(dir.path());
        let listener = UnixListener::bind(&path).unwrap();
        let shutdown = CancellationToken::new();
        let serving = serve(listener, &path, answer, shutdown.clone());
        let asking = async {
            let good = br#"{"check":{"container":"good","interface":"eth0"}}"#;
            let too_long = vec![b' '; LONGEST as usize + 100];
            for (strange, wanted) in [
                (&b"GET / HTTP/1.1\r\n\r\n"[..], "does not understand"),
                (b"", "does not understand"),
                (b"{\"check\":\n", "does not understand"),
                (b"\xff\xfe\n", "does not understand"),
                (
                    b"{\"check\":{\"container\":\"\xff\",\"interface\":\"eth0\"}}",
                    "does not understand",
                ),
                (
                    br#"{"check":{"container":"../x","interface":"eth0"}}"#,
                    "no container",
                ),
                (&too_long, "does not understand"),
            ] {
                let Answer::Waiting { why } = exchange(&path, strange).await else {
                    panic!("{strange:?}");
                };
                assert!(why.contains(wanted), "{why}");
                assert_eq!(exchange(&path, good).await, Answer::Done);
            }
            let other = br#"{"check":{"container":"other","interface":"eth0"}}"#;
            assert_eq!(exchange(&path, other).await, Answer::Unknown);
            shutdown.cancel();
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.unwrap();
        assert!(!path.exists());
    }
}
