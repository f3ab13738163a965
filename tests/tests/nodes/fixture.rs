//! The cluster that the suites share, and the variants they run it in.

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::{Cluster, weir_binary};
use weir_tests::netns::Place;
use weir_tests::probe::{EchoServer, Outcome, Probe, Protocol};
use weir_tests::topology::{Drops, PodSpec, Shape, Topology, TopologySpec};
use weir_tests::{skip_without_root, soaks};

/// Where servers listen, with TCP and UDP.
pub(crate) const PORT: u16 = 8080;
/// Where servers listen that send back what they get.
pub(crate) const MIRROR: u16 = 9000;

/// Enough for an answer on a busy machine, and for a SYN that an unrelated loss delays.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// For what must stay without an answer.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// Nothing to the pods of tier `back`.
pub(crate) const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec:
  podSelector: {matchLabels: {tier: back}}
  policyTypes: [Ingress]
";

/// Every way to reach Service `stable`, for a load.
pub(crate) fn every_way() -> [(&'static str, Probe); 4] {
    let [v4, v6] = vip("stable", 80);
    [
        ("TCP over IPv4", Probe::tcp(v4)),
        ("TCP over IPv6", Probe::tcp(v6)),
        ("UDP over IPv4", Probe::udp(v4)),
        ("UDP over IPv6", Probe::udp(v6)),
    ]
}

/// A way to wire pods and nodes, and to attach programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) shape: Shape,
    pub(crate) overlay: bool,
    pub(crate) attach: &'static str,
    pub(crate) xdp: bool,
}

impl Variant {
    /// Two nodes, as strict as this way of wiring allows.
    pub(crate) fn nodes(self) -> TopologySpec {
        let mut spec = TopologySpec::new(self.shape, 2);
        spec.overlay = self.overlay;
        spec.drop_invalid = self.is_strict();
        spec.wires = self.xdp;
        spec
    }

    /// Whether packets between clients outside and pods of other nodes go past the node's network stack.
    pub(crate) fn has_fast_path(self) -> bool {
        self.xdp && !self.overlay
    }

    /// Fails if a strict node's own filters found anything out of order.
    pub(crate) fn ensure_nothing_dropped(self, topology: &Topology) -> Result<()> {
        for node in topology.nodes().filter(|_| self.is_strict()) {
            let drops = node.drops()?;
            ensure!(drops == Drops::default(), "{}: {drops:?}", node.name());
        }
        Ok(())
    }

    /// Whether the node's netfilter sees what its pods send to each other.
    pub(crate) fn forwards_between_pods(self) -> bool {
        self.shape != BRIDGE
    }

    /// Nodes drop what conntrack calls invalid where conntrack sees both directions: inside a bridge whose frames do not pass
    /// netfilter, it never sees the answers of pods to pods of the same node.
    fn is_strict(self) -> bool {
        self.forwards_between_pods()
    }
}

const BRIDGE: Shape = Shape::Bridge {
    call_iptables: false,
};
const FILTERED_BRIDGE: Shape = Shape::Bridge {
    call_iptables: true,
};

const fn variant(shape: Shape, attach: &'static str) -> Variant {
    Variant {
        shape,
        overlay: false,
        attach,
        xdp: false,
    }
}

const fn with_xdp(variant: Variant) -> Variant {
    Variant {
        xdp: true,
        ..variant
    }
}

const fn overlay(shape: Shape, attach: &'static str) -> Variant {
    Variant {
        overlay: true,
        ..variant(shape, attach)
    }
}

/// Every way on nodes that route to each other's pods, and pods of both kinds behind an overlay.
pub(crate) const ALL: [Variant; 8] = [
    variant(Shape::Ptp, "tcx"),
    variant(Shape::Ptp, "clsact"),
    variant(BRIDGE, "tcx"),
    variant(BRIDGE, "clsact"),
    variant(FILTERED_BRIDGE, "tcx"),
    variant(FILTERED_BRIDGE, "clsact"),
    overlay(FILTERED_BRIDGE, "clsact"),
    overlay(Shape::Ptp, "tcx"),
];

/// Those behind an overlay.
pub(crate) const OVERLAYS: [Variant; 2] = [ALL[6], ALL[7]];

/// Those with the program in the drivers of uplinks: where it carries packets, and where it can carry none.
pub(crate) const XDP: [Variant; 2] = [with_xdp(ALL[0]), with_xdp(ALL[6])];

