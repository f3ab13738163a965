//! The classic traps of NetworkPolicy.

use crate::explain::{Note, SideOutcome, Verdict};

use super::cluster::{Cluster, shop};

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

/// The first thing that the nearest rule misses on the denied side.
fn miss(cluster: &Cluster, source: &str, destination: &str) -> String {
    let answer = cluster.ask(source, destination);
    assert_eq!(answer.verdict, Verdict::Denied, "{source} -> {destination}");
    let flow = &answer.flows[0];
    let side = if flow.egress.outcome == SideOutcome::Denied {
        &flow.egress
    } else {
        &flow.ingress
    };
    side.nearest[0].misses.join("; ")
}

#[test]
fn without_policies_everything_is_allowed() {
    let answer = shop().ask("web/frontend", "shop/database");
    assert_eq!(answer.verdict, Verdict::Allowed);
    assert_eq!(answer.flows.len(), 2, "one per family");
    assert_eq!(answer.flows[0].egress.outcome, SideOutcome::NotIsolated);
    assert!(answer.fixes.is_empty() && answer.notes.is_empty());
}

#[test]
fn a_denial_names_the_isolating_policies() {
    let answer = shop()
        .rule("shop/deny", DENY)
        .rule(
            "shop/dns",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}]}]}",
        )
        .rule("web/other", DENY)
        .rule(
            "shop/else",
            "{podSelector: {matchLabels: {app: database}}, policyTypes: [Egress]}",
        )
        .ask("shop/backend-1", "shop/database");
    assert_eq!(answer.verdict, Verdict::Denied);
    let names = |side: &crate::explain::Side| -> Vec<String> {
        let policies = side.isolated_by.iter();
        policies
            .map(|i| format!("{} {}", i.policy, i.rules))
            .collect()
    };
    assert_eq!(
        names(&answer.flows[0].egress),
        ["shop/deny 0", "shop/dns 1"]
    );
    assert_eq!(names(&answer.flows[0].ingress), ["shop/deny 0"]);
}

#[test]
fn an_allowance_names_policy_rule_peer_and_port() {
    let answer = shop()
        .rule("shop/deny", DENY)
        .rule("shop/in", "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 1}]}, {from: [{ipBlock: {cidr: 10.9.0.0/16}}, {podSelector: {matchLabels: {app: backend}}}], ports: [{port: 5432}]}]}")
        .rule("shop/out", "{podSelector: {}, policyTypes: [Egress], egress: [{}]}")
        .ask("shop/backend-1", "shop/database");
    assert_eq!(answer.verdict, Verdict::Allowed);
    let rule = &answer.flows[0].ingress.allowed_by[0];
    assert_eq!(
        (rule.policy.to_string().as_str(), rule.index),
        ("shop/in", 1)
    );
    assert_eq!(rule.peer, "pods app=backend in the policy's namespace");
    assert_eq!(rule.port, "TCP 5432");
    let rule = &answer.flows[0].egress.allowed_by[0];
    assert_eq!(
        (rule.peer.as_str(), rule.port.as_str()),
        ("every peer", "every port")
    );
}

