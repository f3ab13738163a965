//! Lookups under default-deny: recognised, and the rule that is printed brings them back.

use crate::explain::{Note, Verdict};

use super::cluster::{Cluster, shop};

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

/// Applies what is printed for one lookup; then it works over both protocols.
fn fixed(closed: &Cluster, destination: &str) -> Cluster {
    let answer = closed.ask("shop/backend-1", &format!("{destination}/UDP"));
    assert_eq!(answer.verdict, Verdict::Denied, "{destination}");
    assert!(!answer.fixes.is_empty());
    let open = closed.fixed(&answer);
    for protocol in ["UDP", "TCP"] {
        let again = open.ask("shop/backend-1", &format!("{destination}/{protocol}"));
        assert_eq!(
            again.verdict,
            Verdict::Allowed,
            "{destination}/{protocol}: {:#?}",
            answer.fixes
        );
    }
    let other = open.ask("shop/backend-1", "kube-system/dns:9153");
    assert_eq!(
        other.verdict,
        Verdict::Denied,
        "only lookups are to be opened"
    );
    open
}

#[test]
fn the_printed_rule_opens_lookups_to_service_pod_and_address() {
    let closed = shop().rule("shop/deny", DENY);
    for destination in [
        "kube-system/svc/kube-dns:53",
        "10.96.0.53:53",
        "kube-system/dns:5353",
        "10.1.0.9:5353",
        "[fd01::9]:5353",
    ] {
        let open = fixed(&closed, destination);
        // The rule is for all pods of the namespace, and by label: both families, and the Service as well.
        let answer = open.ask("shop/database", "kube-system/svc/kube-dns:53/UDP");
        assert_eq!(answer.verdict, Verdict::Allowed, "{destination}");
    }
}

#[test]
fn dns_pods_on_port_53() {
    let closed = shop()
        .rule("shop/deny", DENY)
        .edit_slices(|slice| {
            for port in slice.ports.iter_mut().filter(|port| port.port == 5353) {
                port.port = 53;
            }
        })
        .edit_pod("kube-system/dns", |pod| {
            for port in pod.ports.iter_mut().filter(|port| port.port == 5353) {
                port.port = 53;
            }
        });
    fixed(&closed, "kube-system/svc/kube-dns:53");
    fixed(&closed, "kube-system/dns:53");
}

#[test]
fn node_local_and_host_network_dns_need_an_address() {
    let closed = shop()
        .rule("shop/deny", DENY)
        .node("n1", "192.168.0.1 fd0a::1 169.254.20.10");
    let open = fixed(&closed, "169.254.20.10:53");
    let policy = open
        .0
        .policies
        .values()
        .find(|p| p.name.name == "allow-dns");
    assert_eq!(policy.unwrap().egress.as_ref().unwrap().len(), 1);
    fixed(&closed, "192.168.0.1:53");
    fixed(&shop().rule("shop/deny", DENY), "169.254.20.10:53");

    let host = closed
        .edit_pod("kube-system/dns", |pod| {
            pod.host_network = true;
            pod.ips = vec!["192.168.0.1".parse().unwrap(), "fd0a::1".parse().unwrap()];
        })
        .edit_slices(|slice| {
            for endpoint in &mut slice.endpoints {
                if endpoint.pod.as_ref().unwrap().name == "dns" {
                    let v4 = endpoint.address.is_ipv4();
                    endpoint.address = if v4 { "192.168.0.1" } else { "fd0a::1" }.parse().unwrap();
                }
            }
        });
    let answer = host.ask("shop/backend-1", "kube-system/svc/kube-dns:53/UDP");
    let yaml = &answer.fixes[0].yaml;
    assert!(
        yaml.contains("192.168.0.1/32") && yaml.contains("fd0a::1/128"),
        "{yaml}"
    );
    let again = host
        .fixed(&answer)
        .ask("shop/backend-1", "kube-system/svc/kube-dns:53/TCP");
    assert_eq!(again.verdict, Verdict::Allowed);
}

