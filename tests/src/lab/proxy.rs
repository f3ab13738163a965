//! Who serves Services: kube-proxy as a process on each node, or Weir as a DaemonSet.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;

use super::agent::{self, DAEMON_SET};
use super::cni::POD_CIDRS;
use super::node::Node;
use super::objects;
use super::spec::{LabSpec, Proxy};
use crate::cluster::http;
use crate::controlplane::ControlPlane;
use crate::netns::Place;

/// How long kube-proxy may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Where it says that it is.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// The kubeconfig of kube-proxy on its node.
pub(super) const KUBECONFIG: &str = "proxy.kubeconfig";

/// The user as which it talks to the API server: every API server gives that one its rights.
pub(super) const USER: &str = "system:kube-proxy";

impl Proxy {
    /// How kube-proxy works, where it is the one.
    fn mode(self) -> Option<&'static str> {
        match self {
            Self::KubeProxyNftables => Some("nftables"),
            Self::KubeProxyIptables => Some("iptables"),
            Self::Weir | Self::None => None,
        }
    }

    /// Whether it is a process of each node.
    pub(super) fn is_process(self) -> bool {
        self.mode().is_some()
    }

    /// Starts its process on a node, if it is one, without waiting for it.
    pub(super) fn start(self, node: &mut Node) -> Result<()> {
        let Some(mode) = self.mode() else {
            return Ok(());
        };
        let words = vec![
            "kube-proxy".to_owned(),
            format!("--kubeconfig=/etc/kubernetes/{KUBECONFIG}"),
            format!("--hostname-override={}", node.name()),
            format!("--proxy-mode={mode}"),
            format!("--cluster-cidr={POD_CIDRS}"),
            // A limit of the whole machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--v=2".to_owned(),
        ];
        let process = node.machine().start("kube-proxy", words)?;
        node.set_proxy(process);
        Ok(())
    }
}

/// Tells the API server of what runs in pods.
pub(super) fn deploy(spec: &LabSpec, control: &ControlPlane) -> Result<()> {
    match spec.proxy {
        Proxy::Weir => agent::deploy(control, &spec.agent_env),
        _ => Ok(()),
    }
}

/// Waits until all nodes are served.
pub(super) fn wait(spec: &LabSpec, control: &ControlPlane, nodes: &mut [Node]) -> Result<()> {
    if spec.proxy == Proxy::Weir {
        let (namespace, name) = DAEMON_SET;
        return objects::wait_daemon_set(control, namespace, name);
    }
    nodes.iter_mut().try_for_each(|node| {
        let place: Place = AsRef::<Place>::as_ref(node.namespace()).clone();
        let ready = || http::get(&place, HEALTH, "/healthz").is_ok_and(|(code, _)| code == 200);
        match node.proxy() {
            Some(process) => process.wait_until(READY_LIMIT, ready),
            None => Ok(()),
        }
    })
}
