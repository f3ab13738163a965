//! Services, as the node's own processes see them.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use weir_tests::probe::Protocol::{self, Tcp, Udp, UdpUnconnected};
use weir_tests::probe::{EchoServer, Outcome, Probe, connections};

use crate::fixture::{FEW, Fixture, cluster_ips, each, service, services, vip};

const PROTOCOLS: [Protocol; 3] = [Tcp, Udp, UdpUnconnected];
/// A refusal takes a system call; waiting for one would take a time-out.
const AT_ONCE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(3);

#[test]
fn the_node_reaches_services() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        for node in ["node1", "node2"] {
            for protocol in PROTOCOLS {
                for name in ["near", "far", "client"] {
                    fixture.ensure_reaches(node, protocol, vip(name, 80), &[name])?;
                }
            }
        }
        peers_have_the_names_they_were_called_by(&fixture)?;
        ipv6_sockets_reach_ipv4_services(&fixture)?;
        refusals_come_at_once(&fixture)?;
        new_connections_spread(&fixture)?;
        datagrams_keep_their_backend(&mut fixture)?;
        sockets_leave_backends_that_are_gone(&mut fixture)?;
        backends_may_be_nodes(&mut fixture)?;
        other_addresses_are_left_alone(&fixture)?;
        policies_judge_the_node_as_ever(&mut fixture)?;
        local_traffic_stays(&mut fixture)
    })
}

fn peers_have_the_names_they_were_called_by(fixture: &Fixture) -> Result<()> {
    for to in vip("back", 80) {
        for kind in [Type::STREAM, Type::DGRAM] {
            let peer = fixture.place("node1").run(|| peer(to, kind))?;
            ensure!(peer == to, "{kind:?} to {to}: the peer is {peer}");
        }
    }
    Ok(())
}

/// Connects a socket and asks whom to.
fn peer(to: SocketAddr, kind: Type) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    socket.connect_timeout(&to.into(), LIMIT)?;
    let peer = socket.peer_addr()?.as_socket();
    peer.ok_or_else(|| io::Error::other("the peer is no internet address"))
}

/// What a dual-stack program does: the destination is `::ffff:10.96.1.10`, in `connect` and in `sendto`.
fn ipv6_sockets_reach_ipv4_services(fixture: &Fixture) -> Result<()> {
    let [to, _] = vip("near", 80).map(mapped);
    for protocol in PROTOCOLS {
        fixture.ensure_reaches("node1", protocol, [to, to], &["near"])?;
    }
    for kind in [Type::STREAM, Type::DGRAM] {
        let peer = fixture.place("node1").run(|| peer(to, kind))?;
        ensure!(peer == to, "{kind:?} to {to}: the peer is {peer}");
    }
    Ok(())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(ip.into(), address.port())
}

fn refusals_come_at_once(fixture: &Fixture) -> Result<()> {
    let place = fixture.place("node1");
    let refused = |to: SocketAddr, protocol| -> Result<()> {
        let start = Instant::now();
        let outcome = Probe::tcp(to).protocol(protocol).timeout(LIMIT).run(&place);
        ensure!(
            outcome == Outcome::Refused && start.elapsed() < AT_ONCE,
            "{to} {protocol:?}: {outcome:?} after {:?}",
            start.elapsed()
        );
        Ok(())
    };
    for to in vip("empty", 80) {
        PROTOCOLS
            .into_iter()
            .try_for_each(|protocol| refused(to, protocol))?;
    }
    // No such port. A resolver that connects a UDP socket to learn its source address is not refused.
    for to in vip("near", 81) {
        refused(to, Tcp)?;
        refused(to, UdpUnconnected)?;
        let peer = place.run(|| peer(to, Type::DGRAM))?;
        ensure!(peer == to, "{peer}");
    }
    Ok(())
}

fn new_connections_spread(fixture: &Fixture) -> Result<()> {
    let backends = BTreeSet::from(["near", "far", "spare"]);
    let place = fixture.place("node1");
    for to in vip("back", 80) {
        let seen = connections(&place, to, 60);
        let servers: BTreeSet<_> = seen.answered.keys().map(String::as_str).collect();
        ensure!(
            servers == backends && seen.failed.is_empty(),
            "{to}: {seen:?}"
        );
        for protocol in [Udp, UdpUnconnected] {
            let answers = (0..60).map(|_| Probe::tcp(to).protocol(protocol).run(&place));
            let seen: BTreeSet<_> = answers
                .map(|outcome| outcome.identity().map(str::to_owned))
                .collect();
            let wanted = backends.iter().map(|name| Some((*name).to_owned()));
            ensure!(seen == wanted.collect(), "{to} {protocol:?}: {seen:?}");
        }
    }
    Ok(())
}