/// Two that differ in everything, for what takes long.
pub(crate) const FEW: [Variant; 2] = [ALL[0], ALL[6]];

/// Of more variants than [`FEW`] and its like those in which a test runs without `cargo xtask soak`: each shape, both ways to attach, an
/// overlay, and the program in a driver.
const USUAL: [Variant; 5] = [ALL[0], ALL[2], ALL[4], ALL[6], XDP[0]];

/// Runs a test in each variant; a failure tells which.
pub(crate) fn each(variants: &[Variant], test: impl Fn(Variant) -> Result<()>) -> Result<()> {
    if skip() {
        return Ok(());
    }
    let all = soaks() || variants.len() <= USUAL.len();
    let variants = variants.iter().copied();
    let mut chosen = variants.filter(|variant| all || USUAL.contains(variant));
    chosen.try_for_each(|variant| test(variant).with_context(|| format!("{variant:?}")))
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
    /// Pods `client`, `near` and `other` on node1 and `far` and `spare` on node2, each with its name as label `app`, the
    /// Services of [`SERVICES`], and a machine `outside`.
    pub(crate) fn new(variant: Variant) -> Result<Self> {
        Self::on(variant.nodes(), variant.attach)
    }

    /// The same on these nodes, beside these machines.
    pub(crate) fn on(spec: TopologySpec, attach: &str) -> Result<Self> {
        let mut spec = spec.host("outside");
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
        let mut cluster = Cluster::build(&spec, attach)?;
        if spec.wires {
            cluster.set_options(&["--xdp=auto"]);
        }
        cluster.apply("services.yaml", &services())?;
        let pods = cluster.topology().pods();
        let servers = pods
            .map(|pod| EchoServer::start(pod, pod.name(), PORT))
            .collect::<Result<_>>()?;
        cluster.start_agents()?;
        Ok(Self { servers, cluster })
    }

    /// Has a pod come to node2, with a server; does not wait for the agents.
    pub(crate) fn add(&mut self, pod: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels = labels.iter();
        self.cluster.add_pod(&PodSpec {
            name: pod.to_owned(),
            namespace: "default".to_owned(),
            node: "node2".to_owned(),
            labels: labels
                .map(|(key, value)| (String::from(*key), String::from(*value)))
                .collect(),
        })?;
        self.serve(pod)
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

    /// The place of a pod, a node or the machine outside.
    pub(crate) fn place(&self, name: &str) -> Place {
        let topology = self.cluster.topology();
        match name {
            "node1" | "node2" => AsRef::<Place>::as_ref(topology.node(name)).clone(),
            "outside" => AsRef::<Place>::as_ref(topology.host(name)).clone(),
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

    /// Fails unless `weir explain` on node1 says that a connection is allowed, or not, and says `words`.
    pub(crate) fn ensure_explained(
        &self,
        source: &str,
        to: SocketAddr,
        allowed: bool,
        words: &str,
    ) -> Result<()> {
        let answer = self
            .cluster
            .ask("node1", &["explain", source, &to.to_string()])?;
        ensure!(
            answer.code == Some(i32::from(!allowed)) && answer.stdout.contains(words),
            "{source} -> {to}, allowed {allowed}, {words}: {answer:?}"
        );
        Ok(())
    }

    /// Fails unless `client` gets nothing at all from any of the addresses. Asks them at once: silence takes its time.
    pub(crate) fn ensure_silence(
        &self,
        client: &str,
        protocol: Protocol,
        to: [SocketAddr; 2],
    ) -> Result<()> {
        let place = &self.place(client);
        let probes = to.map(|to| Probe::tcp(to).protocol(protocol).timeout(SILENCE));
        let outcomes = thread::scope(|scope| {
            probes
                .map(|probe| scope.spawn(move || probe.run(place)))
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        for (to, outcome) in to.into_iter().zip(outcomes) {
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

/// All Services, in one file.
pub(crate) fn services() -> String {
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

/// The same [`service`] at a port of the nodes, too.
pub(crate) fn with_node_port(service: &str, port: u16) -> String {
    service
        .replace("spec:\n", "spec:\n  type: NodePort\n")
        .replace("port: 80, ", &format!("port: 80, nodePort: {port}, "))
}

/// The same [`service`], but it leads to [`MIRROR`].
pub(crate) fn to_mirror(service: &str) -> String {
    let [from, to] = [PORT, MIRROR].map(|port| format!("targetPort: {port}"));
    service.replace(&from, &to)
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
