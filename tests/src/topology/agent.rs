//! Running an agent on a node.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Node, Topology};
use crate::process::Process;

/// A running agent: stop, kill and restart it, read its log. It ends with this value.
pub type Agent = Process;

/// What a node has for its agent alone; all of it ends with the topology.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    /// For sockets and lock files.
    pub run: PathBuf,
    /// For what outlives a restart.
    pub state: PathBuf,
    /// An empty BPF file system for pins.
    pub bpffs: PathBuf,
    /// The cgroup (v2) of every process on the node and in its pods: the agent's cgroup root.
    pub cgroup: PathBuf,
}

impl Node {
    /// The file that the output of an agent of that name goes to.
    #[must_use]
    pub fn agent_log(&self, program: &str) -> PathBuf {
        self.dirs.logs().join(program).with_extension("log")
    }

    /// Where the node's agent keeps what it keeps.
    #[must_use]
    pub fn agent_paths(&self) -> AgentPaths {
        AgentPaths {
            run: self.dirs.run(),
            state: self.dirs.state(),
            bpffs: self.dirs.bpffs(),
            cgroup: self.cgroup.path().to_owned(),
        }
    }
}

impl Topology {
    /// Starts a binary in the network and cgroup of `node`; its output goes to a file in the node's directory.
    ///
    /// Drop the agent before the topology: a running process keeps the node's cgroup.
    pub fn spawn_agent<I, S>(
        &self,
        node: &str,
        binary: impl Into<PathBuf>,
        args: I,
    ) -> Result<Agent>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let (binary, args) = (
            binary.into(),
            args.into_iter().map(Into::into).collect::<Vec<String>>(),
        );
        let node = self.node(node);
        let program = binary
            .file_name()
            .context("an agent needs the path of a program")?;
        let log = node.agent_log(&program.to_string_lossy());
        let place = AsRef::<crate::netns::Place>::as_ref(node).clone();
        Process::start(
            &format!("{} on {}", program.display(), node.name()),
            &log,
            move || {
                let mut command = place.command(&binary);
                command.args(&args);
                command
            },
        )
    }
}