/// One socket that sends to a Service talks to one backend, and to another once that takes no new flows.
fn datagrams_keep_their_backend(fixture: &mut Fixture) -> Result<()> {
    for to in vip("back", 80) {
        let place = fixture.place("node1");
        let socket = place.run(|| UdpSocket::bind(SocketAddr::new(unspecified(to), 0)))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let first = ask(&socket, to)?;
        for _ in 0..20 {
            let next = ask(&socket, to)?;
            ensure!(next == first, "{to}: {next} after {first}");
        }
        fixture.cluster.set_ready(&first, false)?;
        fixture.cluster.settle()?;
        let second = ask(&socket, to)?;
        ensure!(second != first, "{to}: still {first}");
        fixture.cluster.set_ready(&first, true)?;
        fixture.cluster.settle()?;
        ensure!(ask(&socket, to)? == second, "{to}: moved back");
        // Several at a time: each answer comes from whom it was asked.
        for _ in 0..3 {
            for name in ["near", "far", "client", "other"] {
                let [v4, v6] = vip(name, 80);
                let answer = ask(&socket, if to.is_ipv4() { v4 } else { v6 })?;
                ensure!(answer == name, "{answer} instead of {name}");
            }
        }
    }
    Ok(())
}

/// A connected socket calls no program when it sends: it is ended, so that its process connects again.
fn sockets_leave_backends_that_are_gone(fixture: &mut Fixture) -> Result<()> {
    let [v4, v6] = vip("near", 80);
    let connect = |to: SocketAddr, from: SocketAddr| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::new(unspecified(from), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    };
    let place = fixture.place("node1");
    let stale = [(v4, v4), (v6, v6), (mapped(v4), v6)]
        .map(|(to, from)| place.run(|| connect(to, from)))
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    // Not by a Service, and by another one.
    let [direct, _] = fixture.server("near");
    let [other, _] = vip("far", 80);
    let healthy = [direct, other]
        .map(|to| place.run(|| connect(to, to)))
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let elsewhere = services().replace("selector: {app: near}", "selector: {app: nobody}");
    fixture.apply("services.yaml", &elsewhere)?;
    for socket in stale {
        let error = socket.recv(&mut [0; 8]).err().context("it lives")?;
        ensure!(error.kind() == ErrorKind::ConnectionAborted, "{error}");
        // It is connected no more.
        ensure!(socket.send(b"a").is_err(), "a datagram went somewhere");
    }
    for socket in healthy {
        socket.send(br#"{"number":0}"#)?;
        socket.recv(&mut [0; 512])?;
    }
    fixture.apply("services.yaml", &services())
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// Sends a datagram, and gives who answered; the answer must be from where it was sent to.
fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<String> {
    socket.send_to(br#"{"number":0}"#, to)?;
    let mut buffer = [0; 512];
    let (length, from) = socket
        .recv_from(&mut buffer)
        .with_context(|| format!("no answer from {to}"))?;
    ensure!(from == to, "asked {to}, answered by {from}");
    let answer: serde_json::Value = serde_json::from_slice(&buffer[..length])?;
    let identity = answer["identity"].as_str().context("an identity")?;
    Ok(identity.to_owned())
}

fn backends_may_be_nodes(fixture: &mut Fixture) -> Result<()> {
    const HOST_PORT: u16 = 9090;
    let nodes = ["node1", "node2"];
    let servers = nodes
        .map(|node| EchoServer::start(&fixture.place(node), node, HOST_PORT))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let addresses = nodes.map(|node| fixture.cluster.topology().node(node).addresses());
    let [v4, v6] = cluster_ips(60);
    let mut yaml = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: hosts, namespace: default}}\n\
         spec:\n  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]\n  ports:\n  - {{name: tcp, port: 80, protocol: TCP}}\n  - {{name: udp, port: 80, protocol: UDP}}\n"
    );
    for family in [0, 1] {
        let [one, two] = addresses.map(|address| address.both()[family]);
        let kind = ["IPv4", "IPv6"][family];
        yaml += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hosts-{family}, namespace: default, labels: {{kubernetes.io/service-name: hosts}}}}\n\
             addressType: {kind}\nports:\n- {{name: tcp, port: {HOST_PORT}, protocol: TCP}}\n- {{name: udp, port: {HOST_PORT}, protocol: UDP}}\n\
             endpoints:\n- {{addresses: [\"{one}\"], nodeName: node1}}\n- {{addresses: [\"{two}\"], nodeName: node2}}\n"
        );
    }
    fixture.apply("hosts.yaml", &yaml)?;
    for to in [v4, v6].map(|ip| SocketAddr::new(ip, 80)) {
        for protocol in PROTOCOLS {
            let mut seen = BTreeSet::new();
            for _ in 0..40 {
                let outcome = Probe::tcp(to)
                    .protocol(protocol)
                    .run(&fixture.place("node1"));
                let identity = outcome.identity().map(str::to_owned);
                seen.insert(identity.with_context(|| format!("{to} {protocol:?}: {outcome:?}"))?);
            }
            ensure!(seen.len() == nodes.len(), "{to} {protocol:?}: {seen:?}");
        }
    }
    drop(servers);
    Ok(())
}

