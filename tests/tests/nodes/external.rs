//! Services, as a machine outside the cluster sees them: node ports, and addresses that are routed to a node.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::probe::{EchoServer, Mirror, Outcome, Probe, Protocol, connections};
use weir_tests::topology::DualStack;

use crate::fixture::{
    ALL, Fixture, MIRROR, OVERLAYS, PATIENCE, PORT, Variant, XDP, cluster_ips, each, service,
    to_mirror, with_node_port,
};

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Addresses of the load balancer and of external IPs, which no machine has.
const LOAD_BALANCER: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const EXTERNAL: [&str; 2] = ["192.0.2.20", "2001:db8::20"];
/// Node ports.
pub(crate) const NEAR: u16 = 30010;
pub(crate) const FAR: u16 = 30011;
const LOCAL: u16 = 30012;
const EMPTY: u16 = 30013;
const BOTH: u16 = 30014;
const MIRROR_NEAR: u16 = 30015;
const MIRROR_FAR: u16 = 30016;

/// A refusal takes a round trip; waiting for one would take a time-out.
const AT_ONCE: Duration = Duration::from_millis(800);

/// Variants, and those that differ in where packets from outside are forwarded.
pub(crate) fn and_xdp<const N: usize>(variants: [Variant; N]) -> Vec<Variant> {
    [&variants[..], &XDP].concat()
}

/// A Service of [`service`] that has a node port, and more.
fn open(name: &str, label: &str, value: &str, end: u8, node_port: u16, more: &str) -> String {
    let mut service = with_node_port(&service(name, label, value, end), node_port);
    if more.contains("loadBalancer") {
        service = service.replace("type: NodePort", "type: LoadBalancer");
    }
    service + more
}

fn services() -> String {
    let list = |[v4, v6]: [&str; 2]| format!("[{v4}, \"{v6}\"]");
    let [v4, v6] = LOAD_BALANCER;
    let balanced = format!(
        "  externalIPs: {}\nstatus:\n  loadBalancer:\n    ingress: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]\n",
        list(EXTERNAL)
    );
    let mirror = |name: &str, value: &str, end, node_port| {
        to_mirror(&open(name, "app", value, end, node_port, ""))
    };
    [
        open("np-near", "app", "near", 50, NEAR, ""),
        open("np-far", "app", "far", 51, FAR, &balanced),
        open(
            "np-local",
            "app",
            "near",
            52,
            LOCAL,
            "  externalTrafficPolicy: Local\n",
        ),
        open("np-empty", "app", "nobody", 53, EMPTY, ""),
        open("np-both", "pair", "both", 54, BOTH, ""),
        mirror("np-mirror-near", "near", 55, MIRROR_NEAR),
        mirror("np-mirror-far", "far", 56, MIRROR_FAR),
    ]
    .concat()
}

/// A cluster with these Services, and routes to them on the machine outside.
pub(crate) fn fixture(variant: Variant) -> Result<Fixture> {
    let mut fixture = Fixture::new(variant)?;
    let topology = fixture.cluster.topology();
    let DualStack { v4, v6 } = topology.node("node1").addresses();
    let outside = topology.host("outside").namespace();
    outside.ip(&format!(
        "route add 10.96.0.0/16 via {v4}\nroute add fd10:96::/112 via {v6}\n\
         route add 192.0.2.0/24 via {v4}\nroute add 2001:db8::/32 via {v6}\n"
    ))?;
    fixture.apply("external.yaml", &services())?;
    Ok(fixture)
}

/// A port of a node.
pub(crate) fn at(fixture: &Fixture, node: &str, port: u16) -> [SocketAddr; 2] {
    let node = fixture.cluster.topology().node(node).addresses();
    node.both().map(|ip| SocketAddr::new(ip, port))
}

fn virtual_addresses(addresses: [&str; 2]) -> [SocketAddr; 2] {
    addresses.map(|text| SocketAddr::new(text.parse().expect("address"), 80))
}

