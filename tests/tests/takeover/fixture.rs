//! Two nodes and their pods with a control plane; the first node is served by the real kube-proxy or by Weir.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_tests::cluster::{http, weir_binary};
use weir_tests::controlplane::{ControlPlane, publish};
use weir_tests::lab;
use weir_tests::netns::{Place, feed, run};
use weir_tests::probe::{EchoServer, Probe, Report, Stream, StreamOptions};
use weir_tests::process::Process;
use weir_tests::topology::{Shape, Topology, TopologySpec};

/// The node under test.
pub(crate) const NODE: &str = "node1";
/// Where servers listen, and those that speak first.
const PORT: u16 = 8080;
const PUSH: u16 = 9001;
/// The node port of Service `web`.
pub(crate) const NODE_PORT: u16 = 30080;
const LIMIT: Duration = Duration::from_secs(60);

/// Service `web` leads to pods of both nodes, `one` to the pod that asks it.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.1.50
  clusterIPs: [10.96.1.50, 'fd10:96::150']
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
    - {name: echo, port: 80, targetPort: 8080, nodePort: 30080}
    - {name: push, port: 81, targetPort: 9001}
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: default}
spec:
  clusterIP: 10.96.1.51
  clusterIPs: [10.96.1.51, 'fd10:96::151']
  ipFamilyPolicy: RequireDualStack
  selector: {number: one}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 8080}, {port: 9001}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
";

/// What was set up.
pub(crate) struct Fixture {
    // Fields drop in this order.
    proxy: Option<Process>,
    agent: Option<Process>,
    _servers: Vec<EchoServer>,
    pub(crate) pushers: Vec<Pusher>,
    control: ControlPlane,
    pub(crate) topology: Topology,
    binary: PathBuf,
}

