//! A control plane, a topology of its nodes and pods, and the agent of `node1`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_tests::cluster::{http, weir_binary};
use weir_tests::controlplane::{ControlPlane, publish};
use weir_tests::netns::Place;
use weir_tests::probe::{self, EchoServer, Outcome, Probe};
use weir_tests::process::Process;
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, Topology, TopologySpec};

use crate::api;

/// Node of the agent.
pub(crate) const NODE: &str = "node1";
/// Port that every pod listens on.
pub(crate) const PORT: u16 = 8080;
/// How long anything may take. A watch that was cut tries again after pauses of up to 30 seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long a packet that is dropped is waited for.
const SILENCE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);

/// A running cluster without an agent.
pub(crate) struct Cluster {
    // Fields drop in this order.
    servers: Vec<EchoServer>,
    pub(crate) control: ControlPlane,
    pub(crate) topology: Topology,
    pub(crate) binary: PathBuf,
}

/// The directories of an agent: several can run on one node.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    run: String,
    bpffs: String,
    state: String,
    cgroup: String,
    metrics: SocketAddr,
}

impl Cluster {
    /// Pods `web-1`, `web-2` and `client` of namespace `shop` and `stranger` of `lab`; all but `web-2` are on the agent's node.
    /// `None` where the suite is to be skipped.
    pub(crate) fn start() -> Result<Option<Self>> {
        if skip_without_root() {
            return Ok(None);
        }
        let binary = match weir_binary() {
            Ok(binary) => binary,
            Err(missing) => {
                println!("SKIP: {missing}");
                return Ok(None);
            }
        };
        let spec = TopologySpec::new(Shape::Ptp, 2)
            .pod_in("shop", "web-1", NODE, &[("app", "web")])
            .pod_in("shop", "web-2", "node2", &[("app", "web")])
            .pod_in("shop", "client", NODE, &[("app", "client")])
            .pod_in("lab", "stranger", NODE, &[("app", "stranger")]);
        let mut topology = Topology::build(&spec)?;
        let control = ControlPlane::start_on(&mut topology)?;
        control.block_on(async |client| publish(&client, &topology).await)?;
        let servers = topology
            .pods()
            .map(|pod| EchoServer::start(pod, pod.name(), PORT))
            .collect::<Result<_>>()?;
        Ok(Some(Self {
            servers,
            control,
            topology,
            binary,
        }))
    }

    /// Directories below those of the node.
    pub(crate) fn home(&self, name: &str) -> Home {
        let paths = self.topology.node(NODE).agent_paths();
        let below = |path: &Path| path.join(name).display().to_string();
        Home {
            run: below(&paths.run),
            bpffs: below(&paths.bpffs),
            state: below(&paths.state),
            cgroup: paths.cgroup.display().to_string(),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }
    }

    /// What an agent whose metrics are at a port answers there.
    pub(crate) fn http(&self, home: &Home, path: &str) -> Result<String> {
        let node: &Place = self.topology.node(NODE).as_ref();
        let (code, body) = http::get(node, home.metrics, path)?;
        ensure!(code == 200, "{path} answers {code}: {body}");
        Ok(body)
    }

    /// Starts an agent with the administrator's kubeconfig, and waits until it is ready.
    pub(crate) fn start_agent(&self, home: &Home) -> Result<Process> {
        let kubeconfig = self.control.kubeconfig().display().to_string();
        let args = home.run_args(&["--kubeconfig", &kubeconfig]);
        let mut agent = self.topology.spawn_weir(NODE, &self.binary, args)?;
        self.wait_synced(&mut agent, home)?;
        Ok(agent)
    }

