//! Files of the state directory: a line that says what they are, then one value a line, all in JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Who may read it: it tells what is in a cluster, and who talks to whom.
const MODE: u32 = 0o600;
/// Share of the time that writing may take: a fiftieth.
const SHARE: u32 = 50;

/// A file of values of one node.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    path: PathBuf,
    /// Version of the file's form; one of another version is passed over.
    version: u32,
}

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    node: String,
}

impl Lines {
    pub(super) const fn new(path: PathBuf, version: u32) -> Self {
        Self { path, version }
    }

    /// Writes the values of a node, whole or not at all, also when power fails.
    pub(super) fn save<T: Serialize>(
        &self,
        node: &str,
        values: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let draft = self.path.with_extension("new");
        // One that was left may have another mode.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&draft)?;
        let mut file = BufWriter::new(file);
        let head = Head {
            version: self.version,
            node: node.to_owned(),
        };
        serde_json::to_writer(&mut file, &head)?;
        for value in values {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, &value)?;
        }
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(draft, &self.path)
    }

    /// The values; `None` if nothing was written for this node in this form.
    pub(super) fn load<T: DeserializeOwned>(&self, node: &str) -> io::Result<Option<Vec<T>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut lines = BufReader::new(file).lines();
        let head = lines.next().transpose()?.unwrap_or_default();
        let wanted = Head {
            version: self.version,
            node: node.to_owned(),
        };
        if serde_json::from_str::<Head>(&head).ok() != Some(wanted) {
            return Ok(None);
        }
        let values = lines.map(|line| Ok(serde_json::from_str(&line?)?));
        values.collect::<io::Result<_>>().map(Some)
    }
}

/// Has a file written now and then, and when the agent ends. `new` is given what was written last, and gives what there is that is newer
/// with what writes it, if anything is; `pause` is the least time between two.
pub(super) async fn keep<T, W>(
    what: &str,
    mut pause: Duration,
    shutdown: CancellationToken,
    new: impl Fn(Option<&T>) -> Option<(T, W)>,
) where
    W: FnOnce() -> io::Result<()> + Send + 'static,
{
    let least = pause;
    let mut written = None;
    loop {
        let ends = tokio::select! {
            () = shutdown.cancelled() => true,
            () = sleep(pause) => false,
        };
        if let Some((newer, write)) = new(written.as_ref()) {
            let start = Instant::now();
            let result = tokio::task::spawn_blocking(write).await;
            match result.map_err(io::Error::other).flatten() {
                Ok(()) => written = Some(newer),
                Err(error) => tracing::warn!(
                    "cannot keep {what} for the next agent: {error}; make --state-dir writable, or empty"
                ),
            }
            pause = least.max(start.elapsed() * SHARE);
        }
        if ends {
            return;
        }
    }
}
