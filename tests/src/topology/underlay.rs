//! The network that nodes, outside hosts and a control plane share: one bridge in a namespace of its own.

use anyhow::Result;
use nix::net::if_::if_nametoindex;

use super::spec::{self, CONTROL_PLANE, DualStack, ROUTER};
use super::{Host, offload};
use crate::netns::{Namespace, Place};
use crate::xdp::Constant;

/// The bridge between nodes, and the router they send what they know no route for.
#[derive(Debug)]
pub(crate) struct Underlay {
    namespace: Namespace,
    ports: usize,
    wires: Option<Vec<Constant>>,
}

/// The bridge's end of what is attached.
#[derive(Debug)]
pub(crate) struct Port(String);

impl Underlay {
    /// With `wires` as in [`super::TopologySpec::wires`].
    pub(crate) fn new(wires: bool) -> Result<Self> {
        let namespace = Namespace::new("underlay")?;
        namespace.sysctl("net/ipv4/ip_forward", 1)?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", 1)?;
        let DualStack { v4, v6 } = ROUTER;
        namespace.ip(&format!(
            "link add br0 type bridge\n\
             addr add {v4}/24 dev br0\n\
             addr add {v6}/64 dev br0 nodad\n\
             link set br0 up\n"
        ))?;
        Ok(Self {
            namespace,
            ports: 0,
            wires: wires.then(Vec::new),
        })
    }

    /// Gives `namespace` an `eth0` with `address` on this network. It works once [`Self::wait_for`] has seen its port.
    pub(crate) fn attach(&mut self, namespace: &Namespace, address: DualStack) -> Result<Port> {
        let port = format!("port{}", self.ports);
        self.ports += 1;
        self.namespace.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master br0 up\n",
            namespace.name()
        ))?;
        if let Some(receivers) = &mut self.wires {
            offload::finish_frames(namespace.as_ref(), "eth0")?;
            // What a veth's driver sends back arrives only where a program is, too.
            let place: &Place = self.namespace.as_ref();
            receivers.push(place.run(|| Constant::passing(if_nametoindex(port.as_str())?))?);
        }
        let DualStack { v4, v6 } = address;
        namespace.ip(&format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n"
        ))?;
        Ok(Port(port))
    }

    /// Makes a machine with `address` on this network. It works once [`Self::wait_for`] has seen its port.
    pub(crate) fn host(&mut self, name: &str, address: DualStack) -> Result<Host> {
        let namespace = Namespace::new(name)?;
        let port = self.attach(&namespace, address)?;
        Ok(Host::new(name, address, namespace, Some(port)))
    }

    /// Makes the control plane's machine, and waits until it can be reached: 172.30.0.2, fd10:30::2.
    pub(crate) fn control_plane_host(&mut self) -> Result<Host> {
        let host = self.host("control-plane", CONTROL_PLANE)?;
        host.namespace().wait_for_carrier(&["eth0"])?;
        self.wait_for(host.port())?;
        Ok(host)
    }

    /// The router's network.
    pub(crate) fn router(&self) -> &Namespace {
        &self.namespace
    }

    /// Waits until the bridge carries what comes through `ports`.
    pub(crate) fn wait_for<'a>(&self, ports: impl IntoIterator<Item = &'a Port>) -> Result<()> {
        let ports: Vec<_> = ports.into_iter().map(|port| port.0.as_str()).collect();
        // A bridge without a port has no carrier.
        let bridge = if ports.is_empty() { None } else { Some("br0") };
        self.namespace
            .wait_for_carrier(&[ports, bridge.into_iter().collect()].concat())
    }
}

/// Lines of `ip` that send what a node has no other route for to the router.
pub(crate) fn default_routes() -> String {
    let DualStack { v4, v6 } = ROUTER;
    format!("route add default via {v4}\nroute add ::/0 via {v6}\n")
}

/// Lines of `ip` that lead from a node to the pods of the node numbered `n`.
pub(crate) fn routes_to(n: u8) -> String {
    let (via, (v4, v6)) = (spec::node(n), spec::pod_cidrs(n));
    format!(
        "route add {v4} via {}\nroute add {v6} via {}\n",
        via.v4, via.v6
    )
}
