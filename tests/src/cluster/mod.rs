//! A topology with agents that follow a directory of manifests: a cluster without an API server.
//!
//! What a control plane would do, this does: pods get their status, Services their EndpointSlices.

mod agents;
mod cni;
pub mod http;
mod manifests;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod as PodObject, Service};
use serde_json::Value;

pub use agents::{Answer, weir_binary};
pub use manifests::documents;
pub use slices::slices;

use crate::topology::{Agent, Node, PodSpec, Topology, TopologySpec};
use manifests::Manifests;

/// How long agents may take to carry out a change.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// The file whose number of namespaces tells which write an agent has seen: agents read files in order of their names,
/// so whoever has read this one reads the rest as it is now.
const REVISION: &str = "00-revision.yaml";

/// Two or more nodes, their pods, and an agent on each.
///
/// Tests reach the [`Topology`] directly to look; pods come and go through this, so that agents hear of it.
pub struct Cluster {
    // Fields drop in this order: a running agent keeps its node's cgroup.
    agents: BTreeMap<String, Agent>,
    topology: Topology,
    manifests: Manifests,
    binary: PathBuf,
    attach: String,
    /// More options of all agents.
    options: Vec<String>,
    /// Pod objects to fill in a status, by pod; pods without get the topology's own.
    templates: BTreeMap<String, PodObject>,
    unready: BTreeSet<String>,
    applied: BTreeMap<String, Vec<Value>>,
    revision: u32,
}

impl Cluster {
    /// Builds the topology and writes its nodes and pods; no agent runs yet. `attach` is the agents' `--attach`.
    pub fn build(spec: &TopologySpec, attach: &str) -> Result<Self> {
        Self::with_pods(spec, attach, Vec::new())
    }

    /// The same with Pod objects that lack a node's and a kubelet's part: they join the topology's pods, on the nodes that
    /// `spec.nodeName` says.
    pub fn with_pods(spec: &TopologySpec, attach: &str, pods: Vec<PodObject>) -> Result<Self> {
        let mut spec = spec.clone();
        let mut templates = BTreeMap::new();
        for pod in pods {
            let name = pod.metadata.name.clone().context("a pod without a name")?;
            spec.pods.push(pod_spec(&name, &pod)?);
            templates.insert(name, pod);
        }
        let cluster = Self {
            agents: BTreeMap::new(),
            topology: Topology::build(&spec)?,
            manifests: Manifests::new()?,
            binary: weir_binary()?,
            attach: attach.to_owned(),
            options: Vec::new(),
            templates,
            unready: BTreeSet::new(),
            applied: BTreeMap::new(),
            revision: 0,
        };
        let nodes: Vec<_> = cluster.topology.nodes().map(Node::object).collect();
        cluster.manifests.write_objects("10-nodes.yaml", &nodes)?;
        cluster.write_pods()?;
        Ok(cluster)
    }

    /// Gives every agent that is started from now on more options.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// The machines.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The directory that the agents follow.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// Writes a file of manifests, in place of an earlier one of that name, with the EndpointSlices of its Services.
    pub fn apply(&mut self, file: &str, yaml: &str) -> Result<()> {
        let objects = documents(yaml).with_context(|| format!("read {file}"))?;
        self.manifests.write(file, yaml)?;
        self.applied.insert(file.to_owned(), objects);
        self.write_slices()
    }

    /// Writes a file as it is: it need not hold any object.
    pub fn write_raw(&self, file: &str, text: &str) -> Result<()> {
        self.manifests.write(file, text)
    }

    /// Takes a file of manifests away again.
    pub fn delete(&mut self, file: &str) -> Result<()> {
        self.applied.remove(file);
        self.manifests.remove(file)?;
        self.write_slices()
    }

    /// Has a pod's readiness probe succeed or fail.
    pub fn set_ready(&mut self, pod: &str, ready: bool) -> Result<()> {
        if ready {
            self.unready.remove(pod);
        } else {
            self.unready.insert(pod.to_owned());
        }
        self.write_slices()
    }

    /// Adds a pod, as the kubelet and its CNI plugin do: the network first, then the status.
    pub fn add_pod(&mut self, spec: &PodSpec) -> Result<()> {
        self.topology.add_pod(spec)?;
        self.write_pods()?;
        self.write_slices()
    }

    /// Deletes a pod's object only: its network goes on, as that of a static pod does.
    pub fn lose_pod(&mut self, name: &str) -> Result<()> {
        self.write_pods_without(Some(name))
    }

    /// Brings the objects back that were deleted only.
    pub fn restore_pods(&mut self) -> Result<()> {
        self.write_pods()
    }

