//! What Services make of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use crate::explain::{Note, Verdict};
use crate::model::{ForeignService, Hints, ServiceCidr, TrafficPolicy};

use super::cluster::{Cluster, name, shop};

fn problem(cluster: &Cluster) -> String {
    let answer = cluster.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::NoEndpoint);
    assert!(answer.flows.is_empty());
    answer.translations[0].problem.clone().expect("a problem")
}

#[test]
fn every_backend_of_both_families_is_judged() {
    let answer = shop().ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::Allowed);
    let flows: Vec<_> = answer
        .flows
        .iter()
        .map(|flow| format!("{} {}", flow.destination.address, flow.port))
        .collect();
    assert_eq!(
        flows,
        [
            "10.1.0.3 8080",
            "10.2.0.3 8080",
            "fd01::3 8080",
            "fd02::3 8080"
        ]
    );
    // Asked by one address, only that address.
    let answer = shop().ask("web/frontend", "10.96.0.10:80");
    assert_eq!(answer.flows.len(), 2);
}

#[test]
fn unready_and_terminating_endpoints_are_left_out_with_the_reason() {
    let cluster = shop().edit_slices(|slice| {
        for endpoint in &mut slice.endpoints {
            if endpoint.pod.as_ref().unwrap().name == "backend-2" {
                endpoint.ready = false;
            }
        }
    });
    let answer = cluster.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.flows.len(), 2);
    let excluded = |answer: &crate::explain::Explanation| -> Vec<Option<String>> {
        let endpoints = answer.translations[0].endpoints.iter();
        endpoints.map(|e| e.excluded.clone()).collect()
    };
    assert_eq!(excluded(&answer), [None, Some("not ready".to_owned())]);

    // No ready one: those that still serve while they terminate take connections.
    let cluster = cluster.edit_slices(|slice| {
        for endpoint in &mut slice.endpoints {
            endpoint.ready = false;
            endpoint.terminating = endpoint.pod.as_ref().unwrap().name == "backend-1";
        }
    });
    let answer = cluster.ask("web/frontend", "shop/svc/backend");
    assert_eq!(excluded(&answer), [None, Some("not ready".to_owned())]);
}

#[test]
fn a_service_without_endpoints_says_why() {
    let wrong_label = shop()
        .edit_service("shop/backend", |service| {
            service
                .selector
                .insert("app".to_owned(), "bakend".to_owned());
        })
        .edit_slices(|slice| slice.endpoints.clear());
    assert_eq!(
        problem(&wrong_label),
        "its selector app=bakend matches no pod in namespace shop; nearest is pod shop/backend-1: app=backend instead of app=bakend"
    );

    // Pods of other namespaces are no nearer.
    let elsewhere = wrong_label.clone().edit_service("shop/backend", |service| {
        service
            .selector
            .insert("app".to_owned(), "frontend".to_owned());
    });
    assert_eq!(
        problem(&elsewhere),
        "its selector app=frontend matches no pod in namespace shop; nearest is pod shop/backend-1: app=backend instead of app=frontend"
    );

    let single = ["shop/backend-1", "shop/backend-2"]
        .into_iter()
        .fold(shop(), |cluster, pod| {
            cluster.edit_pod(pod, |pod| pod.ips.retain(IpAddr::is_ipv4))
        })
        .edit_slices(|slice| slice.endpoints.retain(|it| it.address.is_ipv4()));
    let answer = single.ask("web/frontend", "[fd96::10]:80");
    assert_eq!(
        answer.translations[0].problem.as_deref(),
        Some("none of the 2 pods that its selector app=backend matches has an IPv6 address")
    );

    let one = shop().edit_slices(|slice| {
        slice.endpoints.truncate(1);
        for endpoint in &mut slice.endpoints {
            endpoint.ready = false;
        }
    });
    assert_eq!(
        problem(&one),
        "1 endpoint, none takes connections: shop/backend-1 not ready"
    );

    let unready = shop().edit_slices(|slice| {
        for endpoint in &mut slice.endpoints {
            endpoint.ready = false;
        }
    });
    assert_eq!(
        problem(&unready),
        "2 endpoints, none takes connections: shop/backend-1 not ready, shop/backend-2 not ready"
    );

    let wrong_name = shop()
        .edit_service("shop/backend", |service| {
            service.ports[0].target_port = "web".to_owned();
        })
        .edit_slices(|slice| slice.ports.clear());
    assert_eq!(
        problem(&wrong_name),
        "targetPort \"web\" is no TCP port of the pods behind it; the pods declare 8080/TCP (http)"
    );

    let no_slices = shop().edit_slices(|slice| slice.endpoints.clear());
    assert_eq!(
        problem(&no_slices),
        "its selector app=backend matches 2 pods, but no EndpointSlice lists them yet"
    );

    let other_name = shop().edit_slices(|slice| {
        for port in &mut slice.ports {
            port.name = "web".to_owned();
        }
    });
    assert_eq!(
        problem(&other_name),
        "its EndpointSlices have no TCP port named \"\" like the Service port; they have \"web\" 8080/TCP"
    );

    let manual = no_slices.edit_service("shop/backend", |service| service.selector.clear());
    assert_eq!(
        problem(&manual),
        "the Service has no selector, and no EndpointSlice lists an IPv4 endpoint for it"
    );
}