    /// Waits until an agent has brought the kernel in line with all kinds of objects, and has programs on its pods.
    pub(crate) fn wait_synced(&self, agent: &mut Process, home: &Home) -> Result<()> {
        let pods = self.topology.pods().filter(|pod| pod.node() == NODE);
        let wanted: BTreeSet<_> = pods.map(|pod| pod.veth().to_owned()).collect();
        agent.wait_until(LIMIT, || {
            let Ok(status) = self.ask(home, &["status"]) else {
                return false;
            };
            let devices = status["devices"].as_array().into_iter().flatten();
            let devices = devices.filter(|device| device["uplink"] != true);
            let devices = devices.filter_map(|device| device["name"].as_str());
            let devices: BTreeSet<_> = devices.map(str::to_owned).collect();
            status["synced"] == true && status["lastSyncSeconds"].is_f64() && devices == wanted
        })
    }

    /// Waits until an agent answers that has just been started.
    pub(crate) fn wait_answers(&self, agent: &mut Process, home: &Home) -> Result<()> {
        agent.wait_until(LIMIT, || self.ask(home, &["status"]).is_ok())
    }

    /// Takes out of the kernel what an agent left, after its end.
    pub(crate) fn clean_up(&self, home: &Home) -> Result<()> {
        let mut command = self.weir(&["cleanup", "--run-dir", &home.run, "--bpffs", &home.bpffs]);
        let output = command.output()?;
        ensure!(output.status.success(), "weir cleanup: {output:?}");
        Ok(())
    }

    /// What a command of the CLI answers.
    pub(crate) fn ask(&self, home: &Home, command: &[&str]) -> Result<Value> {
        let output = self
            .weir(&[command, &["-o", "json", "--run-dir", &home.run]].concat())
            .output()?;
        let Output { status, stdout, .. } = &output;
        ensure!(status.success(), "weir {command:?}: {output:?}");
        serde_json::from_slice(stdout).with_context(|| format!("weir {command:?}: {output:?}"))
    }

    /// The maps, so that those of two agents compare.
    pub(crate) fn dump(&self, home: &Home) -> Result<Value> {
        let mut dump = self.ask(home, &["map", "dump", "--canonical"])?;
        Ok(dump["tables"].take())
    }

    /// The pods that new connections to a Service's cluster IPs go to, by both families and protocols alike.
    pub(crate) fn backends(&self, home: &Home, namespace: &str, name: &str) -> Result<Backends> {
        let list = self.ask(home, &["service", "list", "-n", namespace])?;
        let rows = list["items"].as_array().context("a list has items")?;
        let mut all = Backends::new();
        let rows = rows.iter().filter(|row| row["kind"] == "ClusterIP");
        for row in rows.filter(|row| row["service"]["name"] == name) {
            let endpoints = row["endpoints"].as_array().into_iter().flatten();
            let used = endpoints.filter(|endpoint| endpoint["excluded"].is_null());
            let pods = used.filter_map(|endpoint| endpoint["pod"]["name"].as_str());
            let frontend = format!("{}:{}/{}", row["address"], row["port"], row["protocol"]);
            all.insert(frontend, pods.map(str::to_owned).collect());
        }
        Ok(all)
    }

    /// Waits until a Service has four frontends (two families, two protocols), each with exactly these pods.
    pub(crate) fn wait_backends(&self, home: &Home, name: &str, pods: &[&str]) -> Result<()> {
        let wanted: BTreeSet<_> = pods.iter().map(|&pod| pod.to_owned()).collect();
        eventually(&format!("Service {name} leads to {pods:?}"), || {
            let found = self.backends(home, "shop", name)?;
            let right = found.len() == 4 && found.values().all(|pods| *pods == wanted);
            Ok(if right {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            })
        })
    }

    /// Waits until a kind has that many objects in the agent's eyes.
    pub(crate) fn wait_objects(&self, home: &Home, kind: &str, count: u64) -> Result<()> {
        eventually(
            &format!("the agent knows {count} objects of {kind}"),
            || {
                let known = self.objects(home, kind)?;
                Ok(if known == count {
                    Ok(())
                } else {
                    Err(known.to_string())
                })
            },
        )
    }

