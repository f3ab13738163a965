//! Real clusters on one machine: a control plane, and nodes with real kubelets and containers, dual stack.
//!
//! Each node is a machine of its own, made of namespaces; so is the control plane's, and even the bridge between them
//! has a namespace. The machine's own network is not touched, and any number of clusters with the same addresses live
//! side by side. Everything ends with the [`Lab`], also on a panic; what a killed process left behind is removed by the next
//! one ([`crate::topology::sweep`]).

pub mod agent;
mod archive;
pub(crate) mod cgroups;
mod cni;
mod daemon;
pub mod e2e;
mod flannel;
mod images;
mod init;
mod machine;
mod node;
mod objects;
mod pods;
mod proxy;
mod spec;

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

pub use images::programs;
pub(crate) use machine::DIRECTORIES;

pub use daemon::Daemon;
pub use images::AGNHOST;
pub use init::Init;
pub use machine::Entrance;
pub use node::Node;
pub use pods::pod;
pub use spec::{Cni, LabSpec, MAX_NODES, Proxy};

use crate::controlplane::{self, ControlPlane, Nodes};
use crate::topology::underlay::Underlay;
use crate::topology::{DualStack, sweep};
use machine::{Machine, MachineSpec};

/// The addresses of the cluster's DNS Service.
pub const DNS: DualStack = DualStack {
    v4: std::net::Ipv4Addr::new(10, 96, 0, 10),
    v6: std::net::Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, 0xa),
};

/// Programs that nodes run or are made with, and where Debian has them.
const PREREQUISITES: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("debootstrap", "debootstrap"),
    ("nsenter", "util-linux"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("go", "golang-go, of version 1.26"),
];

/// The objects of CoreDNS.
const COREDNS: &str = include_str!("../../data/lab/coredns.yaml");

/// A running cluster; its processes, files and namespaces end with this value.
pub struct Lab {
    // Fields drop in this order.
    nodes: Vec<Node>,
    control: ControlPlane,
    underlay: Underlay,
    spec: LabSpec,
}

/// What is missing on this machine for clusters with nodes, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("nodes are made of namespaces, which need root".to_owned());
    }
    for (program, package) in PREREQUISITES {
        let found = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
            .map(PathBuf::from)
            .into_iter()
            .chain(
                std::env::var_os("PATH")
                    .iter()
                    .flat_map(std::env::split_paths),
            )
            .any(|dir| dir.join(program).is_file());
        if !found {
            return Some(format!("there is no {program} (Debian package {package})"));
        }
    }
    let plugins = Path::new(machine::PLUGINS);
    (!plugins.join("ptp").is_file()).then(|| {
        format!(
            "there are no CNI plugins in {} (Debian package containernetworking-plugins)",
            plugins.display()
        )
    })
}

/// Builds what a cluster runs, where the cache does not have it: a quarter of an hour on two cores, once per pinned version.
pub fn build(spec: &LabSpec) -> Result<()> {
    controlplane::binaries()?;
    images::archive()?;
    if spec.cni == Cni::Flannel {
        flannel::binds()?;
    }
    if spec.proxy == Proxy::Weir {
        // Built by others: whoever has forgotten it should hear of it now.
        agent::image()?;
    }
    Ok(())
}

impl Lab {
    /// Starts a cluster and waits until it works: nodes are ready, and with somebody to serve Services, CoreDNS answers.
    ///
    /// `init` is the program that begins each node: it must call [`Init::begin`] when its arguments are `init FILE`, as
    /// `weir-cluster` does.
    pub fn start(spec: &LabSpec, init: &Path) -> Result<Self> {
        ensure!(
            spec.nodes <= MAX_NODES,
            "there is room for {MAX_NODES} nodes"
        );
        build(spec)?;
        sweep()?;
        let mut underlay = Underlay::new(false)?;
        let host = underlay.control_plane_host()?;
        // It talks to pods too: to webhooks, and for `kubectl proxy`.
        cni::lead(host.namespace(), 1..=spec.nodes)?;
        if spec.cni.is_routed() {
            cni::lead(underlay.router(), 1..=spec.nodes)?;
        }
        let control = ControlPlane::start_in(host, Nodes::Real)?;
        let mut lab = Self {
            nodes: Vec::new(),
            control,
            underlay,
            spec: spec.clone(),
        };
        lab.begin_nodes(init)?;
        lab.start_nodes()?;
        lab.wait_ready()?;
        Ok(lab)
    }

