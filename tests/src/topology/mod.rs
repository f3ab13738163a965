//! Clusters of network namespaces: nodes on an underlay, pods wired as CNI plugins wire them, dual stack.
//!
//! Nothing touches the machine's own network: even the bridge between nodes has a namespace of its own, so any number
//! of topologies with the same addresses live side by side. Everything ends with the [`Topology`], also on a panic;
//! what a killed process left behind is removed by the next one ([`sweep`]).

mod agent;
mod firewall;
mod node;
mod objects;
mod offload;
pub(crate) mod overlay;
mod private;
pub(crate) mod spec;
mod sweep;
pub(crate) mod underlay;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};

pub use agent::{Agent, AgentPaths, least_privilege};
pub use firewall::Drops;
pub use node::{Host, Node, Pod, Transmitted};
pub use offload::finish_frames;
pub use overlay::{OVERLAY_MTU, TUNNEL_V4, TUNNEL_V6};
pub use private::leftovers;
pub(crate) use private::{Cgroup, own_cgroup};
pub use spec::{
    DualStack, MAX_HOSTS, MAX_NODES, MAX_PODS_PER_NODE, NodeSpec, PodSpec, SERVICE_CIDR_V4,
    SERVICE_CIDR_V6, Shape, TopologySpec,
};
pub use sweep::sweep;

use crate::netns::Namespace;
use underlay::Underlay;

/// A running cluster of namespaces.
#[derive(Debug)]
pub struct Topology {
    // Fields drop in this order: pods leave before the node they are wired to.
    pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    hosts: BTreeMap<String, Host>,
    underlay: Underlay,
    shape: Shape,
    overlay: bool,
    /// How many pods were ever added, for device names that never return.
    added: u32,
}

impl Topology {
    /// Builds what `spec` describes.
    pub fn build(spec: &TopologySpec) -> Result<Self> {
        ensure!(
            spec.nodes.len() <= MAX_NODES.into(),
            "the address plan has room for {MAX_NODES} nodes"
        );
        ensure!(
            spec.hosts.len() <= MAX_HOSTS.into(),
            "the address plan has room for {MAX_HOSTS} hosts"
        );
        sweep()?;
        let mut topology = Self {
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            underlay: Underlay::new(spec.wires)?,
            shape: spec.shape,
            overlay: spec.overlay,
            added: 0,
        };
        for (n, node) in (1..).zip(&spec.nodes) {
            topology.add_node(n, node, spec.drop_invalid)?;
        }
        for (n, name) in (0..).zip(&spec.hosts) {
            let host = topology.underlay.host(name, spec::host(n))?;
            ensure!(
                topology.hosts.insert(name.clone(), host).is_none(),
                "two hosts are named {name}"
            );
        }
        for pod in &spec.pods {
            topology.wire_pod(pod)?;
        }
        // Everything at once, because everything takes its time at once.
        topology.wait_for_carrier()?;
        Ok(topology)
    }

