//! Clients and servers tell what happened, and tell failures apart.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::probe::{
    Answer, DnsServer, EchoServer, Load, Outcome, Probe, Protocol, Query, Records, Stream,
    StreamOptions, connections,
};
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, Topology};

use crate::{PORT, PROTOCOLS, servers, spec};

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
                    // A SYN that overtakes the last connection's RST is sent again after a second.
                    .timeout(Duration::from_secs(4))
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
fn a_lost_packet_of_a_new_connection_is_seen() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let _servers = servers(&topology)?;
    let (a, node) = (topology.pod("a"), topology.node("node2").namespace());
    let to = SocketAddr::new(topology.pod("c").addresses().v4.into(), PORT);
    connections(a, to, 10).ensure_unharmed()?;

    let load = Load::start(a, &[("c", Probe::tcp(to))])?;
    node.nft("table ip cut { chain forward { type filter hook forward priority 0; drop; }; }")?;
    std::thread::sleep(Duration::from_millis(300));
    node.nft("delete table ip cut")?;
    // A SYN is sent again after a second.
    std::thread::sleep(Duration::from_millis(1200));
    let report = load.finish()?;
    let connections = &report.connections[0].1;
    ensure!(
        connections.failed.is_empty() && connections.repeated > 0,
        "{connections:?}"
    );
    ensure!(report.ensure_unharmed().is_err());
    Ok(())
}

#[test]
fn a_datagram_stream_outlives_its_server() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let c = topology.pod("c");
    let server = EchoServer::start(c, "old", PORT)?;
    let options = StreamOptions {
        stall: Duration::from_millis(200),
        ..StreamOptions::default()
    };
    let to = SocketAddr::new(c.addresses().v4.into(), PORT);
    let stream = Stream::start(topology.pod("a"), Probe::udp(to), options)?;
    drop(server);
    std::thread::sleep(Duration::from_millis(100));
    let _server = EchoServer::start(c, "new", PORT)?;
    std::thread::sleep(Duration::from_millis(100));
    let report = stream.finish()?;
    ensure!(report.lost > 0 && report.error.is_some(), "{report:?}");
    ensure!(report.identities.iter().eq(["new", "old"]), "{report:?}");
    ensure!(report.ensure_unharmed().is_err());
    Ok(())
}
