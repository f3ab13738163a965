//! What is known of a cluster between commands: a directory for each under `~/.cache/weir/clusters`.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use weir_tests::lab::{Entrance, Lab, LabSpec, Node};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(100);

/// The directory of a cluster.
pub(crate) struct Home {
    dir: PathBuf,
}

/// A cluster that is up.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct State {
    /// The process that it ends with.
    pub(crate) pid: u32,
    pub(crate) spec: LabSpec,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubectl: PathBuf,
    /// The namespace from which the API server can be reached, as in `ip netns`.
    pub(crate) network: String,
    /// The directories of log files.
    pub(crate) logs: Vec<PathBuf>,
    pub(crate) nodes: Vec<(String, Entrance)>,
}

impl Home {
    pub(crate) fn of(name: &str) -> Result<Self> {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(fit) {
            bail!("a cluster's name is made of letters, digits and dashes, not {name:?}");
        }
        Ok(Self {
            dir: all()?.join(name),
        })
    }

    /// Makes the directory, empty but for its lock.
    pub(crate) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))
    }

    /// Holds the cluster's lock for as long as the file is open, which is also how others know that it is up.
    ///
    /// Returns nothing where another process holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<File>> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", path.display()))
            }
        }
    }

    /// Waits until nobody holds the lock; whether that was so before `limit`.
    pub(crate) fn wait_free(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while self.try_lock()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Says that this process holds the lock.
    pub(crate) fn hold(&self) -> Result<()> {
        fs::write(self.dir.join("pid"), std::process::id().to_string())
            .context("write whose the cluster is")
    }

    /// The process that holds the lock.
    pub(crate) fn holder(&self) -> Result<i32> {
        let text = fs::read_to_string(self.dir.join("pid")).context("read whose the cluster is")?;
        text.parse().context("read whose the cluster is")
    }

    /// Where the process of the cluster says what it does.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }

    /// Says that the cluster is up.
    pub(crate) fn write(&self, lab: &mut Lab) -> Result<()> {
        let spec = lab.spec().clone();
        let mut logs: Vec<_> = lab.nodes().iter().map(Node::logs).collect();
        let entrance = |node: &Node| (node.name().to_owned(), node.entrance().clone());
        let nodes = lab.nodes().iter().map(entrance).collect();
        let control = lab.control();
        logs.insert(0, control.logs().to_owned());
        let state = State {
            pid: std::process::id(),
            spec,
            kubeconfig: control.kubeconfig().to_owned(),
            kubectl: control.kubectl_program().to_owned(),
            network: AsRef::<weir_tests::netns::Place>::as_ref(control)
                .name()
                .to_owned(),
            logs,
            nodes,
        };
        // Whoever reads it reads all of it.
        let unfinished = self.dir.join("state.unfinished");
        fs::write(&unfinished, serde_json::to_vec_pretty(&state)?)
            .and_then(|()| fs::rename(&unfinished, self.state()))
            .with_context(|| format!("write {}", self.state().display()))
    }

    /// The cluster, once it is up.
    pub(crate) fn read(&self) -> Result<Option<State>> {
        match fs::read(self.state()) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).context("read a cluster's state")?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read a cluster's state"),
        }
    }

    /// The cluster.
    ///
    /// # Errors
    /// It is not up.
    pub(crate) fn running(&self) -> Result<State> {
        let up = self.exists() && self.try_lock()?.is_none();
        let state = if up { self.read()? } else { None };
        state.context("it is not up: `weir-cluster up` starts it")
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }
}

/// The names of all clusters.
pub(crate) fn names() -> Result<Vec<String>> {
    let dir = all()?;
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn all() -> Result<PathBuf> {
    Ok(weir_tests::cache_dir()?.join("clusters"))
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