    /// Deletes a pod: first its object, then its network.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        self.write_pods_without(Some(name))?;
        self.write_slices_without(Some(name))?;
        self.topology.remove_pod(name)
    }

    /// The agent of a node.
    ///
    /// # Panics
    /// None runs there: the test names a node it did not start one on.
    pub fn agent(&mut self, node: &str) -> &mut Agent {
        self.agents
            .get_mut(node)
            .unwrap_or_else(|| panic!("no agent runs on {node}"))
    }

    /// The nodes whose agents were started.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    /// Waits until every running agent has carried out all that was written.
    ///
    /// # Errors
    /// One has not in ten seconds; the error shows what it says of itself.
    pub fn settle(&mut self) -> Result<()> {
        let written = Instant::now();
        self.revision += 1;
        let markers: String = (0..=self.revision % 2)
            .map(|n| {
                format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: revision-{n}\n")
            })
            .collect();
        self.manifests.write(REVISION, &markers)?;
        let namespaces = self.namespaces().len() + 1 + (self.revision % 2) as usize;
        for node in self.running() {
            loop {
                self.agent(&node).ensure_running()?;
                let unsettled = match self.unsettled(&node, namespaces, written) {
                    Ok(None) => break,
                    Ok(Some(reason)) => reason,
                    Err(error) => format!("{error:#}"),
                };
                if written.elapsed() > SETTLE_LIMIT {
                    let log = self.agent(&node).logs();
                    let lines: Vec<_> = log.lines().rev().take(40).collect();
                    let tail: Vec<_> = lines.into_iter().rev().collect();
                    bail!(
                        "the agent of {node} does not settle: {unsettled}\n{}",
                        tail.join("\n")
                    );
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Why the agent of `node` has not yet carried out what was written at that moment.
    fn unsettled(&self, node: &str, namespaces: usize, written: Instant) -> Result<Option<String>> {
        let status = self.status(node)?;
        let watches = status["watches"]
            .as_array()
            .context("watches of a status")?;
        let seen = watches
            .iter()
            .find(|watch| watch["kind"] == "Namespace")
            .and_then(|watch| watch["objects"].as_u64());
        if seen != Some(namespaces as u64) {
            return Ok(Some(format!(
                "it knows {seen:?} of {namespaces} namespaces"
            )));
        }
        let age = status["lastSyncSeconds"].as_f64();
        if age.is_none_or(|age| age > written.elapsed().as_secs_f64()) {
            return Ok(Some(format!(
                "its last sync is {age:?} seconds ago: {}",
                status["lastError"]
            )));
        }
        let pods = self.topology.pods().filter(|pod| pod.node() == node);
        let wanted: BTreeSet<_> = pods.map(|pod| pod.veth().to_owned()).collect();
        let devices = devices(&status);
        if devices != wanted {
            return Ok(Some(format!(
                "programs are on {devices:?} instead of {wanted:?}"
            )));
        }
        let wanted = self.topology.uplinks();
        let uplinks = uplinks(&status);
        Ok((uplinks != wanted)
            .then(|| format!("programs of uplinks are on {uplinks:?} instead of {wanted:?}")))
    }

    /// Objects of a kind that were applied.
    fn objects(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let objects = self.applied.values().flatten();
        objects.filter(move |object| object["kind"] == kind)
    }

    /// Namespaces that exist, as agents take it: those of pods, and those that applied objects are or mention.
    fn namespaces(&self) -> BTreeSet<String> {
        let of_pods = self.topology.pods().map(|pod| pod.spec().namespace.clone());
        let of_files = self.applied.values().flatten().map(|object| {
            let metadata = &object["metadata"];
            let field = if object["kind"] == "Namespace" {
                "name"
            } else {
                "namespace"
            };
            metadata[field].as_str().unwrap_or("default").to_owned()
        });
        of_pods.chain(of_files).collect()
    }

    fn write_pods(&self) -> Result<()> {
        self.write_pods_without(None)
    }

    fn write_pods_without(&self, leaving: Option<&str>) -> Result<()> {
        let pods: Vec<_> = self.pods_without(leaving).collect();
        self.manifests.write_objects("20-pods.yaml", &pods)
    }

    fn pods_without(&self, leaving: Option<&str>) -> impl Iterator<Item = PodObject> {
        let pods = self.topology.pods();
        pods.filter(move |pod| Some(pod.name()) != leaving)
            .map(|pod| {
                let actual = pod.object();
                match self.templates.get(pod.name()) {
                    None => actual,
                    Some(template) => {
                        let mut pod = template.clone();
                        pod.metadata.uid = actual.metadata.uid;
                        pod.status = actual.status;
                        pod
                    }
                }
            })
    }

    fn write_slices(&self) -> Result<()> {
        self.write_slices_without(None)
    }

    fn write_slices_without(&self, leaving: Option<&str>) -> Result<()> {
        let mut pods: Vec<_> = self.pods_without(leaving).collect();
        // Those in a node's own network, which no topology has.
        for object in self.objects("Pod") {
            pods.push(serde_json::from_value(object.clone()).context("read a Pod")?);
        }
        let ready = |name: &str| !self.unready.contains(name);
        let mut all = Vec::new();
        for object in self.objects("Service") {
            let service: Service =
                serde_json::from_value(object.clone()).context("read a Service")?;
            all.extend(slices(&service, &pods, ready)?);
        }
        self.manifests.write_objects("30-endpointslices.yaml", &all)
    }
}

/// Names of the devices that a status says have the programs of pods' devices.
#[must_use]
pub fn devices(status: &Value) -> BTreeSet<String> {
    devices_of(status, false)
}

/// The same for uplinks and tunnels.
#[must_use]
pub fn uplinks(status: &Value) -> BTreeSet<String> {
    devices_of(status, true)
}

fn devices_of(status: &Value, uplink: bool) -> BTreeSet<String> {
    let devices = status["devices"].as_array().into_iter().flatten();
    devices
        .filter(|device| device["uplink"] == uplink)
        .filter_map(|device| device["name"].as_str().map(str::to_owned))
        .collect()
}

/// What the topology needs to know of a pod object.
fn pod_spec(name: &str, pod: &PodObject) -> Result<PodSpec> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let namespace = pod
        .metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    ensure!(!name.is_empty(), "a pod without a name");
    Ok(PodSpec {
        name: name.to_owned(),
        namespace,
        node: node.with_context(|| format!("pod {name} has no spec.nodeName"))?,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
    })
}
