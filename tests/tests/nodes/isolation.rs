//! Who is isolated from whom, packet by packet: every protocol, both families, each direction by itself; and which pods count.

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use weir_tests::probe::Protocol::{Tcp, Udp};
use weir_tests::probe::{EchoServer, Probe};

use crate::fixture::{ALL, Fixture, PATIENCE, PORT, SILENCE, Variant, each, vip};
use crate::raw::{EXPERIMENTS, arrives, ping};
use crate::sctp;

/// Routed pods, bridged ones past netfilter, and bridged ones behind an overlay.
const SOME: [Variant; 3] = [ALL[0], ALL[3], ALL[6]];

/// Ways to talk.
const WAYS: [&str; 5] = ["TCP", "UDP", "SCTP", "ping", "another protocol"];

/// A policy for the pods of an app (all pods if empty); `more` are the other fields of its spec.
pub(crate) fn policy(name: &str, app: &str, more: &str) -> String {
    let selector = match app {
        "" => "{}".to_owned(),
        app => format!("{{matchLabels: {{app: {app}}}}}"),
    };
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{podSelector: {selector}, {more}}}\n"
    )
}

/// Peers: the pods of an app.
pub(crate) fn pods(app: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}")
}

/// Peers: addresses.
pub(crate) fn addresses(ips: [IpAddr; 2]) -> String {
    let [v4, v6] = ips.map(|ip| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        format!("{{ipBlock: {{cidr: \"{ip}/{bits}\"}}}}")
    });
    format!("{v4}, {v6}")
}

/// Whether there is an answer, or for the last way whether it arrives.
fn gets_through(
    fixture: &Fixture,
    way: &str,
    [from, to]: [&str; 2],
    address: IpAddr,
    patience: Duration,
) -> Result<bool> {
    let place = fixture.place(from);
    let server = SocketAddr::new(address, PORT);
    let answers = |probe: Probe| probe.timeout(patience).run(&place).identity() == Some(to);
    match way {
        "TCP" => Ok(answers(Probe::tcp(server))),
        "UDP" => Ok(answers(Probe::udp(server))),
        "SCTP" => Ok(sctp::open(&place, address, PORT, patience).is_ok()),
        "ping" => ping(&place, address, 7, patience),
        _ => {
            // Without ports nobody can tell who of two has begun: each direction has a protocol of its own.
            let protocol = EXPERIMENTS[usize::from(from < to)];
            let own = fixture.cluster.topology().pod(from).addresses();
            let ends = [own.like(address), address];
            arrives(protocol, &place, &fixture.place(to), ends, patience)
        }
    }
}

/// Fails unless exactly these ways lead from one pod to the other, in both families.
fn ensure_open(fixture: &Fixture, ends: [&str; 2], open: &[&str]) -> Result<()> {
    let addresses = fixture.cluster.topology().pod(ends[1]).addresses().both();
    let tried = addresses.map(|address| WAYS.map(|way| (way, address)));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads = tried.concat().into_iter().map(|(way, address)| {
            let patience = if open.contains(&way) {
                PATIENCE
            } else {
                SILENCE
            };
            let ask = move || gets_through(fixture, way, ends, address, patience);
            (way, address, scope.spawn(ask))
        });
        // All of them start before one is waited for.
        let threads: Vec<_> = threads.collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads
            .into_iter()
            .map(|(way, address, thread)| (way, address, join(thread)))
            .collect()
    });
    for (way, address, outcome) in outcomes {
        let [from, to] = ends;
        let is_open = outcome.with_context(|| format!("{way} from {from} to {to}"))?;
        ensure!(
            is_open == open.contains(&way),
            "{way} from {from} to {to} at {address}: {is_open}"
        );
    }
    Ok(())
}