#[test]
fn a_wrong_target_port_is_spotted() {
    let cluster = shop()
        .edit_service("shop/backend", |service| {
            service.ports[0].target_port = "8081".to_owned();
        })
        .edit_slices(|slice| {
            for port in &mut slice.ports {
                if port.port == 8080 {
                    port.port = 8081;
                }
            }
        });
    let answer = cluster.ask("web/frontend", "shop/svc/backend");
    let warning = "wrong targetPort? Service shop/backend leads to port 8081/TCP, but the pods declare 8080/TCP (http)";
    assert_eq!(answer.notes, [Note::Warning(warning.to_owned())]);
    assert!(
        shop()
            .ask("web/frontend", "shop/svc/backend")
            .notes
            .is_empty()
    );
}

#[test]
fn a_port_that_the_service_lacks_is_refused() {
    let answer = shop().ask("web/frontend", "shop/svc/backend:81");
    assert_eq!(answer.verdict, Verdict::NoServicePort);
    assert_eq!(
        answer.translations[0].problem.as_deref(),
        Some("the Service has no TCP port 81; there is 80/TCP")
    );
    let answer = shop().ask("web/frontend", "shop/svc/backend:80/UDP");
    assert_eq!(answer.verdict, Verdict::NoServicePort);
}

#[test]
fn an_address_of_services_that_none_has_is_dropped() {
    let mut cluster = shop();
    let range = ServiceCidr {
        name: "kubernetes".to_owned(),
        cidrs: ["10.96.0.0/16", "fd96::/112"]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
    };
    let ranges = &mut cluster.0.service_cidrs;
    ranges.insert(range.name.clone(), Arc::new(range));
    let other = ForeignService {
        name: name("shop/other"),
        cluster_ips: ["10.96.0.77", "fd96::77"]
            .map(|ip| ip.parse().unwrap())
            .into(),
    };
    cluster
        .0
        .foreign
        .insert(other.name.clone(), Arc::new(other));
    let verdict = |to: &str| {
        let answer = cluster.ask("web/frontend", to);
        let dropped = answer.verdict == Verdict::NoService;
        assert_eq!(dropped, answer.flows.is_empty(), "{to}");
        answer.verdict
    };
    // Within the ranges, and no Service's.
    for nobodys in ["10.96.0.99:80", "[fd96::99]:80", "[::ffff:10.96.0.99]:80"] {
        assert_eq!(verdict(nobodys), Verdict::NoService, "{nobodys}");
    }
    // Of a Service, of one that another proxy serves, and outside.
    for other in [
        "10.96.0.10:80",
        "[fd96::10]:80",
        "10.96.0.77:80",
        "[fd96::77]:80",
        "10.97.0.99:80",
        "[fd97::99]:80",
    ] {
        assert_eq!(verdict(other), Verdict::Allowed, "{other}");
    }
    // Without ranges nothing is known of an address that no Service has.
    let answer = shop().ask("web/frontend", "10.96.0.99:80");
    assert_eq!(answer.verdict, Verdict::Allowed);
}

