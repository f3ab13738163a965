//! The cluster that the suites share, and the variants they run it in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::{Cluster, weir_binary};
use weir_tests::netns::Place;
use weir_tests::probe::{EchoServer, Outcome, Probe, Protocol};
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, TopologySpec};

/// Where servers listen, with TCP and UDP.
pub(crate) const PORT: u16 = 8080;

/// Enough for an answer on a busy machine, and for a SYN that an unrelated loss delays.
const PATIENCE: Duration = Duration::from_secs(3);
/// For what must stay without an answer.
const SILENCE: Duration = Duration::from_millis(400);

/// A way to wire pods and to attach programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) shape: Shape,
    pub(crate) attach: &'static str,
}

impl Variant {
    /// Two nodes, which drop what conntrack calls invalid where conntrack sees both directions: inside a bridge whose frames do
    /// not pass netfilter, it never sees the answers of pods to pods of the same node.
    pub(crate) fn nodes(self) -> TopologySpec {
        let spec = TopologySpec::new(self.shape, 2);
        if self.shape == BRIDGE {
            spec
        } else {
            spec.drop_invalid()
        }
    }
}

const BRIDGE: Shape = Shape::Bridge {
    call_iptables: false,
};
const FILTERED_BRIDGE: Shape = Shape::Bridge {
    call_iptables: true,
};

/// Every way.
pub(crate) const ALL: [Variant; 6] = [
    Variant {
        shape: Shape::Ptp,
        attach: "tcx",
    },
    Variant {
        shape: Shape::Ptp,
        attach: "clsact",
    },
    Variant {
        shape: BRIDGE,
        attach: "tcx",
    },
    Variant {
        shape: BRIDGE,
        attach: "clsact",
    },
    Variant {
        shape: FILTERED_BRIDGE,
        attach: "tcx",
    },
    Variant {
        shape: FILTERED_BRIDGE,
        attach: "clsact",
    },
];

/// Two that differ in everything, for what takes long.
pub(crate) const FEW: [Variant; 2] = [ALL[0], ALL[5]];

/// Runs a test in each variant; a failure tells which.
pub(crate) fn each(variants: &[Variant], test: impl Fn(Variant) -> Result<()>) -> Result<()> {
    if skip() {
        return Ok(());
    }
    variants
        .iter()
        .try_for_each(|&variant| test(variant).with_context(|| format!("{variant:?}")))
}

/// Whether the suite cannot run here; says why.
pub(crate) fn skip() -> bool {
    if skip_without_root() {
        return true;
    }
    let missing = weir_binary().err();
    if let Some(missing) = &missing {
        println!("SKIP: {missing}");
    }
    missing.is_some()
}

/// A cluster with an agent on each node and a server in each pod.
pub(crate) struct Fixture {
    // Servers' threads are in the cluster's namespaces, so they end first.
    servers: Vec<EchoServer>,
    pub(crate) cluster: Cluster,
}

impl Fixture {
    /// Pods `client`, `near` and `other` on node1 and `far` and `spare` on node2, each with its name as label `app`, and the
    /// Services of [`SERVICES`].
    pub(crate) fn new(variant: Variant) -> Result<Self> {
        let mut spec = variant.nodes();
        for (name, node) in [
            ("client", "node1"),
            ("near", "node1"),
            ("other", "node1"),
            ("far", "node2"),
            ("spare", "node2"),
        ] {
            let mut labels = vec![("app", name)];
            labels.push(match name {
                "near" | "far" | "spare" => ("tier", "back"),
                _ => ("tier", "front"),
            });
            if matches!(name, "near" | "far") {
                labels.push(("pair", "both"));
            }
            spec = spec.pod(name, node, &labels);
        }
        let mut cluster = Cluster::build(&spec, variant.attach)?;
        cluster.apply("services.yaml", &services())?;
        let pods = cluster.topology().pods();
        let servers = pods
            .map(|pod| EchoServer::start(pod, pod.name(), PORT))
            .collect::<Result<_>>()?;
        cluster.start_agents()?;
        Ok(Self { servers, cluster })
    }

    /// Starts a server in a pod that came later.
    pub(crate) fn serve(&mut self, pod: &str) -> Result<()> {
        let server = EchoServer::start(self.cluster.topology().pod(pod), pod, PORT)?;
        self.servers.push(server);
        Ok(())
    }