#[test]
fn each_direction_and_each_protocol_is_judged_by_itself() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let servers =
            ["near", "far", "client"].map(|pod| sctp::Server::start(&fixture.place(pod), 9));
        let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
        let ingress = |rules: &str| {
            policy(
                "near",
                "near",
                &format!("policyTypes: [Ingress], ingress: [{rules}]"),
            )
        };
        let egress = |rules: &str| {
            policy(
                "near",
                "near",
                &format!("policyTypes: [Egress], egress: [{rules}]"),
            )
        };
        let client = pods("client");
        let with_ports = |ports: &str| ingress(&format!("{{from: [{client}], ports: [{ports}]}}"));
        let (all, none) = (&WAYS[..], &[][..]);
        for (policies, into, out_of) in [
            (String::new(), all, all),
            (ingress(""), none, all),
            (egress(""), all, none),
            (ingress(&format!("{{from: [{client}]}}")), all, all),
            (egress(&format!("{{to: [{client}]}}")), all, all),
            (ingress(&format!("{{from: [{}]}}", pods("far"))), none, all),
            (with_ports(&format!("{{port: {PORT}}}")), &["TCP"], all),
            (with_ports("{protocol: UDP}"), &["UDP"], all),
            (with_ports("{protocol: SCTP}"), &["SCTP"], all),
            // What one end lets out, the other need not let in.
            (
                egress("{}") + &policy("client", "client", "policyTypes: [Ingress]"),
                all,
                none,
            ),
            (
                ingress("{}") + &policy("client", "client", "policyTypes: [Egress]"),
                none,
                all,
            ),
        ] {
            fixture.apply("near.yaml", &policies)?;
            ensure_open(&fixture, ["client", "near"], into).context(policies.clone())?;
            ensure_open(&fixture, ["near", "client"], out_of).context(policies)?;
        }
        // The same across nodes.
        fixture.apply(
            "near.yaml",
            &ingress(&format!("{{from: [{}]}}", pods("spare"))),
        )?;
        ensure_open(&fixture, ["far", "near"], none)?;
        ensure_open(&fixture, ["near", "far"], all)?;
        fixture.apply(
            "near.yaml",
            &ingress(&format!("{{from: [{}]}}", pods("far"))),
        )?;
        ensure_open(&fixture, ["far", "near"], all)?;
        servers.into_iter().try_for_each(sctp::Server::finish)
    })
}

#[test]
fn a_ping_is_no_answer_to_a_ping() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply(
            "near.yaml",
            &policy("near", "near", "policyTypes: [Ingress]"),
        )?;
        let topology = fixture.cluster.topology();
        for other in ["client", "far"] {
            let ends = topology.pod(other).addresses().both();
            let ends = ends.map(|ip| (ip, topology.pod("near").addresses().like(ip)));
            for (there, here) in ends {
                let (near, other) = (fixture.place("near"), fixture.place(other));
                for _ in 0..2 {
                    ensure!(ping(&near, there, 99, PATIENCE)?, "no answer from {there}");
                    ensure!(!ping(&other, here, 99, SILENCE)?, "{here} answers {there}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn nobody_speaks_for_another_pod() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let rule = format!("ingress: [{{from: [{}]}}]", pods("client"));
        fixture.apply("near.yaml", &policy("near", "near", &rule))?;
        let topology = fixture.cluster.topology();
        let [client, near] = ["client", "near"].map(|pod| topology.pod(pod).addresses());
        for to in near.both() {
            let receiver = fixture.place("near");
            let sent = |sender: &str, patience| {
                let place = fixture.place(sender);
                arrives(
                    EXPERIMENTS[0],
                    &place,
                    &receiver,
                    [client.like(to), to],
                    patience,
                )
            };
            ensure!(sent("client", PATIENCE)?, "{to}");
            ensure!(!sent("other", SILENCE)?, "other spoke for client to {to}");
        }
        let metrics = fixture.cluster.metrics("node1")?;
        let counted = metrics
            .lines()
            .any(|line| line.contains("reason=\"spoofed_source\"") && line.ends_with(" 2"));
        ensure!(counted, "{metrics}");
        Ok(())
    })
}

/// A pod's object in another form; agents read this file before the one that the cluster keeps.
fn edit(fixture: &mut Fixture, pod: &str, change: impl FnOnce(&mut Pod)) -> Result<()> {
    let mut object = fixture.cluster.topology().pod(pod).object();
    change(&mut object);
    let text = serde_json::to_string(&object)?;
    fixture.cluster.write_raw("15-edited.yaml", &text)?;
    fixture.cluster.settle()
}

#[test]
fn pods_count_as_they_are_at_the_moment() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let far = fixture.server("far");
        let from_client = format!("ingress: [{{from: [{}]}}]", pods("client"));
        fixture.apply("far.yaml", &policy("far", "far", &from_client))?;
        fixture.ensure_reaches("client", Tcp, far, &["far"])?;
        // One that is being deleted keeps what it has, and is no less isolated.
        let now = Timestamp::now();
        let leave = |pod: &mut Pod| pod.metadata.deletion_timestamp = Some(Time(now));
        edit(&mut fixture, "far", leave)?;
        fixture.ensure_reaches("client", Tcp, far, &["far"])?;
        fixture.ensure_silence("other", Tcp, far)?;
        edit(&mut fixture, "client", leave)?;
        fixture.ensure_reaches("client", Udp, far, &["far"])?;
        // Labels go, as a peer and as a subject, and come back.
        let unlabel = |pod: &mut Pod| pod.metadata.labels = None;
        edit(&mut fixture, "client", unlabel)?;
        fixture.ensure_silence("client", Tcp, far)?;
        edit(&mut fixture, "client", |_| ())?;
        fixture.ensure_reaches("client", Tcp, far, &["far"])?;
        edit(&mut fixture, "far", unlabel)?;
        fixture.ensure_reaches("other", Tcp, far, &["far"])?;
        edit(&mut fixture, "far", |_| ())?;
        fixture.ensure_silence("other", Tcp, far)?;
        // Namespaces, too.
        let team = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]";
        fixture.apply("far.yaml", &policy("far", "far", team))?;
        fixture.ensure_silence("client", Tcp, far)?;
        let namespace =
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: a}}\n";
        fixture.apply("namespace.yaml", namespace)?;
        fixture.ensure_reaches("client", Tcp, far, &["far"])?;
        fixture.apply("namespace.yaml", &namespace.replace("team: a", "team: b"))?;
        fixture.ensure_silence("client", Tcp, far)
    })
}