/// As whom node1 speaks to pods of node2.
pub(crate) fn node1_there(fixture: &Fixture, variant: Variant, like: IpAddr) -> IpAddr {
    if !variant.overlay {
        let node = fixture.cluster.topology().node("node1");
        return node.addresses().like(like);
    }
    match like {
        IpAddr::V4(_) => [10, 244, 1, 0].into(),
        IpAddr::V6(_) => [0xfd10, 0x244, 0, 1, 0, 0, 0, 0].into(),
    }
}

fn ask(fixture: &Fixture, to: SocketAddr, protocol: Protocol) -> Outcome {
    let probe = Probe::tcp(to).protocol(protocol).timeout(PATIENCE);
    probe.run(&fixture.place("outside"))
}

/// Fails unless `server` answers there, and has seen `source`.
pub(crate) fn ensure_seen(
    fixture: &Fixture,
    to: [SocketAddr; 2],
    server: &str,
    source: impl Fn(IpAddr) -> IpAddr,
) -> Result<()> {
    for to in to {
        for protocol in PROTOCOLS {
            let outcome = ask(fixture, to, protocol);
            let seen = outcome.source().map(|source| source.ip());
            ensure!(
                outcome.identity() == Some(server) && seen == Some(source(to.ip())),
                "{to} {protocol:?}: {outcome:?}, not {server} who sees {}",
                source(to.ip())
            );
        }
    }
    Ok(())
}