    /// The node of that name.
    ///
    /// # Panics
    /// There is none: the test names a node it did not ask for. The same holds for [`Self::pod`] and [`Self::host`].
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("the topology has no node {name}"))
    }

    /// The pod of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods
            .get(name)
            .unwrap_or_else(|| panic!("the topology has no pod {name}"))
    }

    /// The outside host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .get(name)
            .unwrap_or_else(|| panic!("the topology has no host {name}"))
    }

    /// Devices by which each node's traffic leaves it.
    #[must_use]
    pub fn uplinks(&self) -> BTreeSet<String> {
        let tunnels = [TUNNEL_V4, TUNNEL_V6].into_iter().filter(|_| self.overlay);
        tunnels.chain(["eth0"]).map(str::to_owned).collect()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The name of the pod, node or host that has `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        let pods = self.pods.values().map(|pod| (pod.name(), pod.addresses()));
        let nodes = self
            .nodes
            .values()
            .map(|node| (node.name(), node.addresses()));
        let hosts = self
            .hosts
            .values()
            .map(|host| (host.name(), host.addresses()));
        pods.chain(nodes)
            .chain(hosts)
            .find(|(_, addresses)| addresses.both().contains(&address))
            .map(|(name, _)| name)
    }

    /// Wires one more pod; its addresses are the lowest free ones of its node, so they return after [`Self::remove_pod`].
    pub fn add_pod(&mut self, spec: &PodSpec) -> Result<&Pod> {
        self.wire_pod(spec)?;
        let pod = self.pod(&spec.name);
        pod.namespace().wait_for_carrier(&["eth0"])?;
        self.wait_for_node(self.node(&spec.node))?;
        Ok(pod)
    }

    fn wire_pod(&mut self, spec: &PodSpec) -> Result<()> {
        ensure!(
            !self.pods.contains_key(&spec.name),
            "two pods are named {}",
            spec.name
        );
        let Some(node) = self.nodes.get(&spec.node) else {
            bail!(
                "pod {} is on {}, which the topology has not",
                spec.name,
                spec.node
            );
        };
        let taken = |end| {
            self.pods
                .values()
                .any(|pod| pod.addresses() == spec::pod(node.number(), end))
        };
        let end = (2..=MAX_PODS_PER_NODE + 1).find(|&end| !taken(end));
        let addresses = spec::pod(
            node.number(),
            end.with_context(|| format!("{} has no free address", spec.node))?,
        );
        self.added += 1;
        let namespace = Namespace::new(&spec.name)?;
        let veth = node::veth_name(self.added);
        wiring::connect_pod(
            node.namespace(),
            node.number(),
            self.shape,
            &namespace,
            &veth,
            addresses,
        )
        .with_context(|| format!("wire pod {}", spec.name))?;
        if self.overlay {
            overlay::lower_mtu(node.namespace(), &veth, &namespace)?;
        }
        let pod = Pod::new(spec.clone(), addresses, veth, self.added, namespace, node);
        self.pods.insert(spec.name.clone(), pod);
        Ok(())
    }

    /// Deletes a pod with its veth, as the end of its sandbox does.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let pod = self
            .pods
            .remove(name)
            .with_context(|| format!("the topology has no pod {name}"))?;
        // The namespace dies some time after its name; the device of a real pod goes with CNI DEL, before that.
        self.node(pod.node())
            .namespace()
            .ip(&format!("link del {}\n", pod.veth()))
    }

    /// What failure output wants to know of every node: addresses, routes, links.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for node in self.nodes.values() {
            for args in [["-br", "addr"], ["route", "show"], ["-6", "route"]] {
                let output = node
                    .namespace()
                    .ip_output(&args)
                    .unwrap_or_else(|error| format!("{error:#}\n"));
                text += &format!("--- {}: ip {} ---\n{output}", node.name(), args.join(" "));
            }
        }
        text
    }

    /// A namespace more on the underlay, where a control plane of this topology can listen: 172.30.0.2, fd10:30::2.
    pub fn control_plane_host(&mut self) -> Result<Host> {
        self.underlay.control_plane_host()
    }

    /// Waits until every device of the topology carries packets.
    fn wait_for_carrier(&self) -> Result<()> {
        let hosts = self.hosts.values().filter_map(Host::port);
        self.underlay
            .wait_for(self.nodes.values().map(Node::port).chain(hosts))?;
        self.nodes
            .values()
            .try_for_each(|node| self.wait_for_node(node))?;
        let (hosts, pods) = (
            self.hosts.values().map(Host::namespace),
            self.pods.values().map(Pod::namespace),
        );
        hosts
            .chain(pods)
            .try_for_each(|namespace| namespace.wait_for_carrier(&["eth0"]))
    }

    fn wait_for_node(&self, node: &Node) -> Result<()> {
        let pods = self.pods.values().filter(|pod| pod.node() == node.name());
        let mut devices: Vec<_> = pods.map(Pod::veth).collect();
        // A bridge without a port has no carrier.
        let bridge = if devices.is_empty() {
            None
        } else {
            wiring::bridge_of(self.shape)
        };
        devices.extend(bridge);
        devices.push("eth0");
        node.namespace().wait_for_carrier(&devices)
    }

    fn add_node(&mut self, n: u8, spec: &NodeSpec, drop_invalid: bool) -> Result<()> {
        ensure!(
            !self.nodes.contains_key(&spec.name),
            "two nodes are named {}",
            spec.name
        );
        let node = Node::new(n, spec, drop_invalid, &mut self.underlay)?;
        node.namespace().ip(&underlay::default_routes())?;
        wiring::prepare_node(node.namespace(), n, self.shape)
            .with_context(|| format!("prepare {}", spec.name))?;
        if self.overlay {
            overlay::prepare_node(node.namespace(), n)?;
        }
        for other in self.nodes.values() {
            self.lead(other, &node)?;
            self.lead(&node, other)?;
        }
        self.nodes.insert(spec.name.clone(), node);
        Ok(())
    }

    /// Leads from one node to the pods of another.
    fn lead(&self, from: &Node, to: &Node) -> Result<()> {
        if self.overlay {
            overlay::connect(from.namespace(), to.number())
        } else {
            from.namespace().ip(&underlay::routes_to(to.number()))
        }
    }
}
