//! Whom a command asks: the agent of this node, or agents of a cluster.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::agents::{Agents, AgentsError, Cluster, ENDED, Said};
use super::args::{ClusterQuery, Whom};
use crate::admin::Client;
use crate::config::admin_socket;
use crate::model::ObjectName;

/// After this time a terminal is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What agents answered.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// Those that did, with the names of their nodes; of this node's agent the only one.
    pub(super) given: Vec<(String, T)>,
    /// Why others did not.
    pub(super) missing: Vec<(String, anyhow::Error)>,
}

impl<T> Answers<T> {
    fn of(said: Vec<(String, Result<T, AgentsError>)>) -> Self {
        let mut answers = Self {
            given: Vec::new(),
            missing: Vec::new(),
        };
        for (node, said) in said {
            match said {
                Ok(said) => answers.given.push((node, said)),
                Err(error) => answers.missing.push((node, error.into())),
            }
        }
        answers
    }

    /// An error that tells who did not answer: whoever reads the rest must not take it for everything.
    pub(super) fn complete(self) -> Result<()> {
        let Some((_, first)) = self.missing.first() else {
            return Ok(());
        };
        let (missing, all) = (self.missing.len(), self.given.len() + self.missing.len());
        bail!("{missing} of {all} agents did not answer; {first}")
    }
}

impl Whom {
    /// Whether several agents may answer.
    pub(super) fn is_of_all(&self) -> bool {
        self.cluster.cluster().is_some() && self.cluster.node.is_none()
    }
}

impl ClusterQuery {
    /// The cluster whose agents are to be asked; `None` for this node's agent.
    fn cluster(&self) -> Option<Cluster<'_>> {
        let given = self.context.is_some() || self.kubeconfig.is_some() || self.node.is_some();
        (given || self.is_plugin).then(|| Cluster {
            kubeconfig: self.kubeconfig.as_deref(),
            context: self.context.as_deref(),
            namespace: &self.agent_namespace,
            node: self.node.as_deref(),
        })
    }
}

/// Asks the agent of this node.
pub(super) fn ask_local<T: DeserializeOwned>(
    run_dir: &Path,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T> {
    let client = Client::new(&admin_socket(run_dir));
    wait(async { Ok(client.get(path, parameters).await?) })
}

/// Asks what every agent knows: this node's agent, or one of the cluster's.
pub(super) fn ask<T: DeserializeOwned>(
    whom: &Whom,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T> {
    let Some(cluster) = whom.cluster.cluster() else {
        return ask_local(&whom.run_dir, path, parameters);
    };
    wait(async {
        let agents = Agents::find(cluster).await?;
        Ok(agents.ask(agents.any(), path, parameters).await?)
    })
}

/// An answer that looks different from each node.
#[derive(Debug)]
pub(super) struct Seen<T> {
    /// The node that it was asked of; `None` for this one.
    pub(super) from: Option<String>,
    /// The answer.
    pub(super) answer: T,
}

/// From where something is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stand<'s> {
    /// The node that a pod is on.
    Pod(&'s ObjectName),
    /// A node.
    Node(&'s str),
}

/// Asks what looks different from each node: this node's agent, the one that is named, or of a cluster that of where it is looked at from. Where
/// it is any other's, says whose.
pub(super) fn ask_as_seen<T: DeserializeOwned>(
    whom: &Whom,
    from: Option<Stand<'_>>,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<Seen<T>> {
    let cluster = whom.cluster.cluster();
    let Some(cluster) = cluster.filter(|cluster| cluster.node.is_none()) else {
        return Ok(Seen {
            from: whom.cluster.node.clone(),
            answer: ask(whom, path, parameters)?,
        });
    };
    wait(async {
        let agents = Agents::find(cluster).await?;
        let on_its_node = match from {
            Some(Stand::Pod(pod)) => agents.of_pod(pod).await,
            Some(Stand::Node(node)) => agents.of_node(node),
            None => None,
        };
        let agent = on_its_node.unwrap_or_else(|| agents.any());
        let answer = agents.ask(agent, path, parameters).await?;
        if on_its_node.is_none() {
            eprintln!("as node {} sees it: --node names another", agent.node);
        }
        Ok(Seen {
            from: Some(agent.node.clone()),
            answer,
        })
    })
}

/// Asks the agents of some nodes, of those that the command may ask: this node's agent alone answers for any.
pub(super) fn ask_nodes<T: DeserializeOwned>(
    whom: &Whom,
    nodes: &BTreeSet<&str>,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<Answers<T>> {
    let Some(cluster) = whom.cluster.cluster() else {
        return ask_all(whom, path, parameters);
    };
    let said = wait(async {
        let mut agents = Agents::find(cluster).await?;
        agents.keep(nodes);
        Ok(agents.ask_all(path, parameters).await)
    })?;
    Ok(Answers::of(said))
}

/// Asks what each agent knows of its own node: this node's, or all of the cluster's, of which some may not answer.
pub(super) fn ask_all<T: DeserializeOwned>(
    whom: &Whom,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<Answers<T>> {
    let Some(cluster) = whom.cluster.cluster() else {
        let said = ask_local(&whom.run_dir, path, parameters)?;
        return Ok(Answers {
            given: vec![(String::new(), said)],
            missing: Vec::new(),
        });
    };
    let said = wait(async { Ok(Agents::find(cluster).await?.ask_all(path, parameters).await) })?;
    Ok(Answers::of(said))
}

/// Asks what only makes sense of a single node.
pub(super) fn ask_node<T: DeserializeOwned>(
    whom: &Whom,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T> {
    if whom.is_of_all() {
        bail!("this is of one node only: name it with --node");
    }
    ask(whom, path, parameters)
}

/// Gives every line of an answer that goes on to `each`, of this node's agent or all of the cluster's, until it has seen enough. Agents of a
/// cluster end one by one, the others go on.
///
/// # Errors
/// When no agent goes on.
pub(super) fn follow<T: DeserializeOwned>(
    whom: &Whom,
    path: &str,
    mut each: impl FnMut(Said<T>) -> ControlFlow<()>,
) -> Result<()> {
    let flow = match whom.cluster.cluster() {
        None => {
            let client = Client::new(&admin_socket(&whom.run_dir));
            run(async { Ok(client.follow(path, |line| each(Said::Line(line))).await?) })?
        }
        Some(cluster) => run(async {
            let agents = Agents::find(cluster).await?;
            Ok(agents.follow_all(path, each).await)
        })?,
    };
    match flow {
        ControlFlow::Break(()) => Ok(()),
        ControlFlow::Continue(()) => bail!("{ENDED}"),
    }
}

/// Waits for an answer; who waits for long at a terminal is told.
fn wait<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    run(async {
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        let mut errors = io::stderr();
        if !errors.is_terminal() {
            return answer.await;
        }
        // It is gone when the answer comes.
        let _ = write!(errors, "asking ...");
        let answer = answer.await;
        let _ = write!(errors, "\r\x1b[K");
        answer
    })
}

fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(work)
}
