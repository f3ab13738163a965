//! Load balancers, external addresses and node ports.

use std::sync::Arc;

use crate::compile::{Claim, Clients};
use crate::explain::{Explanation, Note, Verdict, services};
use crate::model::{ForeignService, NodePorts, Protocol, ServiceCidr, ServicePort, TrafficPolicy};

use super::cluster::{Cluster, name, shop};

const OUTSIDE: &str = "203.0.113.7";

/// The shop with a backend of nodes 1 and 2 at 192.0.2.15 (external), 192.0.2.16 (load balancer) and node port 30080, in both
/// families; another node.
fn open() -> Cluster {
    shop()
        .node("n3", "192.168.0.3 fd0a::3")
        .edit_service("shop/backend", |service| {
            let ips = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).into();
            service.external_ips = ips(["192.0.2.15", "2001:db8::15"]);
            service.load_balancer_ips = ips(["192.0.2.16", "2001:db8::16"]);
            service.ports[0].node_port = Some(30080);
        })
}

fn local() -> Cluster {
    open().edit_service("shop/backend", |service| {
        service.external_traffic_policy = TrafficPolicy::Local;
    })
}

/// Everything that the first endpoint's flows go to, and from whom its policies see them come.
fn ends(answer: &Explanation) -> Vec<String> {
    let flows = answer.flows.iter();
    flows
        .map(|flow| {
            let seen_as = flow.seen_as.as_ref();
            let seen_as = seen_as.map_or_else(String::new, |it| format!(" as {}", it.address));
            let hop = flow.hop.as_ref();
            let hop = hop.map_or_else(String::new, |it| {
                format!(" by {}:{}", it.place.address, it.port)
            });
            format!("{}:{}{seen_as}{hop}", flow.destination.address, flow.port)
        })
        .collect()
}

fn warnings(answer: &Explanation) -> Vec<&str> {
    let notes = answer.notes.iter().filter_map(|note| match note {
        Note::Warning(text) => Some(text.as_str()),
        Note::Hint(_) => None,
    });
    notes.collect()
}

#[test]
fn who_gets_which_endpoints_where() {
    let all = "10.1.0.3:8080 10.2.0.3:8080";
    let from_n1 = "10.1.0.3:8080 10.2.0.3:8080 as 192.168.0.1";
    // Source, destination; what it comes to with externalTrafficPolicy Cluster, and with Local.
    for (source, to, cluster, local_) in [
        // Pods and nodes, at every address of their own node: the cluster's set.
        ("web/frontend", "10.96.0.10:80", all, all),
        ("web/frontend", "192.0.2.15:80", all, all),
        ("web/frontend", "192.0.2.16:80", all, all),
        ("web/frontend", "192.168.0.1:30080", all, all),
        ("192.168.0.1", "192.0.2.15:80", all, all),
        ("192.168.0.3", "192.168.0.3:30080", all, all),
        // Clients outside: by the node asked, in whose name they go on.
        (OUTSIDE, "10.96.0.10:80", from_n1, from_n1),
        (OUTSIDE, "192.0.2.15:80", from_n1, "10.1.0.3:8080"),
        (OUTSIDE, "192.0.2.16:80", from_n1, "10.1.0.3:8080"),
        (OUTSIDE, "192.168.0.1:30080", from_n1, "10.1.0.3:8080"),
        (
            OUTSIDE,
            "192.168.0.2:30080",
            "10.1.0.3:8080 as 192.168.0.2 10.2.0.3:8080",
            "10.2.0.3:8080",
        ),
        (
            "2001:db8:9::1",
            "[2001:db8::15]:80",
            "fd01::3:8080 fd02::3:8080 as fd0a::1",
            "fd01::3:8080",
        ),
        // To another node's port they are outside, too.
        (
            "web/frontend",
            "192.168.0.2:30080",
            "10.1.0.3:8080 as 192.168.0.2 by 192.168.0.2:30080 10.2.0.3:8080 by 192.168.0.2:30080",
            "10.2.0.3:8080 by 192.168.0.2:30080",
        ),
        (
            "192.168.0.1",
            "192.168.0.2:30080",
            "10.1.0.3:8080 as 192.168.0.2 by 192.168.0.2:30080 10.2.0.3:8080 by 192.168.0.2:30080",
            "10.2.0.3:8080 by 192.168.0.2:30080",
        ),
    ] {
        for (cluster, wanted) in [(open(), cluster), (local(), local_)] {
            let answer = cluster.ask(source, to);
            assert_eq!(answer.verdict, Verdict::Allowed, "{source} -> {to}");
            assert_eq!(ends(&answer).join(" "), wanted, "{source} -> {to}");
            let [translation] = &answer.translations[..] else {
                panic!("{source} -> {to}: {:?}", answer.translations);
            };
            assert_eq!(translation.service, name("shop/backend"));
        }
    }
}

