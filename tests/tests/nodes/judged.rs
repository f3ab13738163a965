//! Whom policies judge, and by which address and port, on every way to a pod.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::Protocol::{Tcp, Udp};
use weir_tests::probe::{EchoServer, Outcome, Probe};

use crate::external::at;
use crate::fixture::{
    ALL, Fixture, PATIENCE, PORT, SILENCE, Variant, cluster_ips, each, service, vip, with_node_port,
};
use crate::isolation::{addresses, pods, policy};

/// Routed pods, bridged ones past netfilter, and bridged ones behind an overlay.
const SOME: [Variant; 3] = [ALL[0], ALL[3], ALL[6]];

/// Node ports.
const NEAR: u16 = 30070;
const FAR: u16 = 30071;

fn egress(app: &str, peers: &str, ports: &str) -> String {
    let rule = format!("policyTypes: [Egress], egress: [{{to: [{peers}], ports: [{ports}]}}]");
    policy("out", app, &rule)
}

fn ingress(app: &str, peers: &str) -> String {
    policy("in", app, &format!("ingress: [{{from: [{peers}]}}]"))
}

#[test]
fn what_is_behind_a_service_counts() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let own = |pod: &str| fixture.cluster.topology().pod(pod).addresses().both();
        let (near, far) = (own("near"), own("far"));
        let [service_port, target_port] =
            [80, PORT].map(|port| format!("{{port: {port}}}, {{port: {port}, protocol: UDP}}"));
        for (peers, ports, allowed) in [
            (addresses(cluster_ips(10)), "", false),
            (addresses(cluster_ips(10)), &*service_port, false),
            (pods("near"), &service_port, false),
            (pods("near"), &target_port, true),
            (addresses(near), &target_port, true),
            (addresses(far), &target_port, false),
        ] {
            let text = egress("client", &peers, ports);
            fixture.apply("out.yaml", &text)?;
            for protocol in [Tcp, Udp] {
                let checked = if allowed {
                    fixture.ensure_reaches("client", protocol, vip("near", 80), &["near"])
                } else {
                    fixture.ensure_silence("client", protocol, vip("near", 80))
                };
                checked.context(text.clone())?;
            }
        }
        one_of_two_endpoints(&mut fixture)
    })
}

/// A Service with an endpoint that is allowed and one that is not: connections do as their endpoint does.
fn one_of_two_endpoints(fixture: &mut Fixture) -> Result<()> {
    fixture.apply("out.yaml", &egress("client", &pods("far"), ""))?;
    let place = fixture.place("client");
    for to in vip("stable", 80) {
        for protocol in [Tcp, Udp] {
            let probe = Probe::tcp(to).protocol(protocol).timeout(SILENCE);
            let mut seen = BTreeSet::new();
            for _ in 0..60 {
                let outcome = probe.run(&place);
                ensure!(
                    outcome == Outcome::Timeout || outcome.identity() == Some("far"),
                    "{to} {protocol:?}: {outcome:?}"
                );
                seen.insert(outcome == Outcome::Timeout);
                if seen.len() == 2 {
                    break;
                }
            }
            ensure!(seen.len() == 2, "{to} {protocol:?}: timed out {seen:?}");
        }
    }
    Ok(())
}

#[test]
fn a_pod_is_judged_as_itself_by_every_way_of_its_node() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let services = [("near", 70, NEAR), ("far", 71, FAR)]
            .map(|(pod, end, port)| {
                with_node_port(&service(&format!("np-{pod}"), "app", pod, end), port)
            })
            .concat();
        fixture.apply("ports.yaml", &services)?;
        let both = |node: &str| fixture.cluster.topology().node(node).addresses().both();
        let (node1, node2) = (both("node1"), both("node2"));
        for (pod, end, port) in [("near", 70, NEAR), ("far", 71, FAR)] {
            let ways = [
                fixture.server(pod),
                cluster_ips(end).map(|ip| SocketAddr::new(ip, 80)),
                at(&fixture, "node1", port),
            ];
            fixture.apply("in.yaml", &ingress(pod, &pods("client")))?;
            for to in ways {
                for protocol in [Tcp, Udp] {
                    fixture.ensure_reaches("client", protocol, to, &[pod])?;
                    fixture.ensure_silence("other", protocol, to)?;
                }
            }
            // Who may come as a node is no pod of it.
            let nodes = [addresses(node1), addresses(node2)].join(", ");
            fixture.apply("in.yaml", &ingress(pod, &nodes))?;
            for to in ways {
                fixture.ensure_silence("client", Tcp, to)?;
            }
            fixture.apply("in.yaml", "")?;
        }
        if !variant.overlay {
            by_another_nodes_port(&mut fixture)?;
        }
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// At another node's port a pod is a client from outside: a pod of that node sees the client, one of any other node sees that node.
fn by_another_nodes_port(fixture: &mut Fixture) -> Result<()> {
    let node2 = fixture.cluster.topology().node("node2").addresses().both();
    let [near, far] = [NEAR, FAR].map(|port| at(fixture, "node2", port));
    fixture.apply("in.yaml", &ingress("far", &pods("client")))?;
    fixture.ensure_reaches("client", Tcp, far, &["far"])?;
    fixture.ensure_silence("other", Tcp, far)?;
    fixture.apply("in.yaml", &ingress("near", &pods("client")))?;
    fixture.ensure_silence("client", Tcp, near)?;
    fixture.apply("in.yaml", &ingress("near", &addresses(node2)))?;
    fixture.ensure_reaches("client", Tcp, near, &["near"])?;
    // The client's own policies see the node and its port.
    fixture.apply("in.yaml", &egress("client", &pods("far"), ""))?;
    fixture.ensure_silence("client", Tcp, far)?;
    let port = format!("{{port: {FAR}}}");
    fixture.apply("in.yaml", &egress("client", &addresses(node2), &port))?;
    fixture.ensure_reaches("client", Tcp, far, &["far"])
}

