//! The agents of a cluster, reached through its API server with the rights of whoever asks.
//!
//! `weir admin-proxy`, run in an agent's container by `pods/exec`, joins its standard streams to the admin socket. So no agent listens to anybody
//! but the node's root, and who may ask is decided by the API server alone.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, ClientError};
use crate::model::ObjectName;

/// What selects the agents' pods, and their container: as in deploy/weir.yaml.
const SELECTOR: &str = "k8s-app=weir";
const CONTAINER: &str = "weir";
/// What is run there.
const PROXY: [&str; 2] = ["weir", "admin-proxy"];
/// How long a proxy that gave no answer may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where the agents are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster<'a> {
    /// A kubeconfig file; without one what kubectl would take.
    pub(super) kubeconfig: Option<&'a Path>,
    /// A context of it; without one the current one.
    pub(super) context: Option<&'a str>,
    /// Namespace of the agents.
    pub(super) namespace: &'a str,
    /// The only node that is asked for.
    pub(super) node: Option<&'a str>,
}

/// Why agents of a cluster cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentsError {
    /// No cluster.
    #[error(
        "cannot use the kubeconfig: {0}; name one with --kubeconfig, and a context of it with --context"
    )]
    Kubeconfig(#[from] KubeconfigError),
    /// The API server refused.
    #[error(
        "cannot {action} in namespace {namespace}: {}; reading agents takes the rights to list pods and to create pods/exec there",
        told(refusal)
    )]
    Api {
        /// What was tried.
        action: String,
        /// Where.
        namespace: String,
        /// The reason.
        refusal: Box<kube::Error>,
    },
    /// None is there.
    #[error("no agent runs{} in namespace {namespace}: see `kubectl -n {namespace} get pods -l {SELECTOR} -o wide`; another namespace is named with --agent-namespace", node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default())]
    None {
        /// Where.
        namespace: String,
        /// The only node that was asked for.
        node: Option<String>,
    },
    /// It did not answer.
    #[error("{node}: {source}{}", if said.is_empty() { String::new() } else { format!(" ({said})") })]
    Agent {
        /// The agent's node.
        node: String,
        /// The reason.
        source: ClientError,
        /// What the proxy said.
        said: String,
    },
}

/// What an API server says of itself is clearer than the library's error around it.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// What is said of an agent whose answer went on, and ended.
pub(super) const ENDED: &str = "the agent has ended";

/// What comes of agents whose answers go on.
#[derive(Debug)]
pub(super) enum Said<T> {
    /// The nodes whose agents are asked, of a cluster.
    Asked(Vec<String>),
    /// A line of an answer.
    Line(T),
    /// An answer has ended.
    Ended {
        /// Of the agent of this node.
        node: String,
        /// The reason.
        why: String,
    },
}

/// Standard output and input of a proxy.
type Output = Pin<Box<dyn AsyncRead + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// An agent of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Its node.
    pub(super) node: String,
    pod: String,
    ready: bool,
}

/// The agents of a cluster.
pub(super) struct Agents {
    pods: Api<Pod>,
    namespace: String,
    /// By the names of their nodes.
    all: Vec<Agent>,
}

impl Agents {
    /// Finds the agents.
    ///
    /// # Errors
    /// When the cluster cannot be reached, the caller may not list pods, or there is no agent.
    pub(super) async fn find(cluster: Cluster<'_>) -> Result<Self, AgentsError> {
        let options = KubeConfigOptions {
            context: cluster.context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let config = match cluster.kubeconfig {
            Some(path) => {
                Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
            }
            None => Config::from_kubeconfig(&options).await?,
        };
        let namespace = cluster.namespace.to_owned();
        let failed = |refusal| AgentsError::Api {
            action: "list the agents' pods".to_owned(),
            namespace: namespace.clone(),
            refusal: Box::new(refusal),
        };
        let client = Client::try_from(config).map_err(failed)?;
        let pods = Api::<Pod>::namespaced(client, &namespace);
        let mut wanted = ListParams::default().labels(SELECTOR);
        if let Some(node) = cluster.node {
            wanted = wanted.fields(&format!("spec.nodeName={node}"));
        }
        let found = pods.list(&wanted).await.map_err(failed)?;
        let all = running(found.items);
        if all.is_empty() {
            return Err(AgentsError::None {
                namespace,
                node: cluster.node.map(str::to_owned),
            });
        }
        Ok(Self {
            pods,
            namespace,
            all,
        })
    }

    /// An agent that can answer for the whole cluster: a ready one if there is one.
    pub(super) fn any(&self) -> &Agent {
        let ready = self.all.iter().find(|agent| agent.ready);
        ready.unwrap_or(&self.all[0])
    }

    /// The agent of the node that a pod is on; `None` where that cannot be found out.
    pub(super) async fn of_pod(&self, pod: &ObjectName) -> Option<&Agent> {
        let client = self.pods.clone().into_client();
        let pods = Api::<Pod>::namespaced(client, &pod.namespace);
        let node = pods.get(&pod.name).await.ok()?.spec?.node_name?;
        self.of_node(&node)
    }

    /// The agent of a node, if there is one.
    pub(super) fn of_node(&self, node: &str) -> Option<&Agent> {
        self.all.iter().find(|agent| agent.node == node)
    }

    /// Leaves only those of some nodes.
    pub(super) fn keep(&mut self, nodes: &BTreeSet<&str>) {
        self.all.retain(|agent| nodes.contains(&*agent.node));
    }

    /// Asks one agent.
    ///
    /// # Errors
    /// When it cannot be reached or refuses the question.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        agent: &Agent,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, AgentsError> {
        self.with(agent, |stream| admin::get(stream, path, parameters))
            .await
    }

