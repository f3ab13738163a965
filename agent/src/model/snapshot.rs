//! All objects at one moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::{
    Attachment, ClusterPolicy, DeviceFacts, EndpointSlice, ForeignService, Namespace, Node,
    NodePorts, Object, ObjectName, Pod, Policy, Sandbox, Service, ServiceCidr,
};

/// All objects at one moment, seen from one node. A clone costs next to nothing, and what two snapshots differ in
/// is found without looking at the rest: they share what is the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Name of the node that the agent runs on.
    pub node_name: String,
    /// Services by name.
    pub services: OrdMap<ObjectName, Arc<Service>>,
    /// Services of other proxies by name.
    pub foreign: OrdMap<ObjectName, Arc<ForeignService>>,
    /// EndpointSlices by name.
    pub slices: OrdMap<ObjectName, Arc<EndpointSlice>>,
    /// NetworkPolicies by name.
    pub policies: OrdMap<ObjectName, Arc<Policy>>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: OrdMap<String, Arc<ClusterPolicy>>,
    /// Pods by name.
    pub pods: OrdMap<ObjectName, Arc<Pod>>,
    /// Namespaces by name.
    pub namespaces: OrdMap<String, Arc<Namespace>>,
    /// Nodes by name.
    pub nodes: OrdMap<String, Arc<Node>>,
    /// ServiceCIDRs by name.
    pub service_cidrs: OrdMap<String, Arc<ServiceCidr>>,
    /// Networks of this node's pods, as far as a CNI plugin announced them.
    pub sandboxes: OrdMap<Attachment, Arc<Sandbox>>,
    /// Devices of this node, those of sandboxes among them.
    pub devices: DeviceFacts,
    /// Which addresses of this node have node ports; none given means the primary ones.
    pub node_ports: Vec<NodePorts>,
}

impl Snapshot {
    /// The addresses of a node that have node ports; the devices of another than this one are not known.
    #[must_use]
    pub fn node_port_addresses(&self, node: &str) -> BTreeSet<IpAddr> {
        let rules = match &self.node_ports[..] {
            [] => &[NodePorts::Primary],
            given => given,
        };
        let own = node == self.node_name;
        let node = self.nodes.get(node);
        let primary = node.map_or(&[][..], |node| &node.primary);
        let known = node.map_or(&[][..], |node| &node.addresses);
        let devices = self.devices.addresses.iter().filter(|_| own);
        devices
            .chain(known)
            .map(IpAddr::to_canonical)
            .filter(|address| {
                let primary = primary.contains(address);
                rules.iter().any(|rule| rule.include(*address, primary))
            })
            .collect()
    }

    /// The Node object of the node that the agent runs on.
    #[must_use]
    pub fn own_node(&self) -> Option<&Arc<Node>> {
        self.nodes.get(&self.node_name)
    }

    /// Every object that a source has told of, one after the other.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        macro_rules! all {
            ($objects:ident, $kind:ident) => {
                self.$objects
                    .values()
                    .map(|object| Object::$kind((**object).clone()))
            };
        }
        all!(services, Service)
            .chain(all!(foreign, Foreign))
            .chain(all!(slices, EndpointSlice))
            .chain(all!(policies, Policy))
            .chain(all!(cluster_policies, ClusterPolicy))
            .chain(all!(pods, Pod))
            .chain(all!(namespaces, Namespace))
            .chain(all!(nodes, Node))
            .chain(all!(service_cidrs, ServiceCidr))
    }

    /// The pod in a sandbox, if the API has told of it.
    #[must_use]
    pub fn pod_in(&self, sandbox: &Sandbox) -> Option<&Arc<Pod>> {
        let pod = self.pods.get(&sandbox.pod);
        pod.filter(|pod| sandbox.is_of(pod))
    }

    /// Sandboxes whose pods the API has not told of.
    pub fn strangers(&self) -> impl Iterator<Item = &Arc<Sandbox>> {
        let sandboxes = self.sandboxes.values();
        sandboxes.filter(|sandbox| self.pod_in(sandbox).is_none())
    }
}