impl Fixture {
    /// A cluster that nobody serves; `None`, with the reason said, where this machine can have none.
    pub(crate) fn new() -> Result<Option<Self>> {
        let binary = weir_binary().map_err(|error| format!("{error:#}"));
        let missing = lab::missing().or(binary.as_ref().err().cloned());
        if let Some(missing) = missing {
            println!("SKIP: {missing}");
            return Ok(None);
        }
        let spec = TopologySpec::new(Shape::Ptp, 2)
            .pod("client", NODE, &[("app", "client")])
            .pod("web-1", NODE, &[("app", "web"), ("number", "one")])
            .pod("web-2", "node2", &[("app", "web")])
            .host("outside");
        let mut topology = Topology::build(&spec)?;
        let control = ControlPlane::start_on(&mut topology)?;
        control.block_on(async |client| publish(&client, &topology).await)?;
        feed(control.kubectl().args(["apply", "-f", "-"]), OBJECTS)?;
        let web = ["web-1", "web-2"].map(|name| topology.pod(name));
        let servers = web
            .map(|pod| EchoServer::start(pod, pod.name(), PORT))
            .into_iter()
            .collect::<Result<_>>()?;
        let pushers = web
            .map(|pod| Pusher::start(pod.as_ref()))
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Some(Self {
            proxy: None,
            agent: None,
            _servers: servers,
            pushers,
            control,
            topology,
            binary: weir_binary()?,
        }))
    }

    fn node(&self) -> Place {
        AsRef::<Place>::as_ref(self.topology.node(NODE)).clone()
    }

    /// Starts kube-proxy on the node, and waits until it serves.
    pub(crate) fn start_proxy(&mut self, mode: &str) -> Result<()> {
        let program = lab::programs()?.join("kube-proxy");
        let kubeconfig = self.control.kubeconfig().display().to_string();
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--hostname-override={NODE}"),
            format!("--proxy-mode={mode}"),
            "--cluster-cidr=10.244.0.0/16,fd10:244::/48".to_owned(),
            // A limit of the whole machine.
            "--conntrack-max-per-core=0".to_owned(),
        ];
        let place = self.node();
        let log = self.topology.node(NODE).agent_log("kube-proxy");
        let process = Process::start("kube-proxy", &log, move || {
            let mut command = place.command(&program);
            command.args(&arguments);
            command
        })?;
        let proxy = self.proxy.insert(process);
        let place = AsRef::<Place>::as_ref(self.topology.node(NODE)).clone();
        let health = SocketAddr::from(([127, 0, 0, 1], 10256));
        proxy.wait_until(LIMIT, || {
            http::get(&place, health, "/healthz").is_ok_and(|(code, _)| code == 200)
        })?;
        self.wait_served()
    }

    /// Waits until new connections to the Service reach both pods.
    pub(crate) fn wait_served(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        for to in vip(50, 80) {
            let mut seen = std::collections::BTreeSet::new();
            while seen.len() < 2 {
                ensure!(Instant::now() < deadline, "{to} leads to {seen:?} only");
                let outcome = Probe::tcp(to).run(self.topology.pod("client"));
                seen.extend(outcome.identity().map(str::to_owned));
            }
        }
        Ok(())
    }

    /// Ends kube-proxy, which leaves its rules.
    pub(crate) fn stop_proxy(&mut self) -> Result<()> {
        let mut proxy = self.proxy.take().context("kube-proxy runs")?;
        proxy.kill()
    }

    /// Starts Weir on the node, and waits until it serves.
    pub(crate) fn start_weir(&mut self) -> Result<()> {
        let paths = self.topology.node(NODE).agent_paths();
        let path = |path: &std::path::Path| path.display().to_string();
        let arguments = [
            ("--kubeconfig", path(self.control.kubeconfig())),
            ("--node-name", NODE.to_owned()),
            ("--run-dir", path(&paths.run)),
            ("--bpffs", path(&paths.bpffs)),
            ("--state-dir", path(&paths.state)),
            ("--cgroup-root", path(&paths.cgroup)),
            ("--healthz-address", "127.0.0.1:0".to_owned()),
            ("--metrics-address", "127.0.0.1:0".to_owned()),
        ];
        let arguments = arguments
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        let arguments = std::iter::once("run".to_owned()).chain(arguments).collect();
        let mut agent = self.topology.spawn_weir(NODE, &self.binary, arguments)?;
        agent.wait_until(LIMIT, || {
            let status = self.weir(&["status", "-o", "json"]);
            let status = status.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
            status.is_ok_and(|status| {
                let devices = status["devices"].as_array().map_or(0, Vec::len);
                status["lastSyncSeconds"].is_f64() && devices == 3
            })
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Ends Weir and cleans up.
    pub(crate) fn remove_weir(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("Weir runs")?;
        agent.kill()?;
        let bpffs = self.topology.node(NODE).agent_paths().bpffs;
        self.weir(&["cleanup", "--bpffs", &bpffs.display().to_string()])
            .map(drop)
    }

    /// The log of the agent.
    pub(crate) fn log(&self) -> String {
        self.agent.as_ref().map(Process::logs).unwrap_or_default()
    }

    /// Runs a command of `weir` on the node to its end.
    pub(crate) fn weir(&self, arguments: &[&str]) -> Result<String> {
        let run_dir = self.topology.node(NODE).agent_paths().run;
        let mut command = self.node().command(&self.binary);
        command
            .args(arguments)
            .args(["--run-dir", &run_dir.display().to_string()]);
        run(&mut command)
    }

    /// The rules of the node.
    pub(crate) fn rules(&self) -> Result<String> {
        run(self.node().command("nft").args(["list", "ruleset"]))
    }

    /// Opens connections in all ways: each goes on until it is finished.
    pub(crate) fn open(&self) -> Result<Vec<Connection>> {
        const EACH: usize = 6;
        let node: IpAddr = self.topology.node(NODE).addresses().v4.into();
        let node6: IpAddr = self.topology.node(NODE).addresses().v6.into();
        let ports = [node, node6].map(|ip| SocketAddr::new(ip, NODE_PORT));
        let ways: [(&str, Place, [SocketAddr; 2]); 4] = [
            ("pod", self.place("client"), vip(50, 80)),
            ("pod to itself", self.place("web-1"), vip(51, 80)),
            ("node", self.node(), vip(50, 80)),
            ("outside", self.place("outside"), ports),
        ];
        let options = StreamOptions {
            stall: Duration::from_secs(4),
            ..StreamOptions::default()
        };
        let mut open = Vec::new();
        for (way, place, addresses) in ways {
            for to in addresses {
                for _ in 0..EACH {
                    let probe = Probe::tcp(to).timeout(Duration::from_secs(5));
                    let stream = Stream::start(&place, probe, options)
                        .with_context(|| format!("{way} to {to}"))?;
                    open.push(Connection { way, to, stream });
                }
            }
        }
        Ok(open)
    }

    fn place(&self, name: &str) -> Place {
        match name {
            "outside" => AsRef::<Place>::as_ref(self.topology.host(name)).clone(),
            pod => AsRef::<Place>::as_ref(self.topology.pod(pod)).clone(),
        }
    }
}

/// The addresses of a Service of [`OBJECTS`].
pub(crate) fn vip(end: u8, port: u16) -> [SocketAddr; 2] {
    let v6 = [
        0xfd10,
        0x96,
        0,
        0,
        0,
        0,
        0,
        0x100 + u16::from(end / 10 * 16 + end % 10),
    ];
    [IpAddr::from([10, 96, 1, end]), IpAddr::from(v6)].map(|ip| SocketAddr::new(ip, port))
}

/// A connection in use.
pub(crate) struct Connection {
    way: &'static str,
    to: SocketAddr,
    stream: Stream,
}

/// What became of connections.
pub(crate) fn finish(connections: Vec<Connection>) -> Result<Vec<(String, Report)>> {
    let reports = connections.into_iter().map(|connection| {
        let name = format!("{} to {}", connection.way, connection.to);
        Ok((name, connection.stream.finish()?))
    });
    reports.collect()
}

/// Servers that say nothing until they are told to.
pub(crate) struct Pusher {
    clients: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pusher {
    fn start(place: &Place) -> Result<Self> {
        let clients: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let listener = place.run(|| TcpListener::bind(("::", PUSH)))?;
        listener.set_nonblocking(true)?;
        let (known, stopped) = (Arc::clone(&clients), Arc::clone(&stop));
        let thread = place.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => known.lock().expect("clients").push(client),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        })?;
        Ok(Self {
            clients,
            stop,
            thread: Some(thread),
        })
    }

    /// Says something to all clients.
    pub(crate) fn push(&self) -> Result<()> {
        for client in self.clients.lock().expect("clients").iter_mut() {
            client.write_all(b"x")?;
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.clients.lock().expect("clients").len()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// Clients of the servers that speak first, which say nothing.
pub(crate) fn listen(fixture: &Fixture) -> Result<Vec<TcpStream>> {
    let place = fixture.place("client");
    let mut clients = Vec::new();
    for to in vip(50, 81).into_iter().cycle().take(8) {
        let client = place.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        clients.push(client);
    }
    let deadline = Instant::now() + LIMIT;
    let accepted = || fixture.pushers.iter().map(Pusher::count).sum::<usize>();
    while accepted() < clients.len() {
        if Instant::now() > deadline {
            bail!(
                "only {} of {} clients were accepted",
                accepted(),
                clients.len()
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(clients)
}

/// Has the servers speak, and fails unless every client hears it.
pub(crate) fn ensure_heard(fixture: &Fixture, clients: &mut [TcpStream]) -> Result<()> {
    fixture.pushers.iter().try_for_each(Pusher::push)?;
    for client in clients {
        let mut byte = [0];
        client
            .read_exact(&mut byte)
            .with_context(|| format!("{:?} hears nothing", client.peer_addr()))?;
    }
    Ok(())
}