/// Whoever is called by its own address is called by that afterwards, also by a socket that came by a Service before.
fn other_addresses_are_left_alone(fixture: &Fixture) -> Result<()> {
    let place = fixture.place("node1");
    for protocol in PROTOCOLS {
        fixture.ensure_reaches("node1", protocol, fixture.server("near"), &["near"])?;
    }
    for (direct, to) in fixture.server("near").into_iter().zip(vip("near", 80)) {
        let socket = place.run(|| UdpSocket::bind(SocketAddr::new(unspecified(to), 0)))?;
        socket.set_read_timeout(Some(LIMIT))?;
        for to in [to, direct, to] {
            ensure!(ask(&socket, to)? == "near");
        }
        place.run(|| -> Result<()> {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
            for to in [to, direct, to] {
                socket.connect(&SockAddr::from(to))?;
                let peer = socket.peer_addr()?.as_socket();
                ensure!(peer == Some(to), "{peer:?} instead of {to}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What the node says to a Service is judged as what it says to the backend, and `explain` says so.
fn policies_judge_the_node_as_ever(fixture: &mut Fixture) -> Result<()> {
    fixture.apply(
        "deny.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: default}\n\
         spec: {podSelector: {matchLabels: {tier: back}}, policyTypes: [Ingress]}\n",
    )?;
    // A pod's own node may reach it, others may not.
    for (service, allowed) in [("near", true), ("far", false)] {
        for protocol in PROTOCOLS {
            if allowed {
                fixture.ensure_reaches("node1", protocol, vip(service, 80), &[service])?;
            } else {
                fixture.ensure_silence("node1", protocol, vip(service, 80))?;
            }
        }
        let node = fixture.cluster.topology().node("node1").addresses();
        let question = [node.v4.to_string(), format!("default/svc/{service}:80/TCP")];
        let answer = fixture
            .cluster
            .ask("node1", &["explain", &question[0], &question[1]])?;
        ensure!(answer.code == Some(i32::from(!allowed)), "{answer:?}");
    }
    fixture.cluster.delete("deny.yaml")?;
    fixture.cluster.settle()
}

/// internalTrafficPolicy Local: the node's own endpoints, or an error as from a rule that drops what a process sends.
fn local_traffic_stays(fixture: &mut Fixture) -> Result<()> {
    let [v4, v6] = cluster_ips(61);
    fixture.apply(
        "local.yaml",
        &service("local", "app", "far", 61)
            .replace("spec:\n", "spec:\n  internalTrafficPolicy: Local\n"),
    )?;
    let to = [v4, v6].map(|ip| SocketAddr::new(ip, 80));
    for protocol in PROTOCOLS {
        fixture.ensure_reaches("node2", protocol, to, &["far"])?;
        for to in to {
            let outcome = Probe::tcp(to)
                .protocol(protocol)
                .run(&fixture.place("node1"));
            ensure!(
                outcome == Outcome::Prohibited,
                "{to} {protocol:?}: {outcome:?}"
            );
        }
    }
    Ok(())
}