#[test]
fn internal_traffic_policy_local_keeps_to_the_clients_node() {
    let local = shop().edit_service("shop/backend", |service| {
        service.internal_traffic_policy = TrafficPolicy::Local;
    });
    let answer = local.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.flows.len(), 2);
    assert!(
        answer
            .flows
            .iter()
            .all(|f| f.destination.node.as_deref() == Some("n1"))
    );

    let elsewhere = local.edit_pod("web/frontend", |pod| pod.node = "n3".to_owned());
    let answer = elsewhere.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::NoLocalEndpoint);
    let nowhere = elsewhere.edit_slices(|slice| slice.endpoints.clear());
    let answer = nowhere.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::NoEndpoint);
}

#[test]
fn hints_keep_clients_to_their_node() {
    let hinted = shop().edit_slices(|slice| {
        for endpoint in &mut slice.endpoints {
            endpoint.hints = endpoint.node.clone().map(|node| {
                Box::new(Hints {
                    nodes: vec![node],
                    ..Hints::default()
                })
            });
        }
    });
    let answer = hinted.ask("web/frontend", "shop/svc/backend");
    let nodes = answer.flows.iter().map(|f| f.destination.node.as_deref());
    assert!(nodes.eq([Some("n1"); 2]));
    let endpoints = &answer.translations[0].endpoints;
    let elsewhere = endpoints
        .iter()
        .find(|e| e.node.as_deref() != Some("n1"))
        .expect("an endpoint on another node");
    assert_eq!(
        elsewhere.excluded.as_deref(),
        Some("its hints mean it for others than node n1")
    );
}

#[test]
fn policies_see_the_target_port_and_the_endpoint() {
    let cluster = shop().rule(
        "web/out",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 80}]}, {to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}",
    );
    let answer = cluster.ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::Denied);
    let nearest = &answer.flows[0].egress.nearest;
    assert_eq!(
        nearest[0].misses,
        [
            "the rule allows the Service port 80, but policies see the target port 8080 that the pod listens on"
        ]
    );
    assert_eq!(
        nearest[1].misses,
        [
            "10.96.0.0/16 covers the virtual address 10.96.0.10, but policies see the endpoint 10.1.0.3 behind it"
        ]
    );
    let warning = "ipBlock 10.96.0.0/16 of policy web/out covers the virtual address 10.96.0.10 of Service shop/backend, which allows nothing: policies see the endpoint behind it";
    assert!(
        answer.notes.contains(&Note::Warning(warning.to_owned())),
        "{:?}",
        answer.notes
    );
}

#[test]
fn one_denied_backend_makes_it_partly() {
    let answer = shop()
        .edit_pod("shop/backend-2", |pod| {
            pod.labels.insert("shut".to_owned(), "yes".to_owned());
        })
        .rule(
            "shop/shut",
            "{podSelector: {matchLabels: {shut: \"yes\"}}, policyTypes: [Ingress]}",
        )
        .ask("web/frontend", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::Partly);
}

#[test]
fn an_address_listed_twice_counts_once_and_as_ready() {
    let cluster = shop()
        .edit_slices(|slice| slice.endpoints.iter_mut().for_each(|e| e.ready = false))
        .slice(
            "shop/backend",
            true,
            &["shop/backend-1", "shop/backend-1"],
            "8080",
        );
    let answer = cluster.ask("web/frontend", "10.96.0.10:80");
    assert_eq!(answer.flows.len(), 1);
}

