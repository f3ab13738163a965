//! A hop that takes less than everybody's devices: senders must hear of it, also those that talk through a Service.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::netns::Namespace;
use weir_tests::probe::{Mirror, Probe};
use weir_tests::topology::DualStack;

use crate::fixture::{
    ALL, Fixture, MIRROR, OVERLAYS, Variant, cluster_ips, each, service, to_mirror, with_node_port,
};

/// The longest packet that the hop forwards.
const HOP_MTU: u64 = 1300;
/// Node ports.
const NEAR: u16 = 30020;
const FAR: u16 = 30021;

/// Much more than a window, in both directions.
const LENGTH: u32 = 500_000;
const PATIENCE: Duration = Duration::from_secs(10);

fn fixture(variant: Variant) -> Result<Fixture> {
    let mut fixture = Fixture::on(variant.nodes().host("hop"), variant.attach)?;
    let hop = fixture.cluster.topology().host("hop").namespace();
    hop.sysctl("net/ipv4/ip_forward", 1)?;
    hop.sysctl("net/ipv6/conf/all/forwarding", 1)?;
    // It sends packets back to the network that they came from, which a router tells the sender to avoid.
    hop.sysctl("net/ipv4/conf/all/send_redirects", 0)?;
    hop.sysctl("net/ipv4/conf/eth0/send_redirects", 0)?;
    let outside = fixture.cluster.topology().host("outside").namespace();
    outside.sysctl("net/ipv6/conf/eth0/accept_redirects", 0)?;
    let mirror = |name: &str, value: &str, end, node_port: u16| {
        to_mirror(&with_node_port(
            &service(name, "app", value, end),
            node_port,
        ))
    };
    let services = mirror("near", "near", 60, NEAR) + &mirror("far", "far", 61, FAR);
    fixture.apply("mirrors.yaml", &services)?;
    Ok(fixture)
}

/// Leads from a machine to `to`, and to subnets behind it, by the hop.
fn lead(fixture: &Fixture, from: &Namespace, to: DualStack, behind: &[String]) -> Result<()> {
    let hop = fixture.cluster.topology().host("hop");
    let own = hop.addresses();
    for (to, by) in to.both().into_iter().zip(own.both()) {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let behind = || {
            behind
                .iter()
                .filter(|net| net.contains(':') == to.is_ipv6())
        };
        let mut lines = format!("route replace {to}/{bits} via {by}\n");
        lines.extend(behind().map(|net| format!("route replace {net} via {by}\n")));
        from.ip(&lines)?;
        let mut lines = format!("route replace {to}/{bits} dev eth0 mtu {HOP_MTU}\n");
        lines.extend(behind().map(|net| format!("route replace {net} via {to} mtu {HOP_MTU}\n")));
        hop.namespace().ip(&lines)?;
    }
    Ok(())
}

/// What `machine` has learnt of the way to `to`; `None`: nothing.
fn learnt(machine: &Namespace, to: IpAddr) -> Result<Option<u64>> {
    let routes = machine.ip_output(&["-j", "route", "get", &to.to_string()])?;
    let routes: Value = serde_json::from_str(&routes).context("read the output of ip")?;
    Ok(routes[0]["metrics"][0]["mtu"].as_u64())
}

/// Transfers both ways, then asks both ends what they know: each of the pairs is a machine and whom it believes to talk to.
fn ensure_learns(
    fixture: &Fixture,
    client: &str,
    to: SocketAddr,
    ends: [(&Namespace, IpAddr); 2],
) -> Result<()> {
    for (machine, _) in ends {
        for family in ["-4", "-6"] {
            machine.ip_output(&[family, "route", "flush", "cache"])?;
        }
    }
    for (machine, peer) in ends {
        let before = learnt(machine, peer)?;
        ensure!(before.is_none(), "{peer} by way of {before:?} already");
    }
    let probe = Probe::tcp(to).timeout(PATIENCE);
    probe.transfer(&fixture.place(client), LENGTH)?;
    for (machine, peer) in ends {
        let mtu = learnt(machine, peer)?;
        ensure!(
            mtu == Some(HOP_MTU),
            "{client} to {to}: {} takes {mtu:?} for the path's MTU to {peer}",
            machine.name()
        );
    }
    Ok(())
}

/// The hop is between the nodes: clients hear of it although it saw no Service, and those outside although the packets were a
/// node's there.
#[test]
fn clients_learn_the_mtu_of_the_path_behind_a_service() -> Result<()> {
    each(&[ALL[0], ALL[3], ALL[4]], |variant| {
        let fixture = fixture(variant)?;
        let _far = Mirror::start(&fixture.place("far"), MIRROR)?;
        let topology = fixture.cluster.topology();
        let [node1, node2] = ["node1", "node2"].map(|name| topology.node(name));
        for (from, to) in [(node1, node2), (node2, node1)] {
            let (v4, v6) = to.pod_cidrs();
            let behind = [v4.to_string(), v6.to_string()];
            lead(&fixture, from.namespace(), to.addresses(), &behind)?;
        }
        let outside = topology.host("outside").namespace();
        let [client, far] = ["client", "far"].map(|name| topology.pod(name));
        for service in cluster_ips(61) {
            let ends = [
                (client.namespace(), service),
                (far.namespace(), client.addresses().like(service)),
            ];
            ensure_learns(&fixture, "client", (service, 80).into(), ends)?;
        }
        for node in node1.addresses().both() {
            let ends = [(outside, node), (far.namespace(), node)];
            ensure_learns(&fixture, "outside", (node, FAR).into(), ends)?;
        }
        variant.ensure_nothing_dropped(topology)
    })
}

/// The hop is between the client and the node: backends hear of it although the packets were a Service's there.
#[test]
fn backends_learn_the_mtu_of_the_path_to_clients_outside() -> Result<()> {
    each(&[ALL[0], ALL[5], OVERLAYS[0], OVERLAYS[1]], |variant| {
        let fixture = fixture(variant)?;
        let _near = Mirror::start(&fixture.place("near"), MIRROR)?;
        let _far = Mirror::start(&fixture.place("far"), MIRROR)?;
        let topology = fixture.cluster.topology();
        let (outside, node1) = (topology.host("outside"), topology.node("node1"));
        lead(&fixture, outside.namespace(), node1.addresses(), &[])?;
        lead(&fixture, node1.namespace(), outside.addresses(), &[])?;
        let [near, far] = ["near", "far"].map(|name| topology.pod(name).namespace());
        for node in node1.addresses().both() {
            let client = outside.addresses().like(node);
            let ends = [(outside.namespace(), node), (near, client)];
            ensure_learns(&fixture, "outside", (node, NEAR).into(), ends)?;
            let seen = crate::external::node1_there(&fixture, variant, node);
            let ends = [(outside.namespace(), node), (far, seen)];
            ensure_learns(&fixture, "outside", (node, FAR).into(), ends)?;
        }
        variant.ensure_nothing_dropped(topology)
    })
}
