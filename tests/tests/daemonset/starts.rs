//! The first packets of pods: with the CNI plugin none passes that no policy allows, and without it some do.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::lab::{AGNHOST, Lab, agent, pod};
use weir_tests::netns::run;

use crate::fixture::{cluster, eventually, eventually_within};

/// Pods that start.
const STARTS: usize = 40;
/// With `cargo xtask soak`.
const SOAK_STARTS: usize = 300;
/// Started at once.
const BATCH: usize = 20;
const PORT: u16 = 9000;
/// How long a batch may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two datagrams to each address that a pod may get.
const KNOCK: Duration = Duration::from_millis(25);

/// Nothing to the pods that start, and nothing from them.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet}
spec:
  podSelector: {matchLabels: {app: quiet}}
  policyTypes: [Ingress, Egress]
";

/// Says its name to the listener again and again from its first instruction on, and at last how many datagrams had come to its network then, and
/// now.
fn shout(listener: &str) -> Value {
    let script = format!(
        "before=$(grep ^Udp: /proc/net/snmp | tail -n 1); for i in 1 2 3 4 5 6 7 8 9 10; do echo $HOSTNAME > /dev/udp/{listener}/{PORT}; sleep 0.03; done; \
         (echo $before; grep ^Udp: /proc/net/snmp | tail -n 1) > /dev/termination-log"
    );
    json!({
        "name": "shout",
        "image": AGNHOST,
        "command": ["bash", "-c", script],
    })
}

/// A pod that shouts in an init container and in another one.
fn quiet(name: &str, node: &str, listener: &str) -> Value {
    let mut init = shout(listener);
    init["name"] = "first".into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "quiet"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "initContainers": [init],
            "containers": [shout(listener)],
        },
    })
}

/// In a pod that nothing isolates: hears who shouts, and knocks at every address that a pod of node2 may get.
struct Listener {
    stop: Arc<AtomicBool>,
    heard: JoinHandle<Result<BTreeSet<String>>>,
    knocking: JoinHandle<Result<()>>,
}

impl Listener {
    fn start(lab: &Lab) -> Result<Self> {
        let place = lab.place("default", "listener")?;
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let heard = place.spawn(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            let (mut names, mut buffer) = (BTreeSet::new(), [0; 256]);
            while !over.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    names.insert(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
                }
            }
            Ok(names)
        })?;
        let over = Arc::clone(&stop);
        let knocking = place.spawn(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            while !over.load(Ordering::Relaxed) {
                for host in 2..=254 {
                    // To most there is no way, which is an error here.
                    let _ = socket.send_to(b"knock", SocketAddr::from(([10, 244, 2, host], PORT)));
                }
                thread::sleep(KNOCK);
            }
            Ok(())
        })?;
        Ok(Self {
            stop,
            heard,
            knocking,
        })
    }

    /// Who was heard.
    fn finish(self) -> Result<BTreeSet<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = || anyhow::anyhow!("a thread panicked");
        self.knocking.join().map_err(|_| panicked())??;
        self.heard.join().map_err(|_| panicked())?
    }
}

/// Starts so many pods; the names of those that were heard, or that heard something.
fn leaks(lab: &Lab, starts: usize) -> Result<BTreeSet<String>> {
    let address = lab.kubectl(&["get", "pod", "listener", "-o=jsonpath={.status.podIP}"])?;
    let listener = Listener::start(lab)?;
    let mut leaks = BTreeSet::new();
    for batch in 0..starts / BATCH {
        let names = (0..BATCH).map(|number| format!("quiet-{batch}-{number}"));
        let pods: Vec<_> = names.map(|name| quiet(&name, "node2", &address)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        lab.apply(&list.to_string())?;
        leaks.extend(eventually_within(PATIENCE, || ended(lab))?);
        lab.kubectl(&["delete", "pods", "--selector=app=quiet", "--timeout=120s"])?;
    }
    leaks.extend(listener.finish()?);
    Ok(leaks)
}

/// Once all have ended: the pods that a datagram came to.
fn ended(lab: &Lab) -> Result<BTreeSet<String>> {
    let pods = lab.kubectl(&["get", "pods", "--selector=app=quiet", "-o=json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let mut reached = BTreeSet::new();
    for pod in pods["items"].as_array().context("pods")? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let status = &pod["status"];
        ensure!(
            status["phase"] == "Succeeded",
            "{name}: {}",
            status["phase"]
        );
        for containers in ["initContainerStatuses", "containerStatuses"] {
            let message = &status[containers][0]["state"]["terminated"]["message"];
            let counts = message
                .as_str()
                .with_context(|| format!("{name}: {status}"))?;
            // Udp: InDatagrams NoPorts InErrors ...
            let came = |line: &str| -> Result<u64> {
                let mut counts = line.split_whitespace().skip(1).map(str::parse::<u64>);
                Ok(counts.by_ref().take(2).sum::<Result<_, _>>()?)
            };
            let came = counts.lines().map(came).collect::<Result<Vec<_>>>()?;
            if came.first() != came.last() {
                reached.insert(name.to_owned());
            }
        }
    }
    Ok(reached)
}

/// What is in the plugin's place in the node's configuration.
fn is_installed(lab: &Lab) -> Result<bool> {
    let list = run(lab
        .node("node2")?
        .command("sh")
        .args(["-c", "cat /etc/cni/net.d/*.conflist"]))?;
    Ok(list.contains("weir-cni"))
}

#[test]
fn no_packet_of_a_starting_pod_passes_with_the_plugin() -> Result<()> {
    let Some(lab) = cluster(&[])? else {
        return Ok(());
    };
    lab.start_pods(&pod("listener", "node1", ""), &["listener"])?;
    lab.apply(POLICY)?;
    // The control: what happens without it must be seen.
    let without = leaks(&lab, BATCH)?;
    ensure!(!without.is_empty(), "no start leaked without the plugin");
    println!(
        "{} of {BATCH} starts leak without the plugin",
        without.len()
    );

    let plugin = json!({"apiVersion": "v1", "kind": "List", "items": agent::manifest("cni.yaml")?});
    lab.apply(&plugin.to_string())?;
    lab.wait_daemon_set("weir-system", "weir-cni")?;
    eventually(|| {
        ensure!(is_installed(&lab)?, "not yet");
        Ok(())
    })?;
    let starts = if weir_tests::soaks() {
        SOAK_STARTS
    } else {
        STARTS
    };
    let with = leaks(&lab, starts)?;
    ensure!(with.is_empty(), "of {starts} starts leaked: {with:?}");

    // Probes reach a pod that nobody else may talk to.
    let probed = ", args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}, \
                  livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}";
    let probed = pod("probed", "node2", probed).replace("app: probed", "app: quiet");
    lab.start_pods(&probed, &["probed"])?;

    // Taken out, pods start as before.
    lab.kubectl(&["--namespace=weir-system", "delete", "daemonset", "weir-cni"])?;
    for node in lab.nodes() {
        // By the name of the plugin the program is nothing else.
        let script = "cp /opt/cni/bin/weir-cni /var/tmp/weir && /var/tmp/weir cni uninstall";
        run(node.command("sh").args(["-c", script]))?;
    }
    ensure!(!is_installed(&lab)?, "it is still installed");
    lab.start_pods(&pod("after", "node2", ""), &["after"])
}