    /// How many objects of a kind the agent knows.
    pub(crate) fn objects(&self, home: &Home, kind: &str) -> Result<u64> {
        let status = self.ask(home, &["status"])?;
        let watches = status["watches"].as_array().context("watches")?;
        let watch = watches.iter().find(|watch| watch["kind"] == kind);
        watch
            .and_then(|watch| watch["objects"].as_u64())
            .with_context(|| format!("{kind} is not watched: {status}"))
    }

    /// The ClusterIPs of a Service of namespace `shop`, as the API server gave them.
    pub(crate) fn cluster_ips(&self, name: &str) -> Result<Vec<IpAddr>> {
        let service = api::get(&self.control, &api::object("v1", "Service", "shop", name))?;
        let ips = service["spec"]["clusterIPs"].as_array();
        let ips = ips.into_iter().flatten().filter_map(Value::as_str);
        ips.map(|ip| Ok(ip.parse()?)).collect()
    }

    /// Waits until a pod reaches `to` by TCP and UDP, and gets answers from one of `servers`.
    pub(crate) fn reaches(&self, from: &str, to: SocketAddr, servers: &[&str]) -> Result<()> {
        let wanted = |outcome: &Outcome| outcome.identity().is_some_and(|id| servers.contains(&id));
        self.come_to(from, to, "answered", wanted)
    }

    /// Waits until a pod gets no answer from `to`, by neither TCP nor UDP.
    pub(crate) fn is_denied(&self, from: &str, to: SocketAddr) -> Result<()> {
        self.come_to(from, to, "dropped", |outcome| *outcome == Outcome::Timeout)
    }

    fn come_to(
        &self,
        from: &str,
        to: SocketAddr,
        what: &str,
        wanted: impl Fn(&Outcome) -> bool,
    ) -> Result<()> {
        for probe in [Probe::tcp(to), Probe::udp(to)] {
            let probe = probe.timeout(SILENCE);
            let outcome = probe::eventually(LIMIT, || self.run(from, probe), &wanted);
            ensure!(
                wanted(&outcome),
                "{:?} from {from} to {to} is not {what}: {outcome:?}",
                probe.protocol
            );
        }
        Ok(())
    }

    fn run(&self, from: &str, probe: Probe) -> Outcome {
        probe.run(self.topology.pod(from))
    }

    /// The addresses of a pod with the port that it listens on.
    pub(crate) fn sockets(&self, pod: &str) -> [SocketAddr; 2] {
        let addresses = self.topology.pod(pod).addresses().both();
        addresses.map(|address| SocketAddr::new(address, PORT))
    }

    /// Ends the server of the pod that `remove_pod` of the topology is about to take away, with all others.
    pub(crate) fn stop_servers(&mut self) {
        self.servers.clear();
    }

    fn weir(&self, args: &[&str]) -> Command {
        let node: &Place = self.topology.node(NODE).as_ref();
        let mut command = node.command(&self.binary);
        command.args(args);
        command
    }
}

/// Pods by frontend.
pub(crate) type Backends = BTreeMap<String, BTreeSet<String>>;

impl Home {
    /// The same with metrics at a port.
    pub(crate) fn metrics_at(mut self, port: u16) -> Self {
        self.metrics.set_port(port);
        self
    }

    /// The arguments of an agent that gets its objects as `source` says.
    pub(crate) fn run_args(&self, source: &[&str]) -> Vec<String> {
        let metrics = self.metrics.to_string();
        let own = [
            "--node-name",
            NODE,
            "--run-dir",
            &self.run,
            "--bpffs",
            &self.bpffs,
            "--state-dir",
            &self.state,
            "--cgroup-root",
            &self.cgroup,
            "--healthz-address",
            "127.0.0.1:0",
            "--metrics-address",
            &metrics,
        ];
        let args = [&["run"], source, &own].concat();
        args.into_iter().map(str::to_owned).collect()
    }
}

/// Tries until it is so; what stands in the way is part of the error.
pub(crate) fn eventually<T>(
    what: &str,
    mut check: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let late = Instant::now() > deadline;
        match check()? {
            Ok(value) => return Ok(value),
            Err(instead) if late => bail!("after {LIMIT:?} it is not so that {what}: {instead}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
