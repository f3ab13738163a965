//! The harness itself: topologies reach what they should before any agent runs, and leave nothing behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::netns::{self, Namespace};
use weir_tests::probe::{
    Answer, DnsServer, EchoServer, Outcome, Probe, Protocol, Query, Records, Stream, StreamOptions,
};
use weir_tests::skip_without_root;
use weir_tests::topology::{PodSpec, Shape, Topology, TopologySpec, leftovers};

const PORT: u16 = 8080;
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected];

/// Two nodes, three pods, one machine outside.
fn spec(shape: Shape) -> TopologySpec {
    TopologySpec::new(shape, 2)
        .pod("a", "node1", &[("app", "a")])
        .pod("b", "node1", &[])
        .pod("c", "node2", &[])
        .host("outside")
}

fn servers(topology: &Topology) -> Result<Vec<EchoServer>> {
    topology
        .pods()
        .map(|pod| EchoServer::start(pod, pod.name(), PORT))
        .collect()
}

/// Every pod reaches every pod, itself too, in every way, and keeps its own address.
fn everyone_reaches_everyone(topology: &Topology) -> Result<()> {
    let _servers = servers(topology)?;
    for client in topology.pods() {
        for server in topology.pods() {
            for address in server.addresses().both() {
                for protocol in PROTOCOLS {
                    let outcome = Probe::tcp(SocketAddr::new(address, PORT))
                        .protocol(protocol)
                        .run(client);
                    let pair = format!(
                        "{} -> {} {address} {protocol:?}",
                        client.name(),
                        server.name()
                    );
                    ensure!(
                        outcome.identity() == Some(server.name()),
                        "{pair}: {outcome:?}"
                    );
                    let source = outcome.source().map(|source| source.ip());
                    ensure!(
                        source == Some(client.addresses().like(address)),
                        "{pair}: {outcome:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

fn reachable_in(shape: Shape, drop_invalid: bool) -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let spec = if drop_invalid {
        spec(shape).drop_invalid()
    } else {
        spec(shape)
    };
    let topology = Topology::build(&spec)?;
    everyone_reaches_everyone(&topology).with_context(|| topology.describe())
}

#[test]
fn pods_reach_each_other_over_ptp() -> Result<()> {
    reachable_in(Shape::Ptp, false)
}

#[test]
fn pods_reach_each_other_over_a_bridge() -> Result<()> {
    reachable_in(
        Shape::Bridge {
            call_iptables: false,
        },
        false,
    )
}

#[test]
fn pods_reach_each_other_over_a_bridge_through_netfilter() -> Result<()> {
    reachable_in(
        Shape::Bridge {
            call_iptables: true,
        },
        true,
    )
}

#[test]
fn pods_reach_each_other_where_invalid_packets_are_dropped() -> Result<()> {
    reachable_in(Shape::Ptp, true)
}

#[test]
fn shapes_are_wired_as_their_plugins_do() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for shape in [
        Shape::Ptp,
        Shape::Bridge {
            call_iptables: true,
        },
        Shape::Bridge {
            call_iptables: false,
        },
    ] {
        let topology = Topology::build(&spec(shape))?;
        let (node, pod) = (topology.node("node1"), topology.pod("a"));
        let (veth, DualStackText { v4, v6 }) = (pod.veth(), text(pod.addresses()));
        ensure!(veth.len() == 12 && veth.starts_with("veth"), "{veth}");
        let routes = node.namespace().ip_output(&["route"])?
            + &node.namespace().ip_output(&["-6", "route"])?;
        let host_routes = routes.contains(&format!("{v4} dev {veth}"))
            && routes.contains(&format!("{v6} dev {veth}"));
        ensure!(host_routes == (shape == Shape::Ptp), "{shape:?}:\n{routes}");
        ensure!(
            routes.contains("10.244.2.0/24 via 172.30.0.12"),
            "{shape:?}:\n{routes}"
        );
        ensure!(
            routes.contains("fd10:244:0:2::/64 via fd10:30::12"),
            "{shape:?}:\n{routes}"
        );
        if let Shape::Bridge { call_iptables } = shape {
            let file = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            let value =
                AsRef::<netns::Place>::as_ref(node).run(|| std::fs::read_to_string(file))?;
            ensure!(
                value.trim() == u32::from(call_iptables).to_string(),
                "{shape:?}: {value}"
            );
        }
    }
    Ok(())
}

struct DualStackText {
    v4: String,
    v6: String,
}

fn text(addresses: weir_tests::topology::DualStack) -> DualStackText {
    DualStackText {
        v4: addresses.v4.to_string(),
        v6: addresses.v6.to_string(),
    }
}

#[test]
fn outcomes_tell_failures_apart() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let (a, c) = (topology.pod("a"), topology.pod("c"));
    let _servers = servers(&topology)?;
    let short = Duration::from_millis(200);
    for address in c.addresses().both() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let closed = Probe::tcp(SocketAddr::new(address, PORT + 1))
                .protocol(protocol)
                .run(a);
            ensure!(
                closed == Outcome::Refused,
                "{address} {protocol:?}: {closed:?}"
            );
        }
    }
    // The router has no route there and says so.
    let nowhere: SocketAddr = "192.0.2.1:80".parse()?;
    let outcome = Probe::tcp(nowhere).run(topology.node("node1"));
    ensure!(outcome == Outcome::Unreachable, "{outcome:?}");
    // A machine outside has not even a router.
    let outcome = Probe::udp(nowhere).run(topology.host("outside"));
    ensure!(outcome == Outcome::Unreachable, "{outcome:?}");
    topology.node("node2").namespace().nft(
        "table inet cut { chain forward { type filter hook forward priority 0;
            tcp dport 8080 drop; udp dport 8080 drop; }; }",
    )?;
    for address in c.addresses().both() {
        for protocol in PROTOCOLS {
            let cut = Probe::tcp(SocketAddr::new(address, PORT))
                .protocol(protocol)
                .timeout(short)
                .run(a);
            ensure!(cut == Outcome::Timeout, "{address} {protocol:?}: {cut:?}");
        }
    }
    Ok(())
}