#[test]
fn a_pod_reaches_itself_whatever_isolates_it() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let closed = policy("closed", "near", "policyTypes: [Ingress, Egress]");
        fixture.apply("closed.yaml", &closed)?;
        for protocol in [Tcp, Udp] {
            fixture.ensure_reaches("near", protocol, fixture.server("near"), &["near"])?;
            fixture.ensure_reaches("near", protocol, vip("near", 80), &["near"])?;
            // Another endpoint of the same Service is somebody else.
            fixture.ensure_silence("near", protocol, vip("far", 80))?;
        }
        fixture.ensure_silence("client", Tcp, vip("near", 80))
    })
}

/// From where a mesh has the probes of kubelets come: no node has these addresses.
const PROBES: &str = "addr add 169.254.7.127/32 dev lo
addr add fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128 dev lo nodad
";

#[test]
fn the_own_node_is_exempt_and_nobody_else() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let closed = policy("closed", "near", "policyTypes: [Ingress, Egress]");
        fixture.apply("closed.yaml", &closed)?;
        let _servers = ["node1", "node2"]
            .map(|node| EchoServer::start(&fixture.place(node), node, PORT))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        fixture
            .cluster
            .topology()
            .node("node1")
            .namespace()
            .ip(PROBES)?;
        let near = fixture.server("near");
        let probes = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];
        for (to, from) in near.into_iter().zip(probes) {
            let from = SocketAddr::new(from.parse()?, 0);
            for protocol in [Tcp, Udp] {
                let probe = Probe::tcp(to).protocol(protocol).from(from);
                let outcome = probe.timeout(PATIENCE).run(&fixture.place("node1"));
                ensure!(outcome.identity() == Some("near"), "{from}: {outcome:?}");
            }
        }
        for protocol in [Tcp, Udp] {
            fixture.ensure_reaches("node1", protocol, near, &["near"])?;
            for stranger in ["node2", "client", "far"] {
                fixture.ensure_silence(stranger, protocol, near)?;
            }
            // What a pod sends to its node is judged.
            for node in ["node1", "node2"] {
                fixture.ensure_silence("near", protocol, at(&fixture, node, PORT))?;
            }
        }
        who_is_behind_the_node_is_not_the_node(&mut fixture, variant)
    })
}

/// Pods and machines whose packets the node sends on in its own name.
fn who_is_behind_the_node_is_not_the_node(fixture: &mut Fixture, variant: Variant) -> Result<()> {
    let topology = fixture.cluster.topology();
    let (node1, other) = (topology.node("node1"), topology.pod("other").addresses());
    if !variant.forwards_between_pods() {
        return Ok(());
    }
    let (v4, v6) = (node1.addresses().v4, node1.addresses().v6);
    node1.namespace().nft(&format!(
        "table inet behind {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {} snat ip to {v4}
                ip6 saddr {} snat ip6 to {v6}
            }}
        }}",
        other.v4, other.v6
    ))?;
    let near = fixture.server("near");
    let node1 = [v4.into(), v6.into()];
    for protocol in [Tcp, Udp] {
        fixture.ensure_silence("other", protocol, near)?;
    }
    // It does come by that address.
    fixture.apply("closed.yaml", &ingress("near", &addresses(node1)))?;
    for protocol in [Tcp, Udp] {
        fixture.ensure_reaches("other", protocol, near, &["near"])?;
    }
    Ok(())
}
