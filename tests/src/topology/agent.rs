//! Running an agent on a node.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Node, Topology};
use crate::process::Process;

/// Runs what follows with the capabilities that Weir's agent is meant to have, and no others: not even root's programs get more.
const LEAST_PRIVILEGE: [&str; 4] = [
    "setpriv",
    "--inh-caps=-all",
    "--bounding-set=-all,+bpf,+perfmon,+net_admin",
    "--no-new-privs",
];

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
        let name = file_name(&binary)?;
        self.spawn(node, &name, binary, args)
    }

    /// Starts Weir's agent in the network and cgroup of `node`, with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN only.
    pub fn spawn_weir(&self, node: &str, binary: &Path, args: Vec<String>) -> Result<Agent> {
        let name = file_name(binary)?;
        let mut words = least_privilege(binary);
        words.extend(args);
        let program = PathBuf::from(words.remove(0));
        self.spawn(node, &name, program, words)
    }

    fn spawn(&self, node: &str, name: &str, program: PathBuf, args: Vec<String>) -> Result<Agent> {
        let node = self.node(node);
        let log = node.agent_log(name);
        let place = AsRef::<crate::netns::Place>::as_ref(node).clone();
        Process::start(&format!("{name} on {}", node.name()), &log, move || {
            let mut command = place.command(&program);
            command.args(&args);
            command
        })
    }
}

/// The words that run a program with what the agent may do; arguments follow.
#[must_use]
pub fn least_privilege(program: &Path) -> Vec<String> {
    let words = LEAST_PRIVILEGE.into_iter().map(str::to_owned);
    words.chain([program.display().to_string()]).collect()
}

fn file_name(program: &Path) -> Result<String> {
    let name = program.file_name();
    let name = name.context("an agent needs the path of a program")?;
    Ok(name.to_string_lossy().into_owned())
}