#[test]
fn a_client_may_choose_its_address_and_port() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let _servers = servers(&topology)?;
    let a = topology.pod("a");
    for server in topology.pod("c").addresses().both() {
        let from = SocketAddr::new(a.addresses().like(server), 40_000);
        for protocol in PROTOCOLS {
            // Twice: a port that was used must be usable again at once.
            for _ in 0..2 {
                let outcome = Probe::tcp(SocketAddr::new(server, PORT))
                    .protocol(protocol)
                    .from(from)
                    .run(a);
                ensure!(outcome.source() == Some(from), "{protocol:?}: {outcome:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn names_resolve_over_both_transports() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let addresses: [IpAddr; 3] = [
        "10.96.0.7".parse()?,
        "10.96.0.8".parse()?,
        "fd10:96::7".parse()?,
    ];
    let records = Records::from([(
        "web.default.svc.cluster.local".to_owned(),
        addresses.to_vec(),
    )]);
    let c = topology.pod("c");
    let _server = DnsServer::start(c, 53, records)?;
    for server in c.addresses().both() {
        for protocol in PROTOCOLS {
            let probe = Probe::tcp(SocketAddr::new(server, 53)).protocol(protocol);
            let ask = |name: &str, ipv6| {
                Query {
                    probe,
                    name: name.to_owned(),
                    ipv6,
                }
                .run(topology.pod("a"))
            };
            let name = "web.default.svc.cluster.local";
            let (v4, v6) = (ask(name, false), ask(name, true));
            ensure!(
                v4 == Answer::Addresses(addresses[..2].to_vec()),
                "{protocol:?}: {v4:?}"
            );
            ensure!(
                v6 == Answer::Addresses(addresses[2..].to_vec()),
                "{protocol:?}: {v6:?}"
            );
            ensure!(ask("other.example", false) == Answer::NoSuchName);
        }
    }
    let probe = Probe::tcp(SocketAddr::new(c.addresses().v4.into(), 54));
    let refused = Query {
        probe,
        name: "web".to_owned(),
        ipv6: false,
    }
    .run(topology.pod("a"));
    ensure!(refused == Answer::None(Outcome::Refused), "{refused:?}");
    Ok(())
}

#[test]
fn streams_see_an_interruption() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let _servers = servers(&topology)?;
    let (a, node) = (topology.pod("a"), topology.node("node2").namespace());
    let options = StreamOptions {
        stall: Duration::from_millis(300),
        ..StreamOptions::default()
    };
    let start = |protocol| {
        let to = SocketAddr::new(topology.pod("c").addresses().v6.into(), PORT);
        Stream::start(a, Probe::tcp(to).protocol(protocol), options)
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let calm = start(protocol)?;
        std::thread::sleep(Duration::from_millis(300));
        let calm = calm.finish()?;
        calm.ensure_unharmed()?;
        ensure!(
            calm.sent >= 10 && calm.sent == calm.answered,
            "{protocol:?}: {calm:?}"
        );

        let cut = start(protocol)?;
        node.nft(
            "table ip6 cut { chain forward { type filter hook forward priority 0; drop; }; }",
        )?;
        std::thread::sleep(Duration::from_millis(400));
        node.nft("delete table ip6 cut")?;
        std::thread::sleep(Duration::from_millis(100));
        let cut = cut.finish()?;
        ensure!(
            cut.ensure_unharmed().is_err() && cut.lost > 0,
            "{protocol:?}: {cut:?}"
        );
        ensure!(cut.sent == cut.answered + cut.lost, "{protocol:?}: {cut:?}");
        ensure!(
            cut.error.is_some() == (protocol == Protocol::Tcp),
            "{protocol:?}: {cut:?}"
        );
    }
    Ok(())
}

#[test]
fn pods_come_and_go() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for shape in [
        Shape::Ptp,
        Shape::Bridge {
            call_iptables: false,
        },
    ] {
        let mut topology = Topology::build(&spec(shape))?;
        let before = (
            topology.pod("b").addresses(),
            topology.pod("b").uid(),
            topology.pod("b").veth().to_owned(),
        );
        topology.remove_pod("b")?;
        let links = topology
            .node("node1")
            .namespace()
            .ip_output(&["-br", "link"])?;
        ensure!(!links.contains(&before.2), "{links}");
        let spec = PodSpec {
            name: "d".into(),
            namespace: "default".into(),
            node: "node1".into(),
            ..PodSpec::default()
        };
        let after = topology.add_pod(&spec)?;
        ensure!(
            after.addresses() == before.0,
            "the lowest free address returns"
        );
        ensure!(
            after.uid() != before.1 && after.veth() != before.2,
            "but nothing else does"
        );
        ensure!(topology.owner(before.0.v4.into()) == Some("d"));
        everyone_reaches_everyone(&topology).with_context(|| topology.describe())?;
    }
    Ok(())
}