    /// Makes the machines.
    fn begin_nodes(&mut self, init: &Path) -> Result<()> {
        let spec = &self.spec;
        let names: Vec<_> = (1..=spec.nodes).map(|n| format!("node{n}")).collect();
        objects::register(&self.control, &names)?;
        let mut binds = Vec::new();
        if spec.cni == Cni::Flannel {
            binds.extend(flannel::binds()?);
        }
        let programs = programs()?;
        let user = (spec.proxy.is_process())
            .then(|| self.control.kubeconfig_of(proxy::USER, None))
            .transpose()?;
        for (n, name) in (1..).zip(&names) {
            let machine = MachineSpec {
                name,
                init,
                programs: &programs,
                binds: binds.clone(),
            };
            let dir = Machine::prepare(&machine)?;
            node::configure(dir.path(), n, spec.cni, &machine, &self.control)?;
            if let Some(user) = &user {
                let to = dir.path().join("etc/kubernetes").join(proxy::KUBECONFIG);
                machine::copy(user, &to)?;
            }
            if spec.cni == Cni::Flannel {
                flannel::configure(&self.control, dir.path())?;
            }
            let node = Node::begin(n, spec, &mut self.underlay, &machine, dir)
                .with_context(|| format!("make {name}"))?;
            self.nodes.push(node);
        }
        self.underlay.wait_for(self.nodes.iter().map(Node::port))?;
        let mut namespaces = self.nodes.iter().map(Node::namespace);
        namespaces.try_for_each(|node| node.wait_for_carrier(&["eth0"]))
    }

    /// Starts what runs on the machines, on all of them at once.
    fn start_nodes(&mut self) -> Result<()> {
        let (cni, proxy) = (self.spec.cni, self.spec.proxy);
        proxy::deploy(&self.spec, &self.control)?;
        objects::apply_text(&self.control, COREDNS)?;
        if cni == Cni::Flannel {
            flannel::grant(&self.control)?;
        }
        let mut images = vec![images::archive()?];
        if proxy == Proxy::Weir {
            images.push(agent::image()?);
        }
        let images = &images;
        thread::scope(|scope| {
            let starts: Vec<_> = self
                .nodes
                .iter_mut()
                .map(|node| {
                    scope.spawn(move || {
                        if cni == Cni::Flannel {
                            flannel::start(node)?;
                        }
                        node.start_runtime(images)?;
                        node.start_kubelet()?;
                        proxy.start(node)
                    })
                })
                .collect();
            let ended = starts.into_iter().map(|start| {
                start
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            // All are waited for, also where one fails.
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn wait_ready(&mut self) -> Result<()> {
        objects::wait_nodes(&self.control, self.nodes.len())?;
        proxy::wait(&self.spec, &self.control, &mut self.nodes)?;
        if self.spec.proxy != Proxy::None {
            objects::wait_deployment(&self.control, "coredns")?;
        }
        self.ensure_running()
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }

    /// Its control plane: `kubectl`, clients, the API server.
    #[must_use]
    pub fn control(&mut self) -> &mut ControlPlane {
        &mut self.control
    }

    /// Its nodes: `node1`, `node2`, ...
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The same, to stop and restart what runs on them.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Waits until every node runs the current pod of a DaemonSet, ready.
    ///
    /// # Errors
    /// It takes longer than a busy machine needs.
    pub fn wait_daemon_set(&self, namespace: &str, name: &str) -> Result<()> {
        objects::wait_daemon_set(&self.control, namespace, name)
    }

    /// Checks that no program of the cluster has ended by itself.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.control.ensure_running()?;
        self.nodes.iter_mut().try_for_each(Node::ensure_running)
    }
}