#[test]
fn near_misses_name_what_is_missing() {
    for (spec, missing) in [
        (
            "{from: [{namespaceSelector: {matchLabels: {team: front}}}]}",
            "label team=web on namespace web does not match team=front",
        ),
        (
            "{from: [{namespaceSelector: {matchLabels: {zone: a}}}], ports: [{port: 5432}]}",
            "label zone=a is missing on namespace web",
        ),
        (
            "{from: [{podSelector: {matchLabels: {app: frontend}}}]}",
            "pod web/frontend is in namespace web; without a namespaceSelector the rule means namespace shop only",
        ),
        (
            "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}",
            "label app=frontend on pod web/frontend does not match app=web (its namespaceSelector matches, its podSelector does not; in one element both must, in two elements either would do)",
        ),
        (
            "{from: [{namespaceSelector: {matchLabels: {team: x}}, podSelector: {}}]}",
            "label team=web on namespace web does not match team=x (its podSelector matches, its namespaceSelector does not; in one element both must, in two elements either would do)",
        ),
        (
            "{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [web]}]}}]}",
            "label team=web on namespace web does not match team!=web",
        ),
        (
            "{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}]}",
            "label team=web on namespace web does not match !team",
        ),
        (
            "{from: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.0.0/24]}}]}",
            "10.1.0.2 is in 10.1.0.0/16, but in its except 10.1.0.0/24 too",
        ),
        (
            "{from: [{ipBlock: {cidr: 10.7.0.0/16}}]}",
            "10.1.0.2 is not in 10.7.0.0/16",
        ),
        (
            "{ports: [{port: 8080, endPort: 8090}]}",
            "port 5432 is not 8080-8090",
        ),
        (
            "{ports: [{port: 80}, {port: 5433}, {port: 9999}]}",
            "port 5432 is not 5433",
        ),
        (
            "{ports: [{port: 5432, protocol: UDP}]}",
            "it is UDP there, the connection is TCP",
        ),
        // The protocol is rather meant than the number.
        (
            "{ports: [{port: 5432, protocol: UDP}, {port: 9999}]}",
            "port 5432 is not 9999",
        ),
        (
            "{ports: [{port: web}]}",
            "pod shop/database has no port named \"web\"",
        ),
        (
            "{ports: [{port: sql, protocol: UDP}]}",
            "it is UDP there, the connection is TCP; \"sql\" is a TCP port on pod shop/database, the rule means UDP",
        ),
    ] {
        let policy = format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{spec}]}}");
        let cluster = shop().rule("shop/p", &policy);
        assert_eq!(
            miss(&cluster, "web/frontend", "shop/database"),
            missing,
            "{spec}"
        );
    }
}

#[test]
fn near_misses_of_peers_that_are_near() {
    let from = |spec: &str| {
        let from = format!("{{from: [{spec}]}}");
        let policy = format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{from}]}}");
        shop().rule("shop/p", &policy)
    };
    // In the policy's own namespace.
    let cluster = from("{podSelector: {matchLabels: {app: frontend}}}");
    assert_eq!(
        miss(&cluster, "shop/backend-1", "shop/database"),
        "label app=backend on pod shop/backend-1 does not match app=frontend"
    );
    // A node.
    let cluster = from("{namespaceSelector: {}}");
    assert_eq!(
        miss(&cluster, "192.168.0.1", "shop/database"),
        "192.168.0.1 is a node's address: no selector names it, only an ipBlock"
    );
}

#[test]
fn the_rule_that_misses_least_comes_first() {
    let answer = shop()
        .rule("shop/a", "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: 1}]}, {from: [{namespaceSelector: {}}], ports: [{port: 5433}]}]}")
        .rule("shop/b", "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 1.0.0.0/8}}], ports: [{port: 2, protocol: UDP}]}]}")
        .ask("web/frontend", "shop/database");
    let nearest = &answer.flows[0].ingress.nearest;
    let order: Vec<_> = nearest
        .iter()
        .map(|n| (n.policy.name.as_str(), n.index))
        .collect();
    assert_eq!(order, [("a", 1), ("a", 0), ("b", 0)]);
    assert!(nearest[0].peer_matches && !nearest[0].port_matches);
    assert_eq!(nearest[0].misses, ["port 5432 is not 5433"]);
}

#[test]
fn families_are_judged_apart() {
    let answer = shop()
        .rule("shop/v4", "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}")
        .ask("web/frontend", "shop/database");
    assert_eq!(answer.verdict, Verdict::Partly);
    assert_eq!(answer.flows[0].verdict, Verdict::Allowed);
    assert_eq!(answer.flows[1].verdict, Verdict::Denied);
    assert_eq!(
        answer.flows[1].ingress.nearest[0].misses,
        ["fd01::2 is an IPv6 address, 0.0.0.0/0 holds IPv4 only"]
    );
}

#[test]
fn both_sides_must_allow() {
    let allow_out = "{podSelector: {}, policyTypes: [Egress], egress: [{}]}";
    let answer = shop()
        .rule("web/out", allow_out)
        .rule("shop/deny", DENY)
        .ask("web/frontend", "shop/database");
    assert_eq!(answer.flows[0].egress.outcome, SideOutcome::Allowed);
    assert_eq!(answer.flows[0].ingress.outcome, SideOutcome::Denied);
    assert_eq!(answer.verdict, Verdict::Denied);
}

