//! Which endpoints clients get: by every address of a Service, by affinity, by zone and node.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::Protocol::{Tcp, Udp, UdpUnconnected};
use weir_tests::probe::{EchoServer, Probe, connections};

use crate::fixture::{FEW, Fixture, PORT, cluster_ips, each, service};

/// Of documentation networks (RFC 5737, RFC 3849): nobody else has these.
const EXTERNAL: [&str; 2] = ["192.0.2.15", "2001:db8::15"];
const BALANCER: [&str; 2] = ["192.0.2.16", "2001:db8::16"];
const NODE_PORT: u16 = 30080;

/// A Service that is met at its cluster IPs, at `EXTERNAL`, at `BALANCER` and at `NODE_PORT`.
fn exposed(name: &str, label: &str, value: &str, end: u8) -> String {
    let [external, balancer] = [EXTERNAL, BALANCER];
    service(name, label, value, end)
        .replace(
            "spec:\n",
            &format!(
                "spec:\n  type: LoadBalancer\n  externalIPs: [{}, \"{}\"]\n",
                external[0], external[1]
            ),
        )
        .replace("port: 80,", &format!("port: 80, nodePort: {NODE_PORT},"))
        + &format!(
            "status: {{loadBalancer: {{ingress: [{{ip: {}}}, {{ip: \"{}\", ipMode: VIP}}]}}}}\n",
            balancer[0], balancer[1]
        )
}

/// Everything that the Service of these cluster IPs is met at on node1.
fn everywhere(fixture: &Fixture, end: u8) -> Vec<[SocketAddr; 2]> {
    let texts = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().expect("an address"));
    let node = fixture.cluster.topology().node("node1").addresses().both();
    [
        (cluster_ips(end), 80),
        (texts(EXTERNAL), 80),
        (texts(BALANCER), 80),
        (node, NODE_PORT),
    ]
    .map(|(addresses, port)| addresses.map(|address| SocketAddr::new(address, port)))
    .to_vec()
}

/// A client as `weir explain` has it.
fn end(fixture: &Fixture, client: &str, like: IpAddr) -> String {
    match client {
        "node1" => {
            let node = fixture.cluster.topology().node("node1").addresses();
            node.like(like).to_string()
        }
        pod => format!("default/{pod}"),
    }
}

/// Who answers `count` connections.
fn answers(
    fixture: &Fixture,
    client: &str,
    to: SocketAddr,
    count: u32,
) -> Result<BTreeSet<String>> {
    let seen = connections(&fixture.place(client), to, count);
    ensure!(seen.failed.is_empty(), "{client} -> {to}: {seen:?}");
    Ok(seen.answered.into_keys().collect())
}

fn ensure_answers(fixture: &Fixture, client: &str, to: SocketAddr, wanted: &[&str]) -> Result<()> {
    let seen = answers(fixture, client, to, 30)?;
    let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
    ensure!(
        seen == wanted,
        "{client} -> {to}: {seen:?} instead of {wanted:?}"
    );
    Ok(())
}

#[test]
fn services_are_met_at_all_of_their_addresses() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("open.yaml", &exposed("open", "pair", "both", 40))?;
        for to in everywhere(&fixture, 40) {
            for client in ["client", "node1"] {
                for protocol in [Tcp, Udp, UdpUnconnected] {
                    fixture.ensure_reaches(client, protocol, to, &["near", "far"])?;
                }
                for to in to {
                    ensure_answers(&fixture, client, to, &["near", "far"])?;
                    let words = format!("Service default/open at {to}/TCP");
                    fixture.ensure_explained(&end(&fixture, client, to.ip()), to, true, &words)?;
                }
            }
        }
        // A pod that is itself behind the Service.
        for to in everywhere(&fixture, 40) {
            fixture.ensure_reaches("near", Tcp, to, &["near", "far"])?;
        }
        other_ports_of_the_node_are_its_own(&fixture)?;
        node_ports_are_where_they_are_wanted(&mut fixture)?;
        fixture.cluster.delete("open.yaml")?;
        fixture.cluster.settle()?;
        let [external, ..] = everywhere(&fixture, 40)[1];
        let outcome = Probe::tcp(external)
            .timeout(Duration::from_millis(400))
            .run(&fixture.place("client"));
        ensure!(outcome.identity().is_none(), "{outcome:?}");
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

