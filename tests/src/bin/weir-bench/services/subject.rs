//! A cluster that is measured: one proxy, a client, a server on the client's node and one on another.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use weir_tests::lab::{Cni, Daemon, Lab, LabSpec, Node, Proxy, pod};
use weir_tests::netns::Place;
use weir_tests::probe::EchoServer;

use super::echo::Server;

/// The ports of the servers that are asked for exchanges, one for each way: directly, by the cluster IP, by the node port. A client's
/// kernel may use one port of its own for two of them at once, and how a proxy tells those apart is not what is measured.
const PORTS: [u16; 3] = [8080, 8081, 8082];
/// The port of those that say who they are.
pub(super) const NAMED: u16 = 8090;

/// The node of the client, and of the proxy that matters.
const NODE: &str = "node1";

/// Pods, and a Service for each of the servers.
fn objects() -> String {
    let [_, by_ip, by_node] = PORTS;
    let service = |name: &str| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{name: ip, port: 80, targetPort: {by_ip}}}, {{name: node, port: 81, targetPort: {by_node}}}]
---
"
        )
    };
    let pods = [("client", NODE), ("near", NODE), ("far", "node2")];
    let pods = pods.map(|(name, node)| pod(name, node, "")).concat();
    pods + &["near", "far"].map(service).concat()
}

/// Where a server is, and how it is reached.
pub(super) struct Spot {
    /// Which node it is on, as the client sees it.
    pub(super) name: &'static str,
    /// Its own address.
    pub(super) direct: IpAddr,
    cluster_ip: IpAddr,
    node: IpAddr,
    node_port: u16,
}

impl Spot {
    /// The server of a pod, and of the Service of the same name.
    fn find(lab: &Lab, pod: &str, name: &'static str) -> Result<Self> {
        let get = |kind: &str, path: &str| {
            lab.kubectl(&["get", kind, pod, &format!("-o=jsonpath={{{path}}}")])
        };
        Ok(Self {
            name,
            direct: get("pod", ".status.podIP")?.parse()?,
            cluster_ip: get("service", ".spec.clusterIP")?.parse()?,
            node: lab.node(NODE)?.addresses().v4.into(),
            node_port: get("service", ".spec.ports[1].nodePort")?.parse()?,
        })
    }

    /// Directly, by the cluster IP, by the node port of the client's node.
    pub(super) fn ways(&self) -> [SocketAddr; 3] {
        [
            (self.direct, PORTS[0]).into(),
            (self.cluster_ip, 80).into(),
            (self.node, self.node_port).into(),
        ]
    }
}

/// A cluster with what is needed to measure it.
pub(super) struct Subject {
    // Threads end before the cluster does.
    _servers: Vec<Server>,
    _named: Vec<EchoServer>,
    client: Place,
    spots: Vec<Spot>,
    lab: Lab,
}

impl Subject {
    /// Starts a cluster of two nodes.
    pub(super) fn start(proxy: Proxy) -> Result<Self> {
        let spec = LabSpec {
            nodes: 2,
            cni: Cni::Ptp,
            proxy,
            agent_env: Vec::new(),
        };
        let init = std::env::current_exe().context("find this program")?;
        let lab = Lab::start(&spec, &init)?;
        // The controller that makes it is not asked to hurry.
        lab.kubectl(&[
            "wait",
            "--for=create",
            "--timeout=60s",
            "serviceaccount/default",
        ])?;
        lab.start_pods(&objects(), &["client", "near", "far"])?;
        let (mut servers, mut named, mut spots) = (Vec::new(), Vec::new(), Vec::new());
        for (pod, name) in [("near", "this node"), ("far", "another node")] {
            let place = lab.place("default", pod)?;
            for port in PORTS {
                servers.push(Server::start(&place, port)?);
            }
            named.push(EchoServer::start(&place, pod, NAMED)?);
            spots.push(Spot::find(&lab, pod, name)?);
        }
        Ok(Self {
            _servers: servers,
            _named: named,
            client: lab.place("default", "client")?,
            spots,
            lab,
        })
    }

    /// Who serves Services.
    pub(super) fn name(&self) -> &'static str {
        match self.lab.spec().proxy {
            Proxy::Weir => "Weir",
            Proxy::KubeProxyNftables => "kube-proxy, nftables",
            Proxy::KubeProxyIptables => "kube-proxy, iptables",
            _ => "nobody",
        }
    }

    /// Its process on the client's node.
    pub(super) fn daemon(&self) -> Result<Daemon> {
        self.node()?.daemon(self.program())
    }

    /// What its process is called.
    pub(super) fn program(&self) -> &'static str {
        match self.lab.spec().proxy {
            Proxy::Weir => "weir",
            _ => "kube-proxy",
        }
    }

    /// The servers.
    pub(super) fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// The client.
    pub(super) fn client(&self) -> &Place {
        &self.client
    }

    /// The cluster.
    pub(super) fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// The client's node.
    pub(super) fn node(&self) -> Result<&Node> {
        self.lab.node(NODE)
    }

    /// The same, to restart what runs on it.
    pub(super) fn node_mut(&mut self) -> Result<&mut Node> {
        let mut nodes = self.lab.nodes_mut().iter_mut();
        nodes
            .find(|node| node.name() == NODE)
            .context("the client's node")
    }
}