    /// Ends the server of the pod that came last.
    pub(crate) fn stop_serving(&mut self) {
        self.servers.pop();
    }

    /// The output of a `tc` command on a node.
    pub(crate) fn tc(&self, node: &str, args: &[&str]) -> Result<String> {
        let output = self.place(node).command("tc").args(args).output()?;
        ensure!(output.status.success(), "tc {args:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies a file and waits for the agents.
    pub(crate) fn apply(&mut self, file: &str, yaml: &str) -> Result<()> {
        self.cluster.apply(file, yaml)?;
        self.cluster.settle()
    }

    /// The place of a pod or a node.
    pub(crate) fn place(&self, name: &str) -> Place {
        let topology = self.cluster.topology();
        match name {
            "node1" | "node2" => AsRef::<Place>::as_ref(topology.node(name)).clone(),
            pod => AsRef::<Place>::as_ref(topology.pod(pod)).clone(),
        }
    }

    /// The addresses of a pod's server.
    pub(crate) fn server(&self, pod: &str) -> [SocketAddr; 2] {
        self.cluster
            .topology()
            .pod(pod)
            .addresses()
            .both()
            .map(|ip| SocketAddr::new(ip, PORT))
    }

    /// Fails unless `client` gets an answer from `server` at all addresses.
    pub(crate) fn ensure_reaches(
        &self,
        client: &str,
        protocol: Protocol,
        to: [SocketAddr; 2],
        servers: &[&str],
    ) -> Result<()> {
        for to in to {
            let outcome = Probe::tcp(to)
                .protocol(protocol)
                .timeout(PATIENCE)
                .run(&self.place(client));
            ensure!(
                outcome
                    .identity()
                    .is_some_and(|identity| servers.contains(&identity)),
                "{client} -> {to} {protocol:?}, for {servers:?}: {outcome:?}"
            );
        }
        Ok(())
    }

    /// Fails unless `client` gets nothing at all from any of the addresses.
    pub(crate) fn ensure_silence(
        &self,
        client: &str,
        protocol: Protocol,
        to: [SocketAddr; 2],
    ) -> Result<()> {
        for to in to {
            let outcome = Probe::tcp(to)
                .protocol(protocol)
                .timeout(SILENCE)
                .run(&self.place(client));
            ensure!(
                outcome == Outcome::Timeout,
                "{client} -> {to} {protocol:?}: {outcome:?}"
            );
        }
        Ok(())
    }
}

/// Services: the label and its value that they select, and the end of their addresses.
const SERVICES: [(&str, &str, &str, u8); 7] = [
    ("near", "app", "near", 10),
    ("far", "app", "far", 11),
    ("back", "tier", "back", 12),
    ("client", "app", "client", 13),
    ("empty", "app", "nobody", 14),
    ("other", "app", "other", 15),
    ("stable", "pair", "both", 16),
];

fn services() -> String {
    SERVICES
        .iter()
        .map(|(name, label, value, end)| service(name, label, value, *end))
        .collect()
}

/// A Service of port 80, TCP and UDP, that leads to [`PORT`].
pub(crate) fn service(name: &str, label: &str, value: &str, end: u8) -> String {
    let [v4, v6] = cluster_ips(end);
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]\n  ipFamilyPolicy: RequireDualStack\n  selector: {{{label}: {value}}}\n\
         \x20 ports:\n  - {{name: tcp, port: 80, targetPort: {PORT}, protocol: TCP}}\n  - {{name: udp, port: 80, targetPort: {PORT}, protocol: UDP}}\n"
    )
}

/// The cluster IPs that end so.
pub(crate) fn cluster_ips(end: u8) -> [IpAddr; 2] {
    [
        IpAddr::from([10, 96, 1, end]),
        IpAddr::from([0xfd10, 0x96, 0, 0, 0, 0, 0, 0x100 + u16::from(end)]),
    ]
}

/// A Service of the fixture, with that port.
pub(crate) fn vip(name: &str, port: u16) -> [SocketAddr; 2] {
    let (.., end) = SERVICES
        .iter()
        .find(|(known, ..)| *known == name)
        .expect("a Service of the fixture");
    cluster_ips(*end).map(|ip| SocketAddr::new(ip, port))
}
