//! Tunnels between nodes carry what pods send each other, and what strict nodes drop is counted.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::{EchoServer, Mirror, Outcome, Probe, Protocol};
use weir_tests::skip_without_root;
use weir_tests::topology::{Drops, OVERLAY_MTU, Shape, TUNNEL_V4, TUNNEL_V6, Topology};

use crate::wiring::invalid_packet_arrives;
use crate::{PORT, everyone_reaches_everyone, spec};

/// How flannel's own plugin wires pods, and another way.
const SHAPES: [Shape; 2] = [
    Shape::Bridge {
        call_iptables: true,
    },
    Shape::Ptp,
];

#[test]
fn pods_reach_each_other_through_tunnels() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for shape in SHAPES {
        let topology = Topology::build(&spec(shape).overlay().drop_invalid())?;
        everyone_reaches_everyone(&topology)
            .and_then(|()| packets_of_all_sizes(&topology))
            .and_then(|()| masquerading(&topology))
            .with_context(|| format!("{shape:?}\n{}", topology.describe()))?;
        for node in topology.nodes() {
            let drops = node.drops()?;
            ensure!(
                drops == Drops::default(),
                "{shape:?}: {}: {drops:?}",
                node.name()
            );
        }
    }
    Ok(())
}

/// What fills a tunnel, and what must be cut in pieces first.
fn packets_of_all_sizes(topology: &Topology) -> Result<()> {
    let (client, server) = (topology.pod("a"), topology.pod("c"));
    let _mirror = Mirror::start(server, PORT)?;
    for (ip, tunnel) in server
        .addresses()
        .both()
        .into_iter()
        .zip([TUNNEL_V4, TUNNEL_V6])
    {
        let before = topology.node("node1").transmitted(tunnel)?;
        let to = SocketAddr::new(ip, PORT);
        let headers = if ip.is_ipv4() { 28 } else { 48 };
        for length in [u32::from(OVERLAY_MTU) - headers, 4000] {
            Probe::udp(to).transfer(client, length)?;
        }
        Probe::tcp(to).transfer(client, 1 << 20)?;
        let sent = topology.node("node1").transmitted(tunnel)?.since(before);
        ensure!(sent.bytes > 1 << 20, "{tunnel} sent {sent:?}");
    }
    Ok(())
}

/// Who is no pod and knows no route to pods sees the node.
fn masquerading(topology: &Topology) -> Result<()> {
    let outside = topology.host("outside");
    let _server = EchoServer::start(outside, "outside", PORT)?;
    for ip in outside.addresses().both() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let outcome = Probe::tcp(SocketAddr::new(ip, PORT))
                .protocol(protocol)
                .run(topology.pod("a"));
            let seen = outcome.source().map(|source| source.ip());
            let node = topology.node("node1").addresses().like(ip);
            ensure!(seen == Some(node), "{ip} {protocol:?}: {outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn tunnels_are_made_as_flannel_makes_them() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for shape in SHAPES {
        let topology = Topology::build(&spec(shape).overlay())?;
        let node = topology.node("node1").namespace();
        let text = node.ip_output(&["route"])?
            + &node.ip_output(&["-6", "route"])?
            + &node.ip_output(&["-d", "link"])?;
        for expected in [
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
            "fd10:244:0:2::/64 via fd10:244:0:2:: dev flannel-v6.1",
            "vxlan id 1 local 172.30.0.11 dev eth0",
            "vxlan id 1 local fd10:30::11 dev eth0",
        ] {
            ensure!(
                text.contains(expected),
                "{shape:?}: no {expected} in\n{text}"
            );
        }
        let pod = topology.pod("a");
        let mtu = format!("mtu {OVERLAY_MTU} ");
        for (namespace, device) in [(node, pod.veth()), (pod.namespace(), "eth0")] {
            let line = namespace.ip_output(&["link", "show", "dev", device])?;
            ensure!(line.contains(&mtu), "{shape:?}: {line}");
        }
    }
    Ok(())
}

#[test]
fn what_strict_nodes_drop_is_counted() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp).overlay().drop_invalid())?;
    let drops = || topology.node("node1").drops();
    ensure!(drops()? == Drops::default(), "{:?}", drops()?);
    ensure!(!invalid_packet_arrives(&topology)?);
    ensure!(drops()?.invalid_tcp == 1, "{:?}", drops()?);

    let (a, c) = (topology.pod("a"), topology.pod("c"));
    let node = topology.node("node1").addresses();
    let forged = [
        IpAddr::from([192, 0, 2, 1]),
        node.v4.into(),
        "2001:db8::1".parse()?,
        node.v6.into(),
    ];
    for from in forged {
        let length = if from.is_ipv4() { 32 } else { 128 };
        let nodad = if from.is_ipv4() { "" } else { "nodad" };
        a.namespace()
            .ip(&format!("addr add {from}/{length} dev lo {nodad}\n"))?;
        let to = SocketAddr::new(c.addresses().like(from), PORT);
        let outcome = Probe::udp(to).from(SocketAddr::new(from, 0)).run(a);
        ensure!(outcome == Outcome::Timeout, "{from}: {outcome:?}");
    }
    let seen = drops()?;
    let expected = Drops {
        invalid_tcp: 1,
        invalid: 0,
        reverse_path: 1,
        martian: 3,
        martians: seen.martians.clone(),
    };
    ensure!(seen == expected, "{seen:?}");
    ensure!(seen.martians.len() == 3, "{seen:?}");
    for from in &forged[1..] {
        let told = |it: &String| it.contains(&format!("\"{from}\""));
        ensure!(seen.martians.iter().any(told), "{from}: {seen:?}");
    }
    Ok(())
}