#[test]
fn objects_say_what_was_built() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let node = topology.node("node2").object();
    let cidrs = node.spec.and_then(|spec| spec.pod_cidrs);
    ensure!(
        cidrs
            == Some(vec![
                "10.244.2.0/24".to_owned(),
                "fd10:244:0:2::/64".to_owned()
            ]),
        "{cidrs:?}"
    );
    let pod = topology.pod("c").object();
    ensure!(
        pod.metadata.labels == Some(BTreeMap::new()),
        "{:?}",
        pod.metadata
    );
    let ips = pod
        .status
        .and_then(|status| status.pod_ips)
        .unwrap_or_default();
    let ips: Vec<_> = ips.into_iter().map(|ip| ip.ip).collect();
    ensure!(ips == ["10.244.2.2", "fd10:244:0:2::2"], "{ips:?}");
    Ok(())
}

#[test]
fn agents_run_in_their_node() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let node = topology.node("node1");
    let paths = node.agent_paths();
    let script = "readlink /proc/self/ns/net; grep ^0: /proc/self/cgroup; ip -br addr show eth0; echo READY; exec sleep 60";
    let mut agent = topology.spawn_agent("node1", "/bin/sh", ["-c", script])?;
    let log = topology.node("node1").agent_log("sh");
    let ready = |times| {
        move || std::fs::read_to_string(&log).is_ok_and(|log| log.matches("READY").count() == times)
    };
    agent.wait_until(Duration::from_secs(5), ready.clone()(1))?;
    let here = std::fs::read_link("/proc/self/ns/net")?
        .display()
        .to_string();
    let there = AsRef::<netns::Place>::as_ref(node)
        .run(|| std::fs::read_link("/proc/thread-self/ns/net"))?;
    let logs = agent.logs();
    ensure!(
        there.display().to_string() != here && logs.contains(&there.display().to_string()),
        "{logs}"
    );
    ensure!(logs.contains("172.30.0.11/24"), "{logs}");
    let cgroup = paths
        .cgroup
        .file_name()
        .context("a named cgroup")?
        .to_string_lossy()
        .into_owned();
    ensure!(logs.contains(&cgroup), "{logs}");
    let first = agent.pid();
    agent.restart()?;
    agent.wait_until(Duration::from_secs(5), ready(2))?;
    ensure!(agent.pid() != first && agent.exit_status()?.is_none());
    agent.terminate(Duration::from_secs(5))?;
    ensure!(agent.exit_status()?.is_some());
    Ok(())
}