#[test]
fn the_answer_says_by_what_and_where() {
    let about = |cluster: &Cluster, source: &str, to: &str| {
        let answer = cluster.ask(source, to);
        let it = &answer.translations[0];
        (it.kind, it.node.clone(), it.clients, it.only_node.clone())
    };
    let n = |name: &str| name.to_owned();
    for (source, to, kind, node) in [
        ("web/frontend", "10.96.0.10:80", Claim::ClusterIp, "n1"),
        ("shop/backend-2", "192.0.2.15:80", Claim::ExternalIp, "n2"),
        (OUTSIDE, "192.0.2.16:80", Claim::LoadBalancer, "n1"),
        (OUTSIDE, "192.168.0.2:30080", Claim::NodePort, "n2"),
    ] {
        let wanted = (kind, n(node), None, None);
        assert_eq!(about(&open(), source, to), wanted, "{source} -> {to}");
    }
    for (source, to, clients, node) in [
        ("web/frontend", "192.0.2.16:80", Clients::Inside, None),
        (OUTSIDE, "192.0.2.16:80", Clients::Outside, Some(n("n1"))),
    ] {
        let wanted = (Claim::LoadBalancer, n("n1"), Some(clients), node);
        assert_eq!(about(&local(), source, to), wanted, "{source} -> {to}");
    }
}

#[test]
fn local_without_a_local_endpoint_drops_clients_outside_only() {
    let to = "192.168.0.3:30080";
    let answer = local().ask(OUTSIDE, to);
    assert_eq!(answer.verdict, Verdict::NoLocalEndpoint);
    assert_eq!(
        answer.translations[0].problem.as_deref(),
        Some("externalTrafficPolicy is Local and node n3 has no endpoint that takes connections")
    );
    let excluded = &answer.translations[0].endpoints[0].excluded;
    assert_eq!(
        excluded.as_deref(),
        Some("not on node n3 (externalTrafficPolicy Local)")
    );
    assert_eq!(
        local().ask("web/frontend", to).verdict,
        Verdict::NoLocalEndpoint
    );
    assert_eq!(local().ask("192.168.0.3", to).verdict, Verdict::Allowed);
    let nobody = local().edit_slices(|slice| slice.endpoints.clear());
    for to in [to, "192.0.2.15:80", "192.0.2.16:80"] {
        assert_eq!(nobody.ask(OUTSIDE, to).verdict, Verdict::NoEndpoint, "{to}");
    }
}

#[test]
fn load_balancers_ask_where_clients_come_from() {
    let narrow = |ranges: &[&str]| {
        open().edit_service("shop/backend", |service| {
            service.source_ranges = ranges.iter().map(|it| it.parse().unwrap()).collect();
        })
    };
    let problem = |cluster: &Cluster, source: &str, to: &str| {
        let answer = cluster.ask(source, to);
        let range = answer.verdict == Verdict::SourceRange;
        assert_eq!(range, answer.flows.is_empty(), "{source} -> {to}");
        range.then(|| answer.translations[0].problem.clone().unwrap())
    };
    let pods = narrow(&["10.1.0.0/24", "192.168.0.2/32"]);
    let refused = |who: &str| {
        Some(format!(
            "none of loadBalancerSourceRanges (10.1.0.0/24, 192.168.0.2/32) holds {who}: dropped, reason source_range"
        ))
    };
    let balancer = "192.0.2.16:80";
    for (source, wanted) in [
        ("web/frontend", None),
        ("192.168.0.2", None),
        (OUTSIDE, refused(OUTSIDE)),
        ("shop/backend-2", refused("10.2.0.3")),
        // Whatever address is asked about, its packets come from the first.
        ("192.168.0.1", refused("the address 192.168.0.1 of node n1")),
    ] {
        assert_eq!(problem(&pods, source, balancer), wanted, "{source}");
        for open in ["192.0.2.15:80", "192.168.0.1:30080", "10.96.0.10:80"] {
            assert_eq!(problem(&pods, source, open), None, "{source} -> {open}");
        }
    }
    // A family without ranges is open; so is one with a range that holds everybody.
    assert_eq!(problem(&pods, "2001:db8:9::1", "[2001:db8::16]:80"), None);
    let all = narrow(&["10.1.0.0/24", "0.0.0.0/0"]);
    assert_eq!(problem(&all, OUTSIDE, balancer), None);
    // It is asked for before anything else.
    let one = narrow(&["10.9.0.0/24"]).edit_slices(|slice| slice.endpoints.clear());
    let problem = problem(&one, OUTSIDE, balancer).expect("refused");
    assert!(
        problem.contains("(10.9.0.0/24) holds 203.0.113.7: "),
        "{problem}"
    );
}