fn other_ports_of_the_node_are_its_own(fixture: &Fixture) -> Result<()> {
    const OWN: u16 = 9191;
    let server = EchoServer::start(&fixture.place("node1"), "node1", OWN)?;
    let node = fixture.cluster.topology().node("node1").addresses().both();
    let to = node.map(|address| SocketAddr::new(address, OWN));
    for client in ["client", "node1"] {
        fixture.ensure_reaches(client, Tcp, to, &["node1"])?;
    }
    drop(server);
    Ok(())
}

/// `--nodeport-addresses`: the gateways that pods see are addresses of the node, too; loopback only on request.
fn node_ports_are_where_they_are_wanted(fixture: &mut Fixture) -> Result<()> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], NODE_PORT));
    let node = fixture.cluster.topology().node("node1").addresses();
    let [v4, v6] = node
        .both()
        .map(|address| SocketAddr::new(address, NODE_PORT));
    for (option, served, refused) in [
        ("--nodeport-addresses=all", vec![v4, v6], vec![loopback]),
        (
            "--nodeport-addresses=127.0.0.0/8",
            vec![loopback],
            vec![v4, v6],
        ),
        ("--nodeport-addresses=primary", vec![v4, v6], vec![loopback]),
    ] {
        fixture.cluster.replace_agent("node1", &[option])?;
        fixture.cluster.settle()?;
        for to in served {
            let outcome = Probe::tcp(to).run(&fixture.place("node1"));
            ensure!(outcome.identity().is_some(), "{option} {to}: {outcome:?}");
        }
        for to in refused {
            let outcome = Probe::tcp(to).run(&fixture.place("node1"));
            ensure!(outcome.identity().is_none(), "{option} {to}: {outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn load_balancers_ask_where_clients_come_from() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let client = fixture.cluster.topology().pod("client").addresses();
        let node = fixture.cluster.topology().node("node1").addresses();
        for (address, inside, outside) in [(client, "client", "node1"), (node, "node1", "client")] {
            let ranges = format!(
                "spec:\n  loadBalancerSourceRanges: [{}/32, \"{}/128\"]\n",
                address.v4, address.v6
            );
            let yaml = exposed("narrow", "pair", "both", 43).replace("spec:\n", &ranges);
            fixture.apply("narrow.yaml", &yaml)?;
            let [_, external, balancer, node_port] = everywhere(&fixture, 43)[..] else {
                anyhow::bail!("four kinds of addresses");
            };
            for client in [inside, outside, "other"] {
                for to in [external, node_port] {
                    fixture.ensure_reaches(client, Tcp, to, &["near", "far"])?;
                }
                for to in balancer {
                    let allowed = client == inside;
                    let words = if allowed { "" } else { "reason source_range" };
                    let client = end(&fixture, client, to.ip());
                    fixture.ensure_explained(&client, to, allowed, words)?;
                }
            }
            fixture.ensure_reaches(inside, Tcp, balancer, &["near", "far"])?;
            fixture.ensure_silence("other", Tcp, balancer)?;
            for to in balancer {
                let outcome = Probe::tcp(to)
                    .timeout(Duration::from_millis(400))
                    .run(&fixture.place(outside));
                ensure!(
                    outcome.identity().is_none(),
                    "{outside} -> {to}: {outcome:?}"
                );
            }
        }
        Ok(())
    })
}

/// The endpoint that a client has, by every address of the Service.
fn partner(fixture: &Fixture, client: &str, v6: usize) -> Result<String> {
    let mut seen = BTreeSet::new();
    for to in everywhere(fixture, 41) {
        seen.extend(answers(fixture, client, to[v6], 6)?);
    }
    ensure!(seen.len() == 1, "{client} is led to {seen:?}");
    seen.pop_first().context("nobody answers")
}

