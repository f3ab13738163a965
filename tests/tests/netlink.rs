//! Discovery of pod devices against real links: a node and its pods as network namespaces.
//!
//! Needs root; says SKIP otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;
use weir::model::DeviceFacts;
use weir::netlink::{self, Local, Owners};

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

    /// Connects the pod to the bridge. It sends nothing by itself, except for what IPv6 sends without an address.
    fn join(&self, name: &str, last: u8) {
        self.connect(name);
        ip(&format!("link set {name} master cni0"));
        self.ip(&format!("address add 10.2.0.{last}/24 dev eth0"));
        self.ip(&format!("address add fd02::{last}/64 dev eth0 nodad"));
    }

    /// The Ethernet address.
    fn mac(&self) -> String {
        let process = self.0.id().to_string();
        let net = format!("--net=/proc/{process}/ns/net");
        let link = output(
            "nsenter",
            &[&net, "ip", "-br", "link", "show", "dev", "eth0"],
        );
        link.split_whitespace().nth(2).expect("address").to_owned()
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

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
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

fn local_pods(pods: &[(&str, &str)]) -> BTreeMap<IpAddr, String> {
    pods.iter()
        .map(|(pod, uid)| (address(pod), (*uid).to_owned()))
        .collect()
}

/// Names of devices by pod address.
fn devices(facts: &DeviceFacts) -> BTreeMap<IpAddr, String> {
    let devices = facts.devices.iter();
    devices
        .map(|(pod, device)| (*pod, device.name.clone()))
        .collect()
}

fn expected(devices: &[(&str, &str)]) -> BTreeMap<IpAddr, String> {
    devices
        .iter()
        .map(|(pod, device)| (address(pod), (*device).to_owned()))
        .collect()
}

/// Waits until the devices found are these, by pod address.
async fn expect(facts: &mut watch::Receiver<DeviceFacts>, expected: &[(&str, &str)]) {
    let expected = self::expected(expected);
    let arrived =
        tokio::time::timeout(PATIENCE, facts.wait_for(|facts| devices(facts) == expected)).await;
    assert!(arrived.is_ok(), "expected {expected:?}");
    arrived.expect("in time").expect("watch runs");
}

/// Runs `scene` beside the watch over pods: addresses, with the UID of each one's pod.
fn with_watch<F: Future<Output = ()>>(
    pods: &[(&str, &str)],
    scene: impl FnOnce(watch::Sender<Local>, watch::Receiver<DeviceFacts>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let local = Local {
        pods: local_pods(pods),
        node: [address("192.0.2.2")].into(),
    };
    let (local_sender, local) = watch::channel(local);
    let (facts_sender, facts) = watch::channel(DeviceFacts::default());
    let mut owners = Owners::default();
    runtime.block_on(async {
        tokio::select! {
            result = netlink::watch(local, facts_sender, &mut owners) => panic!("the watch ended: {result:?}"),
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
    let pods = [
        ("10.1.0.5", "pod"),
        ("fd00::5", "pod"),
        ("10.1.0.66", "returned"),
        ("192.0.2.2", "host"),
    ];
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

/// A bridge with pods; its neighbours stay reachable for as long as a test takes.
fn add_bridge() {
    // With an address of its own: one that it has from its ports changes with them, which clears the neighbour table.
    ip("link add cni0 address 02:00:00:00:00:01 type bridge");
    ip("address add 10.2.0.1/24 dev cni0");
    ip("address add fd02::1/64 dev cni0 nodad");
    ip("link set cni0 up");
    for family in ["ipv4", "ipv6"] {
        let file = format!("/proc/sys/net/{family}/neigh/cni0/base_reachable_time_ms");
        std::fs::write(&file, "600000").expect(&file);
    }
}

#[test]
fn silent_pods_of_a_bridge_are_found() {
    if !become_node() {
        return;
    }
    let (pod, foreign) = (Pod::new(), Pod::new());
    add_bridge();
    pod.join("vethpod", 8);
    foreign.join("vethforeign", 9);
    with_watch(
        &[("10.2.0.8", "pod"), ("fd02::8", "pod")],
        async |local, mut facts| {
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
        },
    );
}

/// The neighbour table believes in the pod that had the address before.
#[test]
fn a_silent_pod_that_reuses_an_address_is_found() {
    for address in ["10.2.0.8", "fd02::8"] {
        if !become_node() {
            return;
        }
        add_bridge();
        let (old, new, other) = (Pod::new(), Pod::new(), Pod::new());
        old.join("vethold", 8);
        // A bridge without ports has no carrier, and then no neighbours.
        other.join("vethother", 9);
        with_watch(&[(address, "old")], async |local, mut facts| {
            expect(&mut facts, &[(address, "vethold")]).await;
            local.send_modify(|local| local.pods.clear());
            ip("link del vethold");
            expect(&mut facts, &[]).await;
            let neighbour = output("ip", &["neighbour", "show", address, "dev", "cni0"]);
            assert!(neighbour.contains("REACHABLE"), "{neighbour}");

            new.join("vethnew", 8);
            local.send_modify(|local| local.pods = local_pods(&[(address, "new")]));
            expect(&mut facts, &[(address, "vethnew")]).await;
        });
    }
}

/// The object of a static pod is made anew with another UID, and the API may tell of the next pod before its device is there.
#[test]
fn a_device_goes_to_the_next_pod_only_if_that_answers() {
    if !become_node() {
        return;
    }
    add_bridge();
    let (old, new, other) = (Pod::new(), Pod::new(), Pod::new());
    old.join("vethold", 8);
    with_watch(&[("10.2.0.8", "first")], async |local, mut facts| {
        expect(&mut facts, &[("10.2.0.8", "vethold")]).await;
        other.join("vethother", 9);
        let pods = [("10.2.0.8", "second"), ("10.2.0.9", "other")];
        local.send_modify(|local| local.pods = local_pods(&pods));
        let found_other = ("10.2.0.9", "vethother");
        expect(&mut facts, &[("10.2.0.8", "vethold"), found_other]).await;

        let pods = [("10.2.0.8", "third"), ("10.2.0.9", "other")];
        old.ip("address flush dev eth0");
        local.send_modify(|local| local.pods = local_pods(&pods));
        expect(&mut facts, &[found_other]).await;
        new.join("vethnew", 8);
        expect(&mut facts, &[("10.2.0.8", "vethnew"), found_other]).await;
    });
}

#[test]
fn a_live_pods_device_is_not_taken_for_anothers() {
    for address in ["10.2.0.9", "fd02::9"] {
        if !become_node() {
            return;
        }
        add_bridge();
        let (first, second, third) = (Pod::new(), Pod::new(), Pod::new());
        first.join("vethfirst", 8);
        second.join("vethsecond", 9);
        let mut pods = vec![("10.2.0.8", "first")];
        let mut found = vec![("10.2.0.8", "vethfirst")];
        with_watch(&pods.clone(), async |local, mut facts| {
            expect(&mut facts, &found).await;
            let wrong = format!("{address} lladdr {} dev cni0", first.mac());
            ip(&format!("neighbour replace {wrong} nud reachable"));
            pods.push((address, "second"));
            found.push((address, "vethsecond"));
            local.send_modify(|local| local.pods = local_pods(&pods));
            // Nothing else comes in between.
            let changed = tokio::time::timeout(PATIENCE, facts.changed()).await;
            changed.expect("in time").expect("watch runs");
            assert_eq!(devices(&facts.borrow()), expected(&found));

            // Later the same entry changes nothing.
            ip(&format!("neighbour replace {wrong} nud reachable"));
            third.join("veththird", 77);
            pods.push(("10.2.0.77", "third"));
            found.push(("10.2.0.77", "veththird"));
            local.send_modify(|local| local.pods = local_pods(&pods));
            let changed = tokio::time::timeout(PATIENCE, facts.changed()).await;
            changed.expect("in time").expect("watch runs");
            assert_eq!(devices(&facts.borrow()), expected(&found));
        });
    }
}

#[test]
fn configured_neighbours_are_left_as_they_are() {
    if !become_node() {
        return;
    }
    add_bridge();
    let (v4, v6) = (Pod::new(), Pod::new());
    v4.join("vethv4", 8);
    v6.join("vethv6", 9);
    let nobody = "02:00:00:00:00:77";
    let configured = [
        ("10.2.0.3", "nud permanent", [nobody, "PERMANENT"]),
        ("10.2.0.4", "nud noarp", [nobody, "NOARP"]),
        ("10.2.0.5", "extern_learn", [nobody, "extern_learn"]),
        ("10.2.0.6", "nud stale protocol bgp", [nobody, "proto bgp"]),
        // The kernel asks for it by itself.
        ("10.2.0.7", "managed", ["10.2.0.7", "managed"]),
        ("fd02::3", "nud permanent", [nobody, "PERMANENT"]),
    ];
    for (address, how, _) in configured {
        ip(&format!(
            "neighbour add {address} lladdr {nobody} dev cni0 {how}"
        ));
    }
    let mut pods: Vec<_> = configured
        .iter()
        .map(|(address, ..)| (*address, *address))
        .collect();
    // The last of each family: when they are found the others have had their turn.
    pods.extend([("10.2.0.8", "v4"), ("fd02::9", "v6")]);
    with_watch(&pods, async |_local, mut facts| {
        expect(&mut facts, &[("10.2.0.8", "vethv4"), ("fd02::9", "vethv6")]).await;
    });
    for (address, _, marks) in configured {
        let entry = output(
            "ip",
            &["neighbour", "show", address, "dev", "cni0", "nud", "all"],
        );
        assert!(
            marks.iter().all(|mark| entry.contains(mark)),
            "{address}: {entry}"
        );
    }
}