#[test]
fn other_ports_are_not_the_services() {
    for (to, warning) in [
        (
            "192.0.2.16:81",
            "192.0.2.16 is an address of Service shop/backend, but port 81/TCP there is no Service's; there is 80/TCP; the connection is for whoever has the address",
        ),
        (
            "192.0.2.15:80/UDP",
            "192.0.2.15 is an address of Service shop/backend, but port 80/UDP there is no Service's; there is 80/TCP; the connection is for whoever has the address",
        ),
    ] {
        for source in ["web/frontend", OUTSIDE] {
            let answer = open().ask(source, to);
            assert_eq!(answer.verdict, Verdict::Allowed, "{source} -> {to}");
            assert!(answer.translations.is_empty(), "{source} -> {to}");
            assert_eq!(warnings(&answer), [warning], "{source} -> {to}");
        }
    }
    // A port of the node itself.
    for to in [
        "192.168.0.1:30081",
        "192.168.0.1:80",
        "192.168.0.1:30080/UDP",
    ] {
        let answer = open().ask("web/frontend", to);
        assert_eq!(answer.verdict, Verdict::Allowed, "{to}");
        assert!(answer.translations.is_empty(), "{to}");
        assert_eq!(warnings(&answer), [""; 0], "{to}");
    }
    // All ports of a cluster IP are the Service's.
    let answer = open().ask("web/frontend", "10.96.0.10:81");
    assert_eq!(answer.verdict, Verdict::NoServicePort);
}

#[test]
fn node_ports_are_where_the_operator_wants_them() {
    let mut cluster =
        open()
            .node("n1", "192.168.0.1 10.9.9.1")
            .edit_service("shop/backend", |service| {
                service.ports.push(ServicePort {
                    name: "other".to_owned(),
                    port: 81,
                    node_port: Some(30081),
                    ..service.ports[0].clone()
                });
            });
    let answer = |cluster: &Cluster, source: &str, to: &str| {
        let answer = cluster.ask(source, to);
        (answer.translations.len(), warnings(&answer).join(" "))
    };
    cluster.0.node_ports = vec!["10.9.9.0/24".parse::<NodePorts>().unwrap()];
    let missed = "node port 30080/TCP of Service shop/backend is served on node n1 at 10.9.9.1:30080, not at 192.168.0.1 (--nodeport-addresses): the connection is for the node itself";
    for source in ["web/frontend", "192.168.0.1", OUTSIDE] {
        let found = answer(&cluster, source, "10.9.9.1:30080");
        assert_eq!(found, (1, String::new()), "{source}");
        let found = answer(&cluster, source, "192.168.0.1:30080");
        assert_eq!(found, (0, missed.to_owned()), "{source}");
    }
    // Of another protocol it is no Service's.
    let other = answer(&cluster, OUTSIDE, "192.168.0.1:30080/UDP");
    assert_eq!(other, (0, String::new()));
    cluster.0.node_ports = vec!["192.0.2.0/24".parse::<NodePorts>().unwrap()];
    let nowhere = missed.replace("10.9.9.1:30080", "no address");
    assert_eq!(answer(&cluster, OUTSIDE, "192.168.0.1:30080"), (0, nowhere));
    // Loopback addresses, on request: for the node's own processes.
    cluster.0.node_ports = vec!["127.0.0.0/8".parse::<NodePorts>().unwrap()];
    cluster.0.devices.addresses = ["127.0.0.1".parse().unwrap()].into();
    assert_eq!(answer(&cluster, "192.168.0.1", "127.0.0.1:30080").0, 1);
    assert_eq!(answer(&cluster, "web/frontend", "127.0.0.1:30080").0, 0);
}