#[test]
fn clients_outside_reach_services_at_all_their_addresses() -> Result<()> {
    each(&and_xdp(ALL), |variant| {
        let fixture = fixture(variant)?;
        let outside = fixture.cluster.topology().host("outside").addresses();
        let client = |ip| outside.like(ip);
        let node1 = |ip| node1_there(&fixture, variant, ip);
        let cluster_ip = |end| cluster_ips(end).map(|ip| SocketAddr::new(ip, 80));
        for to in [at(&fixture, "node1", NEAR), cluster_ip(50)] {
            ensure_seen(&fixture, to, "near", client)?;
        }
        for to in [
            at(&fixture, "node1", FAR),
            virtual_addresses(LOAD_BALANCER),
            virtual_addresses(EXTERNAL),
            cluster_ip(51),
        ] {
            ensure_seen(&fixture, to, "far", node1)?;
        }
        ensure_seen(&fixture, at(&fixture, "node2", FAR), "far", client)?;
        ensure_seen(&fixture, at(&fixture, "node1", LOCAL), "near", client)?;
        fixture.ensure_silence("outside", Protocol::Tcp, at(&fixture, "node2", LOCAL))?;
        fixture.ensure_silence("outside", Protocol::Udp, at(&fixture, "node2", LOCAL))?;
        refusals_come_at_once(&fixture)?;
        for (to, allowed, words) in [
            (
                virtual_addresses(LOAD_BALANCER),
                true,
                "LoadBalancer of node node1",
            ),
            (
                virtual_addresses(EXTERNAL),
                true,
                "ExternalIP of node node1",
            ),
            (at(&fixture, "node1", LOCAL), true, "for clients outside"),
            (
                at(&fixture, "node2", LOCAL),
                false,
                "no endpoint on the node",
            ),
            (at(&fixture, "node1", EMPTY), false, "no endpoint"),
        ] {
            for to in to {
                fixture.ensure_explained(&client(to.ip()).to_string(), to, allowed, words)?;
            }
        }
        for to in at(&fixture, "node1", BOTH) {
            let seen = connections(&fixture.place("outside"), to, 40);
            ensure!(
                seen.failed.is_empty() && seen.answered.len() == 2,
                "{to}: {seen:?}"
            );
        }
        // What the nodes do for themselves goes on.
        fixture.ensure_reaches("client", Protocol::Tcp, fixture.server("far"), &["far"])?;
        fixture.ensure_reaches("node1", Protocol::Udp, fixture.server("far"), &["far"])?;
        ensure_xdp(&fixture, variant)?;
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// Fails unless XDP is where it can be, and has carried packets where it may.
fn ensure_xdp(fixture: &Fixture, variant: Variant) -> Result<()> {
    let carried = carried_by_xdp(fixture, "node1")?;
    ensure!(
        (carried > 0) == variant.has_fast_path(),
        "XDP carried {carried} packets"
    );
    let status = fixture.cluster.status("node1")?;
    let devices = status["devices"].as_array().into_iter().flatten();
    for device in devices.filter(|device| device["uplink"] == true) {
        let expected = match device["name"].as_str() {
            _ if !variant.xdp => None,
            Some("eth0") => Some("attached"),
            _ => Some("not in this driver"),
        };
        ensure!(device["xdp"].as_str() == expected, "{device}");
    }
    Ok(())
}

/// Packets that went past a node's network stack.
pub(crate) fn carried_by_xdp(fixture: &Fixture, node: &str) -> Result<u64> {
    let metrics = fixture.cluster.metrics(node)?;
    let counters = metrics
        .lines()
        .filter(|line| line.starts_with("weir_packets_total") && line.contains("\"fast_path\""));
    let values = counters.filter_map(|line| line.split_whitespace().next_back());
    Ok(values.map(str::parse::<u64>).sum::<Result<_, _>>()?)
}

fn refusals_come_at_once(fixture: &Fixture) -> Result<()> {
    let no_such_port = cluster_ips(50).map(|ip| SocketAddr::new(ip, 81));
    for to in at(fixture, "node1", EMPTY).into_iter().chain(no_such_port) {
        for protocol in PROTOCOLS {
            let start = Instant::now();
            let outcome = ask(fixture, to, protocol);
            ensure!(
                outcome == Outcome::Refused && start.elapsed() < AT_ONCE,
                "{to} {protocol:?}: {outcome:?} after {:?}",
                start.elapsed()
            );
        }
    }
    Ok(())
}

/// Segments of a whole window, datagrams in pieces, and checksums that the sender has left to its device.
#[test]
fn transfers_from_outside_arrive_whole() -> Result<()> {
    each(
        &and_xdp([ALL[0], ALL[4], OVERLAYS[0], OVERLAYS[1]]),
        |variant| {
            let fixture = fixture(variant)?;
            let _near = Mirror::start(&fixture.place("near"), MIRROR)?;
            let _far = Mirror::start(&fixture.place("far"), MIRROR)?;
            let topology = fixture.cluster.topology();
            for node in topology.nodes() {
                node.finish_frames()?;
            }
            for port in [MIRROR_NEAR, MIRROR_FAR] {
                for to in at(&fixture, "node1", port) {
                    let probe = Probe::tcp(to).timeout(Duration::from_secs(10));
                    probe.transfer(&fixture.place("outside"), 3_000_000)?;
                    for length in [1000, 4000] {
                        let probe = probe.protocol(Protocol::Udp);
                        let transfer = || probe.transfer(&fixture.place("outside"), length);
                        // A router tells a sender of IPv6 that its pieces are too large, at the cost of these.
                        transfer()
                            .or_else(|error| if to.is_ipv6() { transfer() } else { Err(error) })?;
                    }
                }
            }
            variant.ensure_nothing_dropped(topology)
        },
    )
}

/// `near` and `far` may be reached from that address only.
fn only_from(source: IpAddr) -> String {
    let bits = if source.is_ipv4() { 32 } else { 128 };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: only, namespace: default}}\n\
         spec:\n  podSelector: {{matchLabels: {{pair: both}}}}\n  ingress:\n  - from: [{{ipBlock: {{cidr: \"{source}/{bits}\"}}}}]\n"
    )
}

#[test]
fn policy_at_the_backend_judges_who_is_outside() -> Result<()> {
    each(&and_xdp(ALL), |variant| {
        let mut fixture = fixture(variant)?;
        let outside = fixture.cluster.topology().host("outside").addresses();
        let node1 = fixture.cluster.topology().node("node1").addresses();
        for (source, other) in [
            (outside.v4.into(), node1.v4.into()),
            (outside.v6.into(), node1.v6.into()),
        ] {
            let to: IpAddr = node1.like(source);
            let near = SocketAddr::new(to, NEAR);
            fixture.apply("only.yaml", &only_from(source))?;
            let outcome = ask(&fixture, near, Protocol::Tcp);
            ensure!(outcome.identity() == Some("near"), "{source}: {outcome:?}");
            fixture.ensure_explained(&source.to_string(), near, true, "allowed")?;
            // Nobody is the node but the node.
            fixture.apply("only.yaml", &only_from(other))?;
            fixture.ensure_silence("outside", Protocol::Tcp, [near, near])?;
            fixture.ensure_explained(&source.to_string(), near, false, "default/only")?;
            // A pod of another node sees the node that sent the packet there.
            let far = SocketAddr::new(to, FAR);
            let there = node1_there(&fixture, variant, source);
            fixture.apply("only.yaml", &only_from(there))?;
            let outcome = ask(&fixture, far, Protocol::Tcp);
            ensure!(outcome.identity() == Some("far"), "{there}: {outcome:?}");
            if !variant.overlay {
                let words = "arrives  as node node1";
                fixture.ensure_explained(&source.to_string(), far, true, words)?;
            }
        }
        Ok(())
    })
}

#[test]
fn clients_with_one_port_do_not_meet() -> Result<()> {
    each(&[ALL[0], ALL[1], ALL[2], XDP[0]], |variant| {
        let fixture = fixture(variant)?;
        let outside = fixture.cluster.topology().host("outside");
        let second = DualStack {
            v4: [172, 30, 0, 200].into(),
            v6: [0xfd10, 0x30, 0, 0, 0, 0, 0, 0x200].into(),
        };
        let underlay = outside.addresses();
        let DualStack { v4, v6 } = second;
        outside.namespace().ip(&format!(
            "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"
        ))?;
        for to in at(&fixture, "node1", FAR) {
            for protocol in PROTOCOLS {
                // A port that the node may keep, and one that it may not.
                for port in [9999, 40_000] {
                    let mut seen = Vec::new();
                    for from in [underlay, second] {
                        let from = SocketAddr::new(from.like(to.ip()), port);
                        let probe = Probe::tcp(to)
                            .protocol(protocol)
                            .timeout(PATIENCE)
                            .from(from);
                        let outcome = probe.run(&fixture.place("outside"));
                        ensure!(
                            outcome.identity() == Some("far"),
                            "{from} {protocol:?}: {outcome:?}"
                        );
                        seen.extend(outcome.source());
                    }
                    if protocol == Protocol::Udp {
                        // TCP's first connection was over before the second.
                        ensure!(seen[0] != seen[1], "both were {seen:?}");
                    }
                    let kept = seen[0].port() == port;
                    ensure!(kept == (port == 9999), "{port} became {seen:?}");
                }
            }
        }
        Ok(())
    })
}

/// Backends that are machines: the node itself, the other one, and the client.
#[test]
fn backends_may_be_machines() -> Result<()> {
    each(&and_xdp([ALL[0], ALL[3], OVERLAYS[1]]), |variant| {
        let mut fixture = fixture(variant)?;
        let topology = fixture.cluster.topology();
        let outside = topology.host("outside").addresses();
        let nodes = ["node1", "node2"].map(|node| topology.node(node).addresses());
        let _servers = [
            EchoServer::start(topology.node("node1"), "node1", PORT)?,
            EchoServer::start(topology.node("node2"), "node2", PORT)?,
            EchoServer::start(topology.host("outside"), "outside", PORT)?,
        ];
        let mut objects = String::new();
        let backends = [
            ("node1", nodes[0]),
            ("node2", nodes[1]),
            ("outside", outside),
        ];
        for (n, (name, backend)) in (0..).zip(backends) {
            let (name, end) = (format!("of-{name}"), 60 + n as u8);
            let node_port = 30060 + n;
            objects += &open(&name, "app", &name, end, node_port, "")
                .replace(&format!("  selector: {{app: {name}}}\n"), "");
            for ip in backend.both() {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                objects += &crate::overlay::slice(&name, family, ip);
            }
        }
        fixture.apply("machines.yaml", &objects)?;
        for (n, (name, _)) in (0..).zip(backends) {
            let source = |ip| match name {
                "node1" => outside.like(ip),
                _ => nodes[0].like(ip),
            };
            ensure_seen(&fixture, at(&fixture, "node1", 30060 + n), name, source)?;
        }
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}