#[test]
fn clients_are_remembered() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let sticky = |seconds: u32| {
            let affinity = format!(
                "spec:\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}\n"
            );
            exposed("sticky", "tier", "back", 41).replace("spec:\n", &affinity)
        };
        fixture.apply("sticky.yaml", &sticky(600))?;
        for client in ["client", "other", "node1"] {
            for v6 in [0, 1] {
                let first = partner(&fixture, client, v6)?;
                fixture.cluster.set_ready(&first, false)?;
                fixture.cluster.settle()?;
                let second = partner(&fixture, client, v6)?;
                ensure!(second != first, "{client} stays with {first}");
                fixture.cluster.set_ready(&first, true)?;
                fixture.cluster.settle()?;
                fixture.cluster.replace_agent("node1", &[])?;
                ensure!(partner(&fixture, client, v6)? == second, "{client} moved");
            }
        }
        fixture.apply("sticky.yaml", &sticky(1))?;
        for client in ["client", "node1"] {
            forgotten_after_a_second(&fixture, client)?;
        }
        Ok(())
    })
}

/// Twelve times the same of three would be chance in one of 200,000 runs.
fn forgotten_after_a_second(fixture: &Fixture, client: &str) -> Result<()> {
    let [to, _] = cluster_ips(41).map(|address| SocketAddr::new(address, 80));
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let now = answers(fixture, client, to, 4)?;
        ensure!(now.len() == 1, "{client} is led to {now:?} within a second");
        seen.extend(now);
        if seen.len() > 1 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1_100));
    }
    anyhow::bail!("{client} is still led to {seen:?}")
}

/// Node1 in a zone, or in none.
fn node_in(zone: Option<&str>, fixture: &Fixture) -> String {
    let [v4, v6] = fixture.cluster.topology().node("node1").addresses().both();
    let labels = zone.map_or_else(String::new, |zone| {
        format!(", labels: {{topology.kubernetes.io/zone: {zone}}}")
    });
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: node1{labels}}}\n\
         status: {{addresses: [{{type: InternalIP, address: {v4}}}, {{type: InternalIP, address: \"{v6}\"}}]}}\n"
    )
}

/// A Service over near (west, node1), far and spare (east, node2) with these hints.
fn hinted(fixture: &Fixture, hints: impl Fn(&str, &str) -> String) -> String {
    let mut yaml = service("hinted", "app", "x", 42).replace("  selector: {app: x}\n", "");
    for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
        yaml += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hinted-{family}, namespace: default, labels: {{kubernetes.io/service-name: hinted}}}}\n\
             addressType: {kind}\nports:\n- {{name: tcp, port: {PORT}, protocol: TCP}}\n- {{name: udp, port: {PORT}, protocol: UDP}}\nendpoints:\n"
        );
        for (pod, zone, node) in [
            ("near", "west", "node1"),
            ("far", "east", "node2"),
            ("spare", "east", "node2"),
        ] {
            let address = fixture.server(pod)[family].ip();
            let hints = hints(zone, node);
            yaml +=
                &format!("- {{addresses: [\"{address}\"], nodeName: {node}, hints: {hints}}}\n");
        }
    }
    yaml
}

#[test]
fn clients_stay_in_their_zone_and_follow_it() -> Result<()> {
    // Agents read files by name, and the first that has an object counts.
    const NODE: &str = "01-node1.yaml";
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let zones = hinted(&fixture, |zone, _| {
            format!("{{forZones: [{{name: {zone}}}]}}")
        });
        fixture.apply("hinted.yaml", &zones)?;
        let all = &["near", "far", "spare"];
        for (zone, wanted) in [
            (Some("west"), &["near"][..]),
            (Some("east"), &["far", "spare"]),
            (Some("south"), all),
            (None, all),
        ] {
            let node = node_in(zone, &fixture);
            fixture.apply(NODE, &node)?;
            for to in cluster_ips(42).map(|address| SocketAddr::new(address, 80)) {
                for client in ["client", "node1"] {
                    ensure_answers(&fixture, client, to, wanted)
                        .with_context(|| format!("zone {zone:?}"))?;
                }
            }
        }
        // PreferSameNode, from a zone of neither.
        let nodes = hinted(&fixture, |zone, node| {
            format!("{{forZones: [{{name: {zone}}}], forNodes: [{{name: {node}}}]}}")
        });
        fixture.apply("hinted.yaml", &nodes)?;
        for to in cluster_ips(42).map(|address| SocketAddr::new(address, 80)) {
            ensure_answers(&fixture, "client", to, &["near"])?;
            ensure_answers(&fixture, "far", to, &["far", "spare"])?;
        }
        Ok(())
    })
}