#[test]
fn the_strongest_claim_to_an_address_counts() {
    let cluster = open()
        .service("shop/thief", "10.96.0.66", "app=database", "80 81", "5432")
        .edit_service("shop/thief", |service| {
            service.external_ips = ["10.96.0.10", "192.0.2.16"]
                .map(|ip| ip.parse().unwrap())
                .into();
        });
    let owner = |to: &str| {
        let answer = cluster.ask("web/frontend", to);
        answer.translations[0].service.name.clone()
    };
    assert_eq!(owner("10.96.0.10:80"), "backend");
    assert_eq!(owner("192.0.2.16:80"), "backend");
    assert_eq!(owner("192.0.2.16:81"), "thief");
    assert_eq!(owner("10.96.0.10:81"), "thief", "as the programs have it");
    assert_eq!(owner("10.96.0.10:82"), "backend");
    let taken = Some("Service shop/backend has that address and port");
    let lost: Vec<_> = services(&cluster.0)
        .into_iter()
        .filter(|row| row.problem.as_deref() == taken)
        .map(|row| {
            assert_eq!(row.service, name("shop/thief"));
            assert!(row.endpoints.is_empty());
            format!("{}:{}", row.address, row.port)
        })
        .collect();
    assert_eq!(lost, ["10.96.0.10:80", "192.0.2.16:80"]);
}

#[test]
fn external_addresses_may_be_in_a_range_of_services() {
    let mut cluster = open();
    let range = ServiceCidr {
        name: "kubernetes".to_owned(),
        cidrs: vec!["192.0.2.0/24".parse().unwrap()],
    };
    let ranges = &mut cluster.0.service_cidrs;
    ranges.insert(range.name.clone(), Arc::new(range));
    let foreign = ForeignService {
        name: name("shop/other"),
        cluster_ips: vec!["192.0.2.77".parse().unwrap()],
    };
    cluster
        .0
        .foreign
        .insert(foreign.name.clone(), Arc::new(foreign));
    for (to, verdict) in [
        ("192.0.2.15:80", Verdict::Allowed),
        ("192.0.2.16:80", Verdict::Allowed),
        ("192.0.2.15:81", Verdict::NoService),
        ("192.0.2.17:80", Verdict::NoService),
        ("192.0.2.77:80", Verdict::Allowed),
    ] {
        for source in ["web/frontend", "192.168.0.1", OUTSIDE] {
            assert_eq!(cluster.ask(source, to).verdict, verdict, "{source} -> {to}");
        }
    }
}

/// What the policies of backends may name.
#[test]
fn policies_of_remote_backends_see_the_node() {
    let only = |cidr: &str| {
        let block = format!("{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}");
        open().rule(
            "shop/only",
            &format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{block}]}}"),
        )
    };
    let verdicts = |answer: &Explanation| -> Vec<Verdict> {
        answer.flows.iter().map(|flow| flow.verdict).collect()
    };
    let to = "192.168.0.1:30080";
    let client = only("203.0.113.0/24");
    let answer = client.ask(OUTSIDE, to);
    assert_eq!(answer.verdict, Verdict::Partly);
    assert_eq!(verdicts(&answer), [Verdict::Allowed, Verdict::Denied]);
    assert_eq!(
        answer.flows[1].ingress.nearest[0].misses,
        [
            "203.0.113.0/24 covers the client 203.0.113.7, but the pod is on another node than the one that the connection comes in by, and sees that node's address 192.168.0.1"
        ]
    );
    let hint = "the connection comes in by node n1 and pod shop/backend-2 is on another: its policies see the node's address 192.168.0.1 (on a tunnel, that of the tunnel device) in place of 203.0.113.7; with externalTrafficPolicy Local they see the client";
    assert_eq!(answer.notes, [Note::Hint(hint.to_owned())]);
    assert_eq!(
        client.fixed(&answer).ask(OUTSIDE, to).verdict,
        Verdict::Allowed
    );
    // The node is no exemption for what it sends on.
    let answer = only("192.168.0.1/32").ask(OUTSIDE, to);
    assert_eq!(verdicts(&answer), [Verdict::Denied, Verdict::Allowed]);
    // Without policies at the backend nobody cares.
    assert_eq!(open().ask(OUTSIDE, to).notes, []);
}