#[test]
fn pods_that_are_over_have_no_address() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let client = fixture.cluster.topology().pod("client").addresses();
        // It has ended, is younger than the pod that has its addresses now, and still shows them.
        let job = |phase: &str| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: job, namespace: default, uid: zz, labels: {{app: job}}, creationTimestamp: \"2126-01-01T00:00:00Z\"}}\n\
                 spec: {{nodeName: node1, containers: []}}\n\
                 status: {{phase: {phase}, podIP: {}, podIPs: [{{ip: {}}}, {{ip: \"{}\"}}]}}\n",
                client.v4, client.v4, client.v6
            )
        };
        let far = fixture.server("far");
        for phase in ["Succeeded", "Failed"] {
            fixture.apply("job.yaml", &job(phase))?;
            let isolated = policy("job", "job", "policyTypes: [Ingress, Egress]");
            fixture.apply("policies.yaml", &isolated)?;
            fixture.ensure_reaches("client", Tcp, far, &["far"])?;
            fixture.ensure_reaches("far", Tcp, fixture.server("client"), &["client"])?;
            let rule = |app| format!("ingress: [{{from: [{}]}}]", pods(app));
            fixture.apply("policies.yaml", &policy("far", "far", &rule("job")))?;
            fixture.ensure_silence("client", Tcp, far)?;
            fixture.apply("policies.yaml", &policy("far", "far", &rule("client")))?;
            fixture.ensure_reaches("client", Tcp, far, &["far"])?;
        }
        Ok(())
    })
}

#[test]
fn pods_of_a_nodes_own_network_are_the_node() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let node1 = fixture.cluster.topology().node("node1").addresses();
        let hosted = node1.both().map(|ip| SocketAddr::new(ip, PORT));
        // At one address each: the node has others, and datagrams would be answered from those.
        let _servers = hosted
            .map(|address| EchoServer::start_on(&fixture.place("node1"), "hosted", address))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        fixture.apply(
            "hosted.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: hosted, namespace: default, uid: hosted, labels: {{app: hosted}}}}\n\
                 spec: {{nodeName: node1, hostNetwork: true, containers: []}}\n\
                 status: {{phase: Running, podIP: {}, podIPs: [{{ip: {}}}, {{ip: \"{}\"}}]}}\n",
                node1.v4, node1.v4, node1.v6
            ),
        )?;
        let far = fixture.server("far");
        // A policy that names it closes nothing.
        let isolated = policy("hosted", "hosted", "policyTypes: [Ingress, Egress]");
        fixture.apply("policies.yaml", &isolated)?;
        for protocol in [Tcp, Udp] {
            fixture.ensure_reaches("client", protocol, hosted, &["hosted"])?;
            fixture.ensure_reaches("node1", protocol, far, &["far"])?;
        }
        // A selector does not name it, also not the one that names all; its node's address does.
        for peers in [pods("hosted"), "{namespaceSelector: {}}".to_owned()] {
            let rule = format!("ingress: [{{from: [{peers}]}}]");
            fixture.apply("policies.yaml", &policy("far", "far", &rule))?;
            fixture.ensure_silence("node1", Tcp, far)?;
            let rule = format!("policyTypes: [Egress], egress: [{{to: [{peers}]}}]");
            fixture.apply("policies.yaml", &policy("client", "client", &rule))?;
            fixture.ensure_silence("client", Tcp, hosted)?;
        }
        let rule = format!(
            "policyTypes: [Egress], egress: [{{to: [{}]}}]",
            addresses(node1.both())
        );
        fixture.apply("policies.yaml", &policy("client", "client", &rule))?;
        fixture.ensure_reaches("client", Tcp, hosted, &["hosted"])?;
        let there = node1
            .both()
            .map(|ip| crate::external::node1_there(&fixture, variant, ip));
        let rule = format!("ingress: [{{from: [{}]}}]", addresses(there));
        fixture.apply("policies.yaml", &policy("far", "far", &rule))?;
        fixture.ensure_reaches("node1", Tcp, far, &["far"])?;
        fixture.ensure_silence("client", Tcp, vip("far", 80))
    })
}