#[test]
fn a_port_that_a_pod_does_not_declare_is_told() {
    let cluster = shop()
        .pod("shop/both", "n1", "10.1.0.30", "", "80 dns=53/UDP")
        .pod("shop/udp", "n1", "10.1.0.31", "", "dns=53/UDP");
    let hints = |to: &str| -> Vec<String> {
        let notes = cluster.ask("web/frontend", to).notes.into_iter();
        notes
            .map(|note| match note {
                Note::Hint(text) | Note::Warning(text) => text,
            })
            .collect()
    };
    for (to, hint) in [
        (
            "shop/database:81",
            "pod shop/database does not declare port 81/TCP: pod shop/database declares 5432/TCP (sql)",
        ),
        // Of the protocol asked about, else of the others.
        (
            "shop/both:53",
            "pod shop/both does not declare port 53/TCP: pod shop/both declares 80/TCP",
        ),
        (
            "shop/both:80/UDP",
            "pod shop/both does not declare port 80/UDP: pod shop/both declares 53/UDP (dns)",
        ),
        (
            "shop/udp:53",
            "pod shop/udp does not declare port 53/TCP: pod shop/udp declares 53/UDP (dns)",
        ),
    ] {
        assert_eq!(hints(to), [hint]);
    }
    // Who declares nothing may listen on anything.
    for to in ["shop/database:5432", "shop/udp:53/UDP", "web/frontend:1"] {
        assert_eq!(hints(to), [""; 0], "{to}");
    }
}

#[test]
fn a_block_around_a_virtual_address_is_told_in_its_family() {
    let rule = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: \"::/0\"}}]}]}";
    let answer = shop()
        .rule("web/out", rule)
        .ask("web/frontend", "shop/svc/backend");
    let warning = "ipBlock 10.96.0.0/16 of policy web/out covers the virtual address 10.96.0.10 of Service shop/backend, which allows nothing: policies see the endpoint behind it";
    assert_eq!(answer.notes, [Note::Warning(warning.to_owned())]);
}

#[test]
fn of_endpoints_at_one_place_the_running_one_on_the_clients_node_is_told_first() {
    // backend-1 of node 1 four times more, at its address and port.
    let cluster = shop().edit_slices(|slice| {
        let mut terminating = slice.endpoints[0].clone();
        terminating.terminating = true;
        terminating.ready = false;
        let mut unready = slice.endpoints[0].clone();
        unready.ready = false;
        unready.serving = false;
        let mut serving = slice.endpoints[0].clone();
        serving.ready = false;
        let mut elsewhere = slice.endpoints[0].clone();
        elsewhere.node = Some("n2".to_owned());
        if slice.service.name == "backend" {
            slice
                .endpoints
                .splice(0..0, [terminating, unready, serving, elsewhere]);
        }
    });
    let answer = cluster.ask("web/frontend", "10.96.0.10:80");
    let told: Vec<_> = answer.translations[0]
        .endpoints
        .iter()
        .map(|it| {
            let left_out = it.excluded.is_some();
            let state = (it.terminating, it.ready, it.serving);
            (state, it.node.as_deref(), left_out)
        })
        .collect();
    let (n1, n2) = (Some("n1"), Some("n2"));
    assert_eq!(
        told,
        [
            ((false, true, true), n1, false),
            ((false, true, true), n2, true),
            ((false, false, true), n1, true),
            ((false, false, false), n1, true),
            ((true, false, true), n1, true),
            ((false, true, true), n2, false),
        ]
    );
}

#[test]
fn what_keeps_an_endpoint_out_is_told() {
    let cluster = shop()
        .edit_service("shop/backend", |service| {
            service.internal_traffic_policy = TrafficPolicy::Local;
        })
        .edit_slices(|slice| {
            let mut terminating = slice.endpoints[0].clone();
            if slice.service.name != "backend" || terminating.address.is_ipv6() {
                return;
            }
            terminating.address = "10.1.0.77".parse().unwrap();
            terminating.terminating = true;
            terminating.ready = false;
            let mut unready = terminating.clone();
            unready.address = "10.1.0.78".parse().unwrap();
            unready.terminating = false;
            slice.endpoints.extend([terminating, unready]);
        });
    let answer = cluster.ask("web/frontend", "10.96.0.10:80");
    let told: Vec<_> = answer.translations[0]
        .endpoints
        .iter()
        .map(|it| format!("{} {}", it.address, it.excluded.as_deref().unwrap_or("in")))
        .collect();
    assert_eq!(
        told,
        [
            "10.1.0.3 in",
            "10.1.0.77 terminating",
            "10.1.0.78 not ready",
            "10.2.0.3 not on node n1 (internalTrafficPolicy Local)",
        ]
    );
}