#[test]
fn the_own_node_reaches_its_pods_and_no_other_node_does() {
    let cluster = shop()
        .rule("shop/deny", DENY)
        .pod("kube-system/agent", "n1", "192.168.0.1", "app=agent", "")
        .host_network("kube-system/agent");
    let outcome = |source, destination| {
        let answer = cluster.ask(source, destination);
        let flow = &answer.flows[0];
        (flow.egress.outcome, flow.ingress.outcome)
    };
    use SideOutcome::{Denied, NotSelectable, OwnNode};
    for source in ["192.168.0.1", "[fd0a::1]", "kube-system/agent"] {
        assert_eq!(outcome(source, "shop/backend-1"), (NotSelectable, OwnNode));
        assert_eq!(outcome(source, "shop/backend-2"), (NotSelectable, Denied));
    }
    // The exemption is for ingress alone: a pod may not reach its node for that.
    assert_eq!(
        outcome("shop/backend-1", "192.168.0.1:10250"),
        (Denied, NotSelectable)
    );
}

#[test]
fn a_pod_reaches_itself() {
    let cluster = shop().rule("shop/deny", DENY);
    let answer = cluster.ask("shop/backend-1", "shop/backend-1");
    assert_eq!(answer.verdict, Verdict::Allowed);
    assert_eq!(answer.flows[0].ingress.outcome, SideOutcome::Itself);
    // Through the Service its own endpoint works, the other one does not.
    let answer = cluster.ask("shop/backend-1", "shop/svc/backend");
    assert_eq!(answer.verdict, Verdict::Partly);
}

#[test]
fn host_network_pods_are_neither_subject_nor_named_by_selectors() {
    let cluster = shop()
        .pod("shop/host", "n1", "192.168.0.1", "app=backend", "80")
        .host_network("shop/host")
        .rule("shop/in", "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}");
    let answer = cluster.ask("shop/host", "shop/database");
    assert_eq!(answer.flows[0].egress.outcome, SideOutcome::NotSelectable);
    assert_eq!(
        miss(&cluster, "shop/host", "shop/database"),
        "shop/host uses the host network: no selector names it, only an ipBlock with its node's address 192.168.0.1"
    );
    let warning = "policy shop/in selects pod shop/host, which uses the host network: policies never apply to it";
    assert!(
        answer.notes.contains(&Note::Warning(warning.to_owned())),
        "{:?}",
        answer.notes
    );
}

#[test]
fn addresses_outside_are_matched_by_blocks_only() {
    let cluster = shop().rule("shop/in", "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}");
    assert_eq!(
        cluster.ask("203.0.113.9", "shop/database").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        miss(&cluster, "198.51.100.1", "shop/database"),
        "198.51.100.1 is no pod's address: no selector names it, only an ipBlock"
    );
    let answer = cluster.ask("198.51.100.1", "203.0.113.9:80");
    assert_eq!(answer.verdict, Verdict::Allowed);
    assert_eq!(answer.notes.len(), 1, "{:?}", answer.notes);
}

#[test]
fn blocks_match_pod_addresses_too() {
    let cluster = shop().rule("shop/in", "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.1.0.2/32}}, {ipBlock: {cidr: fd01::/64}}]}]}");
    assert_eq!(
        cluster.ask("web/frontend", "shop/database").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        cluster.ask("10.1.0.2", "shop/database").verdict,
        Verdict::Allowed
    );
}

#[test]
fn named_ports_are_the_destinations() {
    let egress = |name: &str| {
        format!(
            "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{{port: {name}}}]}}]}}"
        )
    };
    let cluster = shop().rule("web/out", &egress("sql"));
    assert_eq!(
        cluster.ask("web/frontend", "shop/database:5432").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        miss(&cluster, "web/frontend", "shop/database:80"),
        "\"sql\" is port 5432 on pod shop/database, the connection goes to 80"
    );
    assert_eq!(
        miss(&cluster, "web/frontend", "203.0.113.9:5432"),
        "port name \"sql\" means ports of pods, and 203.0.113.9 is none"
    );
    let cluster = shop().rule("shop/out", &egress("http"));
    assert_eq!(
        miss(&cluster, "shop/backend-1", "shop/database"),
        "pod shop/database has no port named \"http\" (pod shop/backend-1 has, but the name means the destination's port)"
    );
}

