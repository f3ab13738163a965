//! Agents on the nodes of a cluster, and questions to them.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Cluster, http};
use crate::netns::Place;
use crate::process::start;

/// How long an agent may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(15);

/// The agent with the kernel programs inside: `WEIR_BINARY`, or where `cargo xtask build` leaves it.
pub fn weir_binary() -> Result<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/weir");
    let binary = env::var_os("WEIR_BINARY").map_or_else(built, PathBuf::from);
    ensure!(
        binary.is_file(),
        "there is no {}: run `cargo xtask build`, or name the agent in WEIR_BINARY",
        binary.display()
    );
    Ok(binary)
}

/// A kubeconfig of an API server on a port where nobody listens.
const CUT_OFF: &str = "
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]
users: [{name: nobody, user: {token: none}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
current-context: nowhere
";

/// What a command of the CLI answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 0 yes, 1 no, 2 error.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cluster {
    /// Starts an agent on every node and waits until all are ready.
    pub fn start_agents(&mut self) -> Result<()> {
        let nodes: Vec<_> = self
            .topology
            .nodes()
            .map(|node| node.name().to_owned())
            .collect();
        for node in &nodes {
            self.spawn(node)?;
        }
        for node in &nodes {
            self.wait_ready(node)?;
        }
        self.settle()
    }

    /// Starts the agent of `node`, without waiting for it.
    pub fn spawn(&mut self, node: &str) -> Result<()> {
        let agent = self
            .topology
            .spawn_weir(node, &self.binary, self.agent_args(node))?;
        self.agents.insert(node.to_owned(), agent);
        Ok(())
    }

    /// Starts the agent of `node` with an API server that nobody can reach instead of manifests, without waiting for it.
    pub fn spawn_cut_off(&mut self, node: &str) -> Result<()> {
        let file = self
            .topology
            .node(node)
            .agent_paths()
            .state
            .join("kubeconfig");
        fs::write(&file, CUT_OFF).with_context(|| format!("write {}", file.display()))?;
        let mut args = self.agent_args(node);
        let source = args.iter().position(|word| word == "--manifests");
        let source = source.context("an agent that follows manifests")?;
        args[source] = "--kubeconfig".to_owned();
        args[source + 1] = file.display().to_string();
        let agent = self.topology.spawn_weir(node, &self.binary, args)?;
        self.agents.insert(node.to_owned(), agent);
        Ok(())
    }

    /// Kills the agent of `node` and starts one with more options, which count more than the cluster's own.
    pub fn replace_agent(&mut self, node: &str, options: &[&str]) -> Result<()> {
        self.agent(node).kill()?;
        let mut arguments = self.agent_args(node);
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        let agent = self.topology.spawn_weir(node, &self.binary, arguments)?;
        self.agents.insert(node.to_owned(), agent);
        self.wait_ready(node)?;
        self.settle()
    }

    /// The command line of the agent of `node`, without the program. The cluster's options count more than what a node's agent is given.
    #[must_use]
    pub fn agent_args(&self, node: &str) -> Vec<String> {
        let paths = self.topology.node(node).agent_paths();
        let path = |path: &Path| path.display().to_string();
        let args: Vec<String> = [
            ("--manifests", path(self.manifests.path())),
            ("--node-name", node.to_owned()),
            ("--cgroup-root", path(&paths.cgroup)),
            ("--bpffs", path(&paths.bpffs)),
            ("--run-dir", path(&paths.run)),
            ("--state-dir", path(&paths.state)),
            ("--attach", self.attach.clone()),
        ]
        .into_iter()
        .filter(|(flag, _)| !self.options.iter().any(|option| option == flag))
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        [vec!["run".to_owned()], args, self.options.clone()].concat()
    }

    /// Waits until `/readyz` of the agent of `node` says yes.
    pub fn wait_ready(&mut self, node: &str) -> Result<()> {
        let place = self.place(node);
        let ready = SocketAddr::from((Ipv4Addr::LOCALHOST, 10256));
        let agent = self.agent(node);
        agent.wait_until(READY_LIMIT, || {
            http::get(&place, ready, "/readyz").is_ok_and(|(code, _)| code == 200)
        })
    }

    /// Ends every agent at once and forgets them; what they put into the kernel stays.
    pub fn kill_agents(&mut self) -> Result<()> {
        let mut agents = std::mem::take(&mut self.agents);
        agents
            .values_mut()
            .try_for_each(crate::process::Process::kill)
    }

    /// `weir cleanup` on a node whose agent does not run.
    pub fn cleanup(&self, node: &str) -> Result<()> {
        let paths = self.topology.node(node).agent_paths();
        let (bpffs, run) = (
            paths.bpffs.display().to_string(),
            paths.run.display().to_string(),
        );
        let answer = self.weir(node, &["cleanup", "--bpffs", &bpffs, "--run-dir", &run])?;
        ensure!(answer.code == Some(0), "weir cleanup on {node}: {answer:?}");
        Ok(())
    }

    /// The text of `/metrics` of the agent of `node`.
    pub fn metrics(&self, node: &str) -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10249));
        let (code, body) = http::get(&self.place(node), address, "/metrics")?;
        ensure!(code == 200, "/metrics of {node} answers {code}: {body}");
        Ok(body)
    }

    /// Asks the agent of `node` with its own CLI, as an administrator on the node does.
    pub fn ask(&self, node: &str, arguments: &[&str]) -> Result<Answer> {
        let run = self
            .topology
            .node(node)
            .agent_paths()
            .run
            .display()
            .to_string();
        self.weir(node, &[arguments, &["--run-dir", &run]].concat())
    }

    /// `weir status -o json` on `node`.
    pub fn status(&self, node: &str) -> Result<Value> {
        let answer = self.ask(node, &["status", "-o", "json"])?;
        ensure!(
            answer.code == Some(0),
            "weir status on {node}: {}",
            answer.stderr.trim()
        );
        serde_json::from_str(&answer.stdout).context("read a status")
    }

    /// Runs a command of `weir` on `node` to its end.
    pub fn weir(&self, node: &str, arguments: &[&str]) -> Result<Answer> {
        let mut command = self.place(node).command(&self.binary);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = start(&mut command).with_context(|| format!("start {command:?}"))?;
        let output = child.wait_with_output()?;
        Ok(Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub(super) fn place(&self, node: &str) -> Place {
        AsRef::<Place>::as_ref(self.topology.node(node)).clone()
    }
}
