//! Pods, namespaces and nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Labels, ObjectName, Protocol};

/// A pod that has been scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// metadata.uid; a file without one gets its namespace/name.
    pub uid: String,
    /// Annotation kubernetes.io/config.mirror: the UID by which the kubelet and the container runtime know a static pod.
    #[serde(default)]
    pub mirrors: Option<String>,
    /// metadata.labels.
    pub labels: Labels,
    /// status.podIPs.
    pub ips: Vec<IpAddr>,
    /// spec.hostNetwork: the addresses are the node's, no policy selects it, no selector names it.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its addresses may belong to another pod by now.
    pub terminal: bool,
    /// spec.nodeName.
    pub node: String,
    /// Container ports of containers and restartable init containers.
    pub ports: Vec<ContainerPort>,
    /// The TCP port of metrics, of a pod that asks to be scraped by the annotations prometheus.io/scrape and prometheus.io/port.
    #[serde(default)]
    pub scraped: Option<u16>,
    /// metadata.creationTimestamp in seconds, 0 if unknown: of two live pods with one address the newer owns it.
    pub created: i64,
}

/// A declared container port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Name, empty if none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

impl Pod {
    /// Whether the pod's addresses are its own: pod network, and alive.
    #[must_use]
    pub fn owns_addresses(&self) -> bool {
        !self.host_network && !self.terminal
    }

    /// The number of the port that the pod calls so for this protocol. Of several containers that use one name for one protocol the
    /// first counts, as for the endpoints of a Service.
    #[must_use]
    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let named = |port: &&ContainerPort| port.name == name && port.protocol == protocol;
        self.ports.iter().find(named).map(|port| port.port)
    }

    /// The workload that made the pod, by what controllers write into names and labels: `deploy/NAME`, `sts/NAME`, `ds/NAME`, `job/NAME` or
    /// `cronjob/NAME`. `None` for a pod of nobody's.
    #[must_use]
    pub fn workload(&self) -> Option<ObjectName> {
        let label = |key: &str| self.labels.get(key).map(String::as_str);
        let own = &self.name.name;
        let cut = || Some(own.rsplit_once('-')?.0);
        let workload = if let Some(hash) = label("pod-template-hash") {
            let name = cut()?.strip_suffix(hash)?.strip_suffix('-')?;
            format!("deploy/{name}")
        } else if label("statefulset.kubernetes.io/pod-name").is_some() {
            format!("sts/{}", cut()?)
        } else if let Some(job) = label("batch.kubernetes.io/job-name") {
            match job.rsplit_once('-') {
                // A CronJob names its Jobs after the minute that they are of.
                Some((cron, minute)) if minute.len() >= 8 && minute.parse::<u64>().is_ok() => {
                    format!("cronjob/{cron}")
                }
                _ => format!("job/{job}"),
            }
        } else if label("controller-revision-hash").is_some() {
            format!("ds/{}", cut()?)
        } else {
            return None;
        };
        Some(ObjectName::new(&self.name.namespace, workload))
    }

    /// Greatest for the pod that owns an address or device which several live pods show: the newest, and of pods of one second
    /// the one with the greatest UID.
    #[must_use]
    pub fn precedence(&self) -> (i64, &str, &ObjectName) {
        (self.created, &self.uid, &self.name)
    }
}

/// The kind of a workload as [`Pod::workload`] has it; kubectl takes more names for each.
#[must_use]
pub fn workload_kind(text: &str) -> Option<&'static str> {
    match text {
        "deploy" | "deployment" | "deployments" => Some("deploy"),
        "sts" | "statefulset" | "statefulsets" => Some("sts"),
        "ds" | "daemonset" | "daemonsets" => Some("ds"),
        "job" | "jobs" => Some("job"),
        "cj" | "cronjob" | "cronjobs" => Some("cronjob"),
        _ => None,
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// metadata.labels with kubernetes.io/metadata.name.
    pub labels: Labels,
}

impl Namespace {
    /// Label that the API server puts on every namespace: its name.
    pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

    /// A namespace with these labels and the one that every namespace has.
    #[must_use]
    pub fn new(name: impl Into<String>, mut labels: Labels) -> Self {
        let name = name.into();
        labels.insert(Self::NAME_LABEL.to_owned(), name.clone());
        Self { name, labels }
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name.
    pub name: String,
    /// metadata.labels.
    pub labels: Labels,
    /// status.addresses that are IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The first InternalIP of each family; where it has none, the first ExternalIP.
    pub primary: Vec<IpAddr>,
    /// Label topology.kubernetes.io/zone, empty where there is none.
    pub zone: String,
    /// It is being deleted, or the cluster autoscaler is about to: load balancers shall send it nothing new (KEP-3836).
    pub leaving: bool,
}
