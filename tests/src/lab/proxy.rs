//! Who serves Services: kube-proxy, or an agent as a process on each node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cni::POD_CIDRS;
use super::node::Node;
use super::spec::Proxy;
use crate::cluster::{http, weir_binary};
use crate::netns::Place;
use crate::topology::least_privilege;

/// How long a proxy may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Where both kinds of proxy say that they are ready.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// The kubeconfig of the proxy on its node.
pub(super) const KUBECONFIG: &str = "proxy.kubeconfig";

/// The directory of the agent on a node.
const WEIR: &str = "/opt/weir";

impl Proxy {
    /// The user as which it talks to the API server: the one whose rights the manifest for users binds to the agent, or the
    /// one whose rights every API server gives to kube-proxy.
    pub(super) fn user(self) -> Option<&'static str> {
        match self {
            Self::Weir => Some("system:serviceaccount:weir-system:weir"),
            Self::KubeProxyNftables | Self::KubeProxyIptables => Some("system:kube-proxy"),
            Self::None => None,
        }
    }

    /// What nodes have for it of this machine.
    pub(super) fn binds(self) -> Result<Vec<(PathBuf, PathBuf)>> {
        if self != Self::Weir {
            return Ok(Vec::new());
        }
        let binary = weir_binary()?.canonicalize().context("find the agent")?;
        let dir = binary.parent().context("a file is in a directory")?;
        Ok(vec![(dir.to_owned(), WEIR.into())])
    }

    /// Starts it on a node, without waiting for it.
    pub(super) fn start(self, node: &mut Node) -> Result<()> {
        let kubeconfig = format!("--kubeconfig=/etc/kubernetes/{KUBECONFIG}");
        let name = node.name();
        let (program, words) = match self {
            Self::None => return Ok(()),
            Self::Weir => {
                let mut words = least_privilege(&Path::new(WEIR).join("weir"));
                words.extend(["run".to_owned(), kubeconfig, format!("--node-name={name}")]);
                ("weir", words)
            }
            Self::KubeProxyNftables | Self::KubeProxyIptables => {
                let mode = match self {
                    Self::KubeProxyNftables => "nftables",
                    _ => "iptables",
                };
                let words = vec![
                    "kube-proxy".to_owned(),
                    kubeconfig,
                    format!("--hostname-override={name}"),
                    format!("--proxy-mode={mode}"),
                    format!("--cluster-cidr={POD_CIDRS}"),
                    // A limit of the whole machine.
                    "--conntrack-max-per-core=0".to_owned(),
                    "--v=2".to_owned(),
                ];
                ("kube-proxy", words)
            }
        };
        let process = node.machine().start(program, words)?;
        node.set_proxy(process);
        Ok(())
    }

    /// Waits until it has served what there was.
    pub(super) fn wait(self, node: &mut Node) -> Result<()> {
        let path = match self {
            Self::Weir => "/readyz",
            _ => "/healthz",
        };
        let place: Place = AsRef::<Place>::as_ref(node.namespace()).clone();
        let ready = || http::get(&place, HEALTH, path).is_ok_and(|(code, _)| code == 200);
        match node.proxy() {
            Some(process) => process.wait_until(READY_LIMIT, ready),
            None => Ok(()),
        }
    }
}
