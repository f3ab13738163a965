//! Every shape joins its pods as its CNI plugin would.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use weir_tests::netns;
use weir_tests::probe::{EchoServer, Outcome, Probe};
use weir_tests::skip_without_root;
use weir_tests::topology::{DualStack, PodSpec, Shape, Topology};

use crate::{PORT, everyone_reaches_everyone, spec};

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

/// Sends a TCP packet with a wrong checksum, which conntrack calls invalid, and says whether it arrives.
pub(crate) fn invalid_packet_arrives(topology: &Topology) -> Result<bool> {
    let (a, c) = (topology.pod("a"), topology.pod("c"));
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::TCP));
    let mut receiver = AsRef::<netns::Place>::as_ref(c).run(raw)?;
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = AsRef::<netns::Place>::as_ref(a).run(raw)?;
    // Ports 7 and 8, data offset 5, SYN.
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0, 7, 0, 8]);
    header[12..14].copy_from_slice(&[5 << 4, 2]);
    sender.send_to(&header, &SocketAddr::new(c.addresses().v4.into(), 0).into())?;
    let mut buffer = [0; 2048];
    match receiver.read(&mut buffer) {
        // After the IPv4 header.
        Ok(length) => Ok(length >= 40 && buffer[20..40] == header),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn invalid_packets_are_dropped_where_asked() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    ensure!(invalid_packet_arrives(&Topology::build(&spec(
        Shape::Ptp
    ))?)?);
    ensure!(!invalid_packet_arrives(&Topology::build(
        &spec(Shape::Ptp).drop_invalid()
    )?)?);
    Ok(())
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
        let (veth, DualStack { v4, v6 }) = (pod.veth(), pod.addresses());
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