#[test]
fn isolated_dns_pods_get_a_rule_of_their_own() {
    let closed = shop()
        .rule("shop/deny", DENY)
        .rule("kube-system/deny", DENY);
    let answer = closed.ask("shop/backend-1", "kube-system/svc/kube-dns:53/UDP");
    assert_eq!(answer.fixes.len(), 2, "{:#?}", answer.fixes);
    fixed(&closed, "kube-system/svc/kube-dns:53");
}

#[test]
fn other_denials_point_at_blocked_lookups() {
    let deny = shop().rule("shop/deny", DENY);
    let hint = "name lookups of shop/backend-1 are denied (isolated by shop/deny); for the missing rule: weir explain shop/backend-1 kube-system/svc/kube-dns:53/UDP";
    let answer = deny.ask("shop/backend-1", "shop/database");
    assert!(
        answer.notes.contains(&Note::Warning(hint.to_owned())),
        "{:?}",
        answer.notes
    );

    let answer = deny.ask("shop/backend-1", "kube-system/svc/kube-dns:53/UDP");
    let open = deny.fixed(&answer);
    let answer = open.ask("shop/backend-1", "shop/database");
    assert_eq!(answer.verdict, Verdict::Denied);
    assert!(answer.notes.is_empty(), "{:?}", answer.notes);
}

/// Names of the policies that are printed.
fn names(cluster: &Cluster, source: &str, destination: &str) -> Vec<String> {
    let fixes = cluster.ask(source, destination).fixes.into_iter();
    fixes
        .filter_map(|fix| {
            Some(
                fix.yaml
                    .lines()
                    .find(|it| it.contains(" name:"))?
                    .trim()
                    .to_owned(),
            )
        })
        .collect()
}

#[test]
fn what_is_no_lookup_is_not_taken_for_one() {
    let closed = shop()
        .rule("shop/deny", DENY)
        // Port 53 over TCP alone, and UDP at another port: neither is DNS.
        .service("web/tcp", "10.96.1.1", "app=frontend", "a=53", "7000")
        .slice("web/tcp", true, &["web/frontend"], "a=7000")
        .service("web/udp", "10.96.1.2", "app=frontend", "a=54/UDP", "7001")
        .slice("web/udp", true, &["web/frontend"], "a=7001/UDP");
    for (destination, name) in [
        ("kube-system/dns:5353/UDP", "name: allow-dns"),
        ("10.96.0.53:53/UDP", "name: allow-dns"),
        ("web/frontend:7000", "name: allow-to-frontend-7000"),
        ("web/frontend:7001/UDP", "name: allow-to-frontend-7001"),
        // The port of DNS pods, on a pod that is none.
        ("web/frontend:5353/UDP", "name: allow-to-frontend-5353"),
        ("web/frontend:53/SCTP", "name: allow-to-frontend-53"),
    ] {
        assert_eq!(names(&closed, "shop/backend-1", destination), [name]);
    }
}

#[test]
fn the_clusters_dns_is_known_by_its_label_or_its_namespace() {
    let closed = shop().rule("shop/deny", DENY);
    for (namespace, selector, ports, known) in [
        ("kube-system", "k8s-app=kube-dns", "53/UDP", true),
        ("kube-system", "k8s-app=coredns", "53/UDP", true),
        ("openshift-dns", "dns=default", "53/UDP", true),
        ("dns", "k8s-app=kube-dns", "53/UDP", true),
        ("dns", "k8s-app=coredns", "53/UDP", false),
        ("kube-system", "k8s-app=kube-dns", "53/TCP", false),
        ("kube-system", "k8s-app=kube-dns", "54/UDP", false),
    ] {
        let mut cluster = closed.clone();
        cluster.0.services.clear();
        cluster.0.slices.clear();
        let dns = format!("{namespace}/dns");
        let number = ports.replace("53", "5353").replace("54", "5353");
        let cluster = cluster
            .service(&dns, "10.96.0.99", selector, ports, "5353")
            .slice(&dns, true, &["kube-system/dns"], &number);
        let notes = cluster.ask("shop/backend-1", "shop/database").notes;
        let told = format!("weir explain shop/backend-1 {namespace}/svc/dns:53/UDP");
        let found = notes.iter().any(|note| match note {
            Note::Warning(text) => text.ends_with(&told),
            Note::Hint(_) => false,
        });
        assert_eq!(found, known, "{dns} {selector} {ports}: {notes:?}");
    }
}