#[test]
fn of_ports_that_share_a_name_the_first_of_a_protocol_counts() {
    let ingress = |protocol: &str| {
        format!(
            "{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{ports: [{{port: dns, protocol: {protocol}}}]}}]}}"
        )
    };
    let cluster = shop().pod(
        "shop/dns",
        "n1",
        "10.1.0.8",
        "app=dns",
        "dns=53/UDP dns=5353/TCP dns=5354/TCP",
    );
    for (protocol, number, other) in [("UDP", 53, 5353), ("TCP", 5353, 53)] {
        let cluster = cluster.clone().rule("shop/named", &ingress(protocol));
        let to = |port| format!("10.1.0.8:{port}/{protocol}");
        let verdict = |port| cluster.ask("web/frontend", &to(port)).verdict;
        assert_eq!(verdict(number), Verdict::Allowed);
        for port in [other, 5354] {
            assert_eq!(
                miss(&cluster, "web/frontend", &to(port)),
                format!("\"dns\" is port {number} on pod shop/dns, the connection goes to {port}")
            );
        }
    }
}

#[test]
fn a_reused_address_belongs_to_the_live_pod_that_is_newest() {
    let cluster = shop()
        .pod("shop/job", "n1", "10.1.0.2", "app=job", "")
        .edit_pod("shop/job", |pod| pod.terminal = true)
        .pod("shop/newer", "n2", "10.2.0.4", "app=newer", "80")
        .edit_pod("shop/newer", |pod| pod.created = 5);
    let answer = cluster.ask("10.1.0.2", "10.2.0.4:80");
    assert_eq!(
        answer.flows[0].source.pod.as_ref().unwrap().name,
        "frontend"
    );
    assert_eq!(
        answer.flows[0].destination.pod.as_ref().unwrap().name,
        "newer"
    );
    let error = cluster.fail("shop/database", "web/frontend:80");
    assert!(
        error.contains("belongs to the newer pod shop/newer"),
        "{error}"
    );
}

#[test]
fn applying_the_fix_allows_the_connection() {
    let closed = shop().rule("shop/deny", DENY).rule("web/deny", DENY);
    for (source, destination) in [
        ("web/frontend", "shop/database"),
        ("web/frontend", "shop/svc/backend"),
        ("shop/backend-1", "shop/svc/backend"),
        ("shop/backend-1", "shop/database:5432/UDP"),
        ("shop/svc/backend", "shop/database"),
        ("shop/backend-1", "203.0.113.9:443"),
        ("shop/backend-1", "[2001:db8::9]:443"),
        ("shop/backend-1", "192.168.0.2:10250"),
        ("192.168.0.2", "shop/backend-1"),
        ("203.0.113.9", "shop/backend-1"),
    ] {
        let answer = closed.ask(source, destination);
        assert_ne!(answer.verdict, Verdict::Allowed);
        let open = closed.fixed(&answer);
        let again = open.ask(source, destination);
        assert_eq!(
            again.verdict,
            Verdict::Allowed,
            "{source} -> {destination}: {:#?}",
            answer.fixes
        );
        assert!(again.fixes.is_empty());
        // And nothing else.
        assert_eq!(
            open.ask("web/frontend", "shop/database:1").verdict,
            Verdict::Denied
        );
    }
}

#[test]
fn a_fix_isolates_no_further_pod_and_replaces_no_policy() {
    // Only copy 1 of the backend is isolated: a fix for app=backend would cut copy 2 off.
    let cluster = shop()
        .edit_pod("shop/backend-1", |pod| {
            pod.labels.insert("copy".to_owned(), "1".to_owned());
        })
        .rule(
            "shop/allow-to-database-5432",
            "{podSelector: {matchLabels: {copy: \"1\"}}, policyTypes: [Egress]}",
        );
    let answer = cluster.ask("shop/backend-1", "shop/database");
    let open = cluster.fixed(&answer);
    assert_eq!(
        open.ask("shop/backend-1", "shop/database").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        open.ask("shop/backend-2", "203.0.113.9:1").verdict,
        Verdict::Allowed
    );
    assert_eq!(open.0.policies.len(), 2);
}