    /// Gives every line of an answer that goes on to `each`.
    ///
    /// # Errors
    /// When it cannot be reached, or ends.
    async fn follow<T: DeserializeOwned>(
        &self,
        agent: &Agent,
        path: &str,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, AgentsError> {
        self.with(agent, |stream| admin::follow(stream, path, each))
            .await
    }

    /// Does something over a stream to an agent.
    async fn with<T, F>(
        &self,
        agent: &Agent,
        work: impl FnOnce(tokio::io::Join<Output, Input>) -> F,
    ) -> Result<T, AgentsError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let streams = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(true)
            .stderr(true);
        let started = self.pods.exec(&agent.pod, PROXY, &streams).await;
        let mut process = started.map_err(|refusal| AgentsError::Api {
            action: format!("run `{}` in pod {}", PROXY.join(" "), agent.pod),
            namespace: self.namespace.clone(),
            refusal: Box::new(refusal),
        })?;
        let (Some(input), Some(output)) = (process.stdin(), process.stdout()) else {
            unreachable!("both were asked for");
        };
        let (output, input): (Output, Input) = (Box::pin(output), Box::pin(input));
        match work(tokio::io::join(output, input)).await {
            Ok(answer) => Ok(answer),
            Err(source) => Err(AgentsError::Agent {
                node: agent.node.clone(),
                said: match source {
                    ClientError::Refused(_) => String::new(),
                    _ => complaint(process).await,
                },
                source,
            }),
        }
    }

    /// Asks all agents at once; answers with the names of their nodes, in their order.
    pub(super) async fn ask_all<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Vec<(String, Result<T, AgentsError>)> {
        let answers = self.all.iter().map(async |agent| {
            let answer = self.ask(agent, path, parameters).await;
            (agent.node.clone(), answer)
        });
        join_all(answers).await
    }

    /// Gives every line of all agents' answers that go on to `each`, as they come, until it has seen enough or all have ended.
    pub(super) async fn follow_all<T: DeserializeOwned>(
        &self,
        path: &str,
        each: impl FnMut(Said<T>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let each = RefCell::new(each);
        let enough = CancellationToken::new();
        let say = |said| {
            let flow = (each.borrow_mut())(said);
            if flow.is_break() {
                enough.cancel();
            }
            flow
        };
        let nodes = self.all.iter().map(|agent| agent.node.clone());
        // Whoever has seen enough is asked no more.
        let _ = say(Said::Asked(nodes.collect()));
        let followed = self.all.iter().map(async |agent| {
            let answer = self.follow(agent, path, |line| say(Said::Line(line)));
            let why = match answer.await {
                Ok(_) => ENDED.to_owned(),
                Err(error) => error.to_string(),
            };
            let node = agent.node.clone();
            let _ = say(Said::Ended { node, why });
        });
        match enough.run_until_cancelled(join_all(followed)).await {
            None => ControlFlow::Break(()),
            Some(_) => ControlFlow::Continue(()),
        }
    }
}

/// What a proxy that gave no answer said.
async fn complaint(mut process: AttachedProcess) -> String {
    let mut said = String::new();
    if let Some(mut errors) = process.stderr() {
        // What cannot be read was not said; and one that waits says nothing.
        let _ = timeout(LAST_WORDS, errors.read_to_string(&mut said)).await;
    }
    said.trim().to_owned()
}

/// One agent a node: while it is replaced, the one that stays.
fn running(pods: Vec<Pod>) -> Vec<Agent> {
    let mut agents: Vec<(bool, Agent)> = pods
        .into_iter()
        .filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let conditions = status.conditions.iter().flatten();
            let mut ready = conditions.filter(|it| it.type_ == "Ready" && it.status == "True");
            let agent = Agent {
                node: pod.spec.as_ref()?.node_name.clone()?,
                pod: pod.name_any(),
                ready: ready.next().is_some(),
            };
            let leaves = pod.metadata.deletion_timestamp.is_some();
            (status.phase.as_deref() == Some("Running")).then_some((leaves, agent))
        })
        .collect();
    agents.sort_by(|(a_leaves, a), (b_leaves, b)| {
        (&a.node, a_leaves, b.ready).cmp(&(&b.node, b_leaves, a.ready))
    });
    let mut agents: Vec<Agent> = agents.into_iter().map(|(_, agent)| agent).collect();
    agents.dedup_by(|later, first| later.node == first.node);
    agents
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_two_pods_on_a_node_the_one_that_stays_is_asked() {
        let pod = |name: &str, node: Option<&str>, phase: &str, ready: &str, leaves: bool| -> Pod {
            let mut pod = json!({
                "metadata": {"name": name},
                "spec": {"containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
            });
            if let Some(node) = node {
                pod["spec"]["nodeName"] = node.into();
            }
            if leaves {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            serde_json::from_value(pod).expect("a pod")
        };
        let agents = running(vec![
            pod("b-leaves", Some("b"), "Running", "True", true),
            pod("b-comes", Some("b"), "Running", "False", false),
            pod("a-unready", Some("a"), "Running", "False", false),
            pod("a-ready", Some("a"), "Running", "True", false),
            pod("c-waits", Some("c"), "Pending", "False", false),
            pod("nowhere", None, "Running", "True", false),
        ]);
        let asked: Vec<_> = agents
            .iter()
            .map(|agent| (agent.node.as_str(), agent.pod.as_str(), agent.ready))
            .collect();
        assert_eq!(asked, [("a", "a-ready", true), ("b", "b-comes", false)]);
    }
}