#[test]
fn policies_of_pods_see_another_nodes_port() {
    let to = "192.168.0.2:30080";
    let egress = |rule: &str| {
        open().rule(
            "web/out",
            &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{rule}]}}"),
        )
    };
    let pods = egress("{to: [{namespaceSelector: {}}]}");
    let answer = pods.ask("web/frontend", to);
    assert_eq!(answer.verdict, Verdict::Denied);
    // At its own node's port it sees the endpoints.
    assert_eq!(
        pods.ask("web/frontend", "192.168.0.1:30080").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        pods.fixed(&answer).ask("web/frontend", to).verdict,
        Verdict::Allowed
    );
    let node = egress("{to: [{ipBlock: {cidr: 192.168.0.2/32}}], ports: [{port: 30080}]}");
    assert_eq!(node.ask("web/frontend", to).verdict, Verdict::Allowed);
    assert_eq!(
        node.ask("web/frontend", "192.168.0.1:30080").verdict,
        Verdict::Denied
    );
    // Its policies come first.
    let nobody = pods.edit_slices(|slice| slice.endpoints.clear());
    assert_eq!(nobody.ask("web/frontend", to).verdict, Verdict::Denied);
    let nobody = node.edit_slices(|slice| slice.endpoints.clear());
    assert_eq!(nobody.ask("web/frontend", to).verdict, Verdict::NoEndpoint);
    // The other end sees the pod, unless somebody masquerades.
    let judged = open().rule(
        "shop/in",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}",
    );
    let answer = judged.edit_service("shop/backend", |service| {
        service.external_traffic_policy = TrafficPolicy::Local;
    });
    let answer = answer.ask("web/frontend", to);
    assert_eq!(answer.verdict, Verdict::Allowed);
    let hint = "where the pod network masquerades what pods send to nodes, node n2 and the policies of pod shop/backend-2 see an address of node n1 in place of 10.1.0.2";
    assert_eq!(answer.notes, [Note::Hint(hint.to_owned())]);
}

#[test]
fn ports_that_can_be_told_need_not_be_given() {
    let cluster = open()
        .service(
            "shop/dns",
            "10.96.0.54",
            "k8s-app=kube-dns",
            "dns=53/UDP",
            "dns",
        )
        .edit_service("shop/dns", |service| {
            service.ports[0].node_port = Some(30053);
        });
    let port = |to: &str| {
        let answer = cluster.ask("web/frontend", to);
        (answer.port, answer.protocol)
    };
    assert_eq!(port("192.0.2.15"), (80, Protocol::Tcp));
    assert_eq!(port("192.168.0.1:30053"), (30053, Protocol::Udp));
    assert_eq!(port("192.168.0.1:30054"), (30054, Protocol::Tcp));
    let error = cluster.fail("web/frontend", "192.168.0.1");
    assert!(error.contains("which port of 192.168.0.1?"), "{error}");
}

#[test]
fn every_frontend_is_listed() {
    let list = |cluster: &Cluster| -> Vec<String> {
        let rows = services(&cluster.0).into_iter();
        let rows = rows.filter(|row| row.service.name == "backend" && row.address.is_ipv4());
        rows.map(|row| {
            let used = row.endpoints.iter().filter(|it| it.excluded.is_none());
            let clients = row
                .clients
                .map_or_else(String::new, |it| format!(" {it:?}"));
            format!(
                "{} {}:{}{clients} {}",
                row.kind,
                row.address,
                row.port,
                used.count()
            )
        })
        .collect()
    };
    assert_eq!(
        list(&open()),
        [
            "ClusterIP 10.96.0.10:80 2",
            "LoadBalancer 192.0.2.16:80 2",
            "ExternalIP 192.0.2.15:80 2",
            "NodePort 192.168.0.1:30080 2",
        ]
    );
    assert_eq!(
        list(&local()),
        [
            "ClusterIP 10.96.0.10:80 2",
            "LoadBalancer 192.0.2.16:80 Inside 2",
            "LoadBalancer 192.0.2.16:80 Outside 1",
            "ExternalIP 192.0.2.15:80 Inside 2",
            "ExternalIP 192.0.2.15:80 Outside 1",
            "NodePort 192.168.0.1:30080 Inside 2",
            "NodePort 192.168.0.1:30080 Outside 1",
        ]
    );
}
