//! The machines of a topology: nodes, pods, hosts outside the cluster.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde_json::Value;

use super::firewall;
use super::private::{Cgroup, NodeDirs};
use super::spec::{self, DualStack, NodeSpec, PodSpec};
use super::underlay::{Port, Underlay};
use crate::netns::{Namespace, Place};

/// A node: a namespace that forwards between its pods and its uplink `eth0`, and room of its own for an agent.
#[derive(Debug)]
pub struct Node {
    number: u8,
    spec: NodeSpec,
    pub(super) dirs: NodeDirs,
    pub(super) cgroup: Cgroup,
    port: Port,
    namespace: Namespace,
    place: Place,
}

impl Node {
    pub(super) fn new(
        number: u8,
        spec: &NodeSpec,
        drop_invalid: bool,
        underlay: &mut Underlay,
    ) -> Result<Self> {
        let namespace = Namespace::new(&spec.name)?;
        namespace.sysctl("net/ipv4/ip_forward", 1)?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", 1)?;
        // Devices made from now on take the default; the kernel uses the greater of "all" and the device's own.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), 1)?;
        }
        if drop_invalid {
            namespace.nft(firewall::RULES)?;
        }
        let port = underlay.attach(&namespace, spec::node(number))?;
        let cgroup = Cgroup::new(&spec.name)?;
        let place = namespace.as_ref().with_cgroup(cgroup.path());
        Ok(Self {
            number,
            spec: spec.clone(),
            dirs: NodeDirs::new(&spec.name)?,
            cgroup,
            port,
            namespace,
            place,
        })
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// `metadata.labels`.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.spec.labels
    }

    /// The addresses of `eth0`.
    #[must_use]
    pub fn addresses(&self) -> DualStack {
        spec::node(self.number)
    }

    /// The subnets its pods have their addresses from, as in `spec.podCIDRs`.
    #[must_use]
    pub fn pod_cidrs(&self) -> (Ipv4Network, Ipv6Network) {
        spec::pod_cidrs(self.number)
    }

    /// The node's network.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What one of the node's devices has sent so far.
    pub fn transmitted(&self, device: &str) -> Result<Transmitted> {
        let links = self
            .namespace()
            .ip_output(&["-j", "-s", "link", "show", "dev", device])?;
        let links: Value = serde_json::from_str(&links).context("read the output of ip")?;
        let sent = &links[0]["stats64"]["tx"];
        let number = |name: &str| {
            sent[name]
                .as_u64()
                .with_context(|| format!("no {name} of {device} in {links}"))
        };
        Ok(Transmitted {
            bytes: number("bytes")?,
            packets: number("packets")?,
        })
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn port(&self) -> &Port {
        &self.port
    }
}

/// What a device has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmitted {
    /// With link-layer headers.
    pub bytes: u64,
    /// As the kernel hands them over: what is cut in segments later counts as one.
    pub packets: u64,
}

impl Transmitted {
    /// What was sent after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes - earlier.bytes,
            packets: self.packets - earlier.packets,
        }
    }

    /// The mean size of a packet, in bytes; 0 if there was none.
    #[must_use]
    pub fn mean_size(self) -> u64 {
        self.bytes.checked_div(self.packets).unwrap_or(0)
    }
}

/// A pod: a namespace with one `eth0` that leads to its node.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    addresses: DualStack,
    veth: String,
    number: u32,
    namespace: Namespace,
    place: Place,
}

impl Pod {
    pub(super) fn new(
        spec: PodSpec,
        addresses: DualStack,
        veth: String,
        number: u32,
        namespace: Namespace,
        node: &Node,
    ) -> Self {
        // A container's cgroup is below its node's, so what is attached to the node's sees its sockets too.
        let place = namespace.as_ref().with_cgroup(node.cgroup.path());
        Self {
            spec,
            addresses,
            veth,
            number,
            namespace,
            place,
        }
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// `spec.nodeName`.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.spec.node
    }

    /// What the pod was made from.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// `status.podIPs`.
    #[must_use]
    pub fn addresses(&self) -> DualStack {
        self.addresses
    }

    /// The name of its veth's end on the node.
    #[must_use]
    pub fn veth(&self) -> &str {
        &self.veth
    }

    /// `metadata.uid`: another one when a pod of the same name is added again.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.number)
    }

    /// The pod's network.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// A machine on the nodes' network that is no node and knows no pod.
#[derive(Debug)]
pub struct Host {
    name: String,
    addresses: DualStack,
    namespace: Namespace,
    port: Option<Port>,
}

impl Host {
    pub(super) fn new(
        name: &str,
        addresses: DualStack,
        namespace: Namespace,
        port: Option<Port>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            addresses,
            namespace,
            port,
        }
    }

    /// A machine that nobody can reach: it has the control plane's addresses on its loopback device.
    pub(crate) fn alone(name: &str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        let DualStack { v4, v6 } = spec::CONTROL_PLANE;
        namespace.ip(&format!(
            "addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n"
        ))?;
        Ok(Self::new(name, spec::CONTROL_PLANE, namespace, None))
    }

    /// The name the test gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses of `eth0`.
    #[must_use]
    pub fn addresses(&self) -> DualStack {
        self.addresses
    }

    pub(super) fn port(&self) -> Option<&Port> {
        self.port.as_ref()
    }

    /// The host's network; it has routes to its own subnet only.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl AsRef<Place> for Node {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

impl AsRef<Place> for Pod {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

impl AsRef<Place> for Host {
    fn as_ref(&self) -> &Place {
        self.namespace.as_ref()
    }
}

/// A device name as CNI plugins choose them, another one for each `n`.
pub(super) fn veth_name(n: u32) -> String {
    // An odd factor maps the numbers one to one onto the numbers, and scatters neighbours.
    format!("veth{:08x}", n.wrapping_mul(0x9e37_79b1))
}