#[test]
fn threads_of_nodes_are_in_their_cgroups() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let cgroup =
        |place: &netns::Place| place.run(|| std::fs::read_to_string("/proc/thread-self/cgroup"));
    let of = |node: &str| topology.node(node).agent_paths().cgroup;
    for (place, node) in [
        (topology.node("node1").as_ref(), "node1"),
        (topology.pod("a").as_ref(), "node1"),
        (topology.pod("c").as_ref(), "node2"),
    ] {
        let (seen, wanted) = (cgroup(place)?, of(node));
        let wanted = wanted
            .file_name()
            .context("a named cgroup")?
            .to_string_lossy()
            .into_owned();
        ensure!(
            seen.lines()
                .any(|line| line.starts_with("0::/") && line.ends_with(&wanted)),
            "{wanted}: {seen}"
        );
    }
    ensure!(of("node1") != of("node2"));
    Ok(())
}

/// Whether anything on the machine still has the name of something of this topology.
fn traces(
    names: &[String],
    mounts: &[std::path::PathBuf],
    cgroups: &[std::path::PathBuf],
) -> Result<Vec<String>> {
    let mut traces: Vec<_> = netns::names()?
        .into_iter()
        .filter(|name| names.contains(name))
        .collect();
    let (all_mounts, all_cgroups) = leftovers()?;
    let left = |all: Vec<std::path::PathBuf>, ours: &[std::path::PathBuf]| {
        all.into_iter()
            .filter(|path| ours.contains(path))
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    traces.extend(left(all_mounts, mounts));
    traces.extend(left(all_cgroups, cgroups));
    traces.extend(
        mounts
            .iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    Ok(traces)
}

#[test]
fn teardown_leaves_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let mut names: Vec<_> = topology
        .pods()
        .map(|pod| pod.namespace().name().to_owned())
        .collect();
    names.extend(
        topology
            .nodes()
            .map(|node| node.namespace().name().to_owned()),
    );
    names.push(topology.host("outside").namespace().name().to_owned());
    let mounts: Vec<_> = topology
        .nodes()
        .map(|node| node.agent_paths().bpffs)
        .collect();
    let cgroups: Vec<_> = topology
        .nodes()
        .map(|node| node.agent_paths().cgroup)
        .collect();
    everyone_reaches_everyone(&topology)?;
    let while_up = traces(&names, &mounts, &cgroups)?.len();
    ensure!(
        while_up == 6 + 3 * 2,
        "6 namespaces; a mount, its directory and a cgroup per node: {while_up}"
    );
    // Even when a test panics.
    let panic = std::panic::catch_unwind(move || {
        let _topology = topology;
        panic!("on purpose");
    });
    ensure!(panic.is_err());
    let left = traces(&names, &mounts, &cgroups)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn topologies_live_side_by_side() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let first = Topology::build(&spec(Shape::Ptp))?;
    let second = Topology::build(&spec(Shape::Bridge {
        call_iptables: false,
    }))?;
    let c = first.pod("c").addresses();
    ensure!(
        c == second.pod("c").addresses(),
        "addresses follow from the spec"
    );
    let server = EchoServer::start(first.pod("c"), "c of the first", PORT)?;
    for address in c.both() {
        let to = SocketAddr::new(address, PORT);
        ensure!(Probe::tcp(to).run(first.pod("a")).identity() == Some("c of the first"));
        ensure!(Probe::tcp(to).run(second.pod("a")) == Outcome::Refused);
    }
    drop(server);
    drop(first);
    everyone_reaches_everyone(&second)
}

#[test]
fn panics_inside_a_namespace_reach_the_test() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let namespace = Namespace::new("panic")?;
    let path = namespace.path();
    let place = AsRef::<netns::Place>::as_ref(&namespace).clone();
    let panic = std::panic::catch_unwind(|| place.run(|| panic!("inside")));
    ensure!(panic.is_err());
    drop(namespace);
    ensure!(!Path::exists(&path));
    Ok(())
}
