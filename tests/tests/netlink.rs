//! Discovery of pod devices against real links: a node and its pods as network namespaces.
//!
//! Needs root; says SKIP otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;
use weir::model::DeviceFacts;
use weir::netlink::{self, Local};

/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A network namespace that lives as long as its process.
struct Pod(Child);

impl Pod {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut pod = Self(child);
        let mut ready = [0; 6];
        let output = pod.0.stdout.as_mut().expect("output");
        std::io::Read::read_exact(output, &mut ready).expect("namespace");
        pod
    }

    fn ip(&self, arguments: &str) {
        run(
            "nsenter",
            &format!("--net=/proc/{}/ns/net ip {arguments}", self.0.id()),
        );
    }

    /// Connects the pod by a veth whose host end is `name`.
    fn connect(&self, name: &str) {
        ip(&format!(
            "link add {name} type veth peer name eth0 netns {}",
            self.0.id()
        ));
        ip(&format!("link set {name} up"));
        self.ip("link set eth0 up");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .expect(program);
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Makes this thread a node with an uplink; `false` where that is not allowed.
fn become_node() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("namespace");
    ip("link set lo up");
    true
}

/// Waits until the devices found are these, by pod address.
async fn expect(facts: &mut watch::Receiver<DeviceFacts>, expected: &[(&str, &str)]) {
    let expected: BTreeMap<IpAddr, String> = expected
        .iter()
        .map(|(pod, device)| (address(pod), (*device).to_owned()))
        .collect();
    let found = |facts: &DeviceFacts| -> BTreeMap<IpAddr, String> {
        let devices = facts.devices.iter();
        devices
            .map(|(pod, device)| (*pod, device.name.clone()))
            .collect()
    };
    let arrived =
        tokio::time::timeout(PATIENCE, facts.wait_for(|facts| found(facts) == expected)).await;
    assert!(arrived.is_ok(), "expected {expected:?}");
    arrived.expect("in time").expect("watch runs");
}

/// Runs `scene` beside the watch over the given pods.
fn with_watch<F: Future<Output = ()>>(
    pods: &[&str],
    scene: impl FnOnce(watch::Sender<Local>, watch::Receiver<DeviceFacts>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let local = Local {
        pods: pods.iter().map(|pod| address(pod)).collect(),
        node: [address("192.0.2.2")].into(),
    };
    let (local_sender, local) = watch::channel(local);
    let (facts_sender, facts) = watch::channel(DeviceFacts::default());
    runtime.block_on(async {
        tokio::select! {
            result = netlink::watch(local, facts_sender) => panic!("the watch ended: {result:?}"),
            () = scene(local_sender, facts) => {}
        }
    });
}

#[test]
fn routed_pods_come_and_go() {
    if !become_node() {
        return;
    }
    let (uplink, pod) = (Pod::new(), Pod::new());
    uplink.connect("eth0");
    ip("address add 192.0.2.2/24 dev eth0");
    ip("route add default via 192.0.2.1 dev eth0");
    // A pod of another node, and one whose address came back from there: routes over the uplink name no pod device.
    ip("route add 10.1.0.66/32 dev eth0");
    let pods = ["10.1.0.5", "fd00::5", "10.1.0.66", "192.0.2.2"];
    with_watch(&pods, async |_local, mut facts| {
        pod.connect("vethptp");
        ip("route add 10.1.0.5/32 dev vethptp");
        ip("route add fd00::5/128 dev vethptp");
        expect(
            &mut facts,
            &[("10.1.0.5", "vethptp"), ("fd00::5", "vethptp")],
        )
        .await;
        ip("link del vethptp");
        expect(&mut facts, &[]).await;
    });
}

#[test]
fn silent_pods_of_a_bridge_are_found() {
    if !become_node() {
        return;
    }
    let (pod, foreign) = (Pod::new(), Pod::new());
    ip("link add cni0 type bridge");
    ip("address add 10.2.0.1/24 dev cni0");
    ip("address add fd02::1/64 dev cni0 nodad");
    ip("link set cni0 up");
    for (pod, name, last) in [(&pod, "vethpod", 8), (&foreign, "vethforeign", 9)] {
        pod.connect(name);
        ip(&format!("link set {name} master cni0"));
        pod.ip(&format!("address add 10.2.0.{last}/24 dev eth0"));
        pod.ip(&format!("address add fd02::{last}/64 dev eth0 nodad"));
    }
    with_watch(&["10.2.0.8", "fd02::8"], async |local, mut facts| {
        expect(
            &mut facts,
            &[("10.2.0.8", "vethpod"), ("fd02::8", "vethpod")],
        )
        .await;
        // The bridge forgets, the facts stand.
        run("bridge", "fdb flush dev cni0");
        local.send_modify(|local| {
            local.pods.remove(&address("fd02::8"));
        });
        expect(&mut facts, &[("10.2.0.8", "vethpod")]).await;
        ip("link del vethpod");
        expect(&mut facts, &[]).await;
    });
}
