//! ClusterNetworkPolicies above and below NetworkPolicies.

use weir_oracle::{ClusterAction, Decider, DirectionVerdict, Exemption, protocol};

use crate::world::{ALLOW, DENY, HTTP, PING, WORLD, WORLD6, World, plain_pod, sctp, tcp, udp};

const ALL: &str = "{namespaces: {}}";
const ISOLATED: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
const OPEN: &str = "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}";

/// A policy of this tier and priority for namespace x with these rules.
fn of_x(tier: &str, priority: u16, rules: &str) -> String {
    format!(
        "{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{matchLabels: {{team: x}}}}}}, {rules}}}"
    )
}

/// A rule that does this with what comes from or goes to any pod.
fn any_pod(action: &str) -> String {
    format!(
        "ingress: [{{action: {action}, from: [{ALL}]}}], egress: [{{action: {action}, to: [{ALL}]}}]"
    )
}

#[test]
fn the_admin_tier_overrules_or_leaves_it_to_network_policies() {
    for (action, networks, expected) in [
        ("Deny", OPEN, DENY),
        ("Pass", OPEN, ALLOW),
        ("Pass", ISOLATED, DENY),
        ("Accept", ISOLATED, ALLOW),
    ] {
        let mut world = World::with("x", networks);
        world.cluster_policy("above", &of_x("Admin", 1, &any_pod(action)));
        for pods in [("x/a", "y/a"), ("y/a", "x/a"), ("y/a#6", "x/a#6")] {
            world.check(&[
                (pods.0, pods.1, HTTP, expected),
                (pods.0, pods.1, PING, expected),
            ]);
        }
        world.check(&[("y/a", "z/a", HTTP, ALLOW)]);
    }
}

#[test]
fn the_baseline_holds_in_each_direction_that_no_network_policy_isolates() {
    let mut world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
    );
    world.cluster_policy("below", &of_x("Baseline", 1, &any_pod("Deny")));
    world.check(&[("y/a", "x/a", HTTP, ALLOW), ("x/a", "y/a", HTTP, DENY)]);
    // With a policy for egress, too, the baseline has nothing to say any more.
    world.policy(
        "x",
        "out",
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
    );
    world.check(&[("x/a", "y/a", HTTP, ALLOW), ("x/a", "y/a", tcp(81), DENY)]);
}

#[test]
fn what_no_tier_decides_is_allowed() {
    let mut world = World::new();
    world.check(&[("x/a", "y/a", HTTP, ALLOW)]);
    let rules = format!("egress: [{{action: Pass, to: [{ALL}]}}, {{action: Deny, to: [{ALL}]}}]");
    world.cluster_policy("below", &of_x("Baseline", 1, &rules));
    // A rule of another direction isolates nobody in this one.
    world.check(&[("x/a", "y/a", HTTP, ALLOW), ("y/a", "x/a", HTTP, ALLOW)]);
    world.cluster_policy("lower", &of_x("Baseline", 2, &any_pod("Deny")));
    world.check(&[("x/a", "y/a", HTTP, ALLOW), ("y/a", "x/a", HTTP, DENY)]);
}

#[test]
fn an_accepted_egress_needs_the_other_ends_ingress() {
    let mut world = World::with("y", "{podSelector: {}, policyTypes: [Ingress]}");
    let rules = format!("egress: [{{action: Accept, to: [{ALL}]}}]");
    world.cluster_policy("above", &of_x("Admin", 0, &rules));
    world.check(&[("x/a", "y/a", HTTP, DENY), ("x/a", "z/a", HTTP, ALLOW)]);
}

#[test]
fn networks_are_addresses_whoever_has_them() {
    let mut world = World::new();
    let rules = "egress: [{action: Deny, to: [{networks: ['0.0.0.0/0']}]}]";
    world.cluster_policy("above", &of_x("Admin", 0, rules));
    world.check(&[
        ("x/a", "y/a", HTTP, DENY),
        ("x/a", "node-1", HTTP, DENY),
        ("x/a", WORLD, PING, DENY),
        ("x/a#6", "y/a#6", HTTP, ALLOW),
        ("x/a#6", WORLD6, HTTP, ALLOW),
        // Nothing is said about connections to the pods.
        ("y/a", "x/a", HTTP, ALLOW),
    ]);
    let judgement = world.judge_from_host("node-1", "node-1", "x/a", tcp(10_250));
    assert!(judgement.allowed());

    let mut world = World::new();
    let rules = "egress: [{action: Deny, to: [{networks: ['10.1.2.77/24', 'fd00:10:2::/64']}]}]";
    world.cluster_policy("above", &of_x("Admin", 0, rules));
    world.check(&[
        ("x/a", "y/b", HTTP, DENY),
        ("x/a", "z/b", HTTP, ALLOW),
        ("x/a#6", "y/b#6", HTTP, DENY),
    ]);
}

#[test]
fn what_nobody_can_read_fails_closed() {
    let unknown_peer = "{future: {}}";
    let names = "{domainNames: ['*.example.com']}";
    for peer in [unknown_peer, names] {
        for (action, expected) in [("Accept", ALLOW), ("Deny", DENY), ("Pass", DENY)] {
            // Without its first rule, egress to namespace y is denied and the rest is not.
            let rules = format!(
                "egress: [{{action: {action}, to: [{peer}, {{namespaces: {{matchLabels: {{team: 'y'}}}}}}]}},
                          {{action: Deny, to: [{{namespaces: {{matchLabels: {{team: 'y'}}}}}}]}}]"
            );
            let mut world = World::new();
            world.cluster_policy("above", &of_x("Admin", 0, &rules));
            world.check(&[
                ("x/a", "y/a", HTTP, DENY),
                ("x/a", "z/a", HTTP, expected),
                ("x/a", WORLD, PING, expected),
            ]);
        }
    }
    for (action, expected) in [("Accept", ALLOW), ("Deny", DENY), ("Pass", DENY)] {
        let rules = format!(
            "ingress: [{{action: {action}, from: [{ALL}], protocols: [{{tcp: {{destinationPort: {{number: 80}}, flags: SYN}}}}]}},
                       {{action: Deny, from: [{ALL}], protocols: [{{tcp: {{destinationPort: {{number: 80}}}}}}]}}]"
        );
        let mut world = World::new();
        world.cluster_policy("above", &of_x("Admin", 0, &rules));
        world.check(&[
            ("y/a", "x/a", HTTP, DENY),
            ("y/a", "x/a", tcp(81), expected),
        ]);
    }
}

#[test]
fn a_node_is_no_namespace_and_a_host_network_pod_no_pod() {
    let mut world = World::new();
    world.pod(
        "{metadata: {namespace: x, name: host, labels: {app: a}}, spec: {nodeName: node-2, hostNetwork: true, containers: []},
          status: {phase: Running, podIPs: [{ip: 192.168.1.2}, {ip: 'fd00:1::2'}]}}",
    );
    world.cluster_policy(
        "above",
        &format!(
            "{{tier: Admin, priority: 0, subject: {ALL}, {}}}",
            any_pod("Deny")
        ),
    );
    world.check(&[
        ("x/a", "y/a", HTTP, DENY),
        // From and to another node, where a pod on the host network is.
        ("node-2", "x/a", HTTP, ALLOW),
        ("x/a", "node-2", HTTP, ALLOW),
        (WORLD, "x/a", HTTP, ALLOW),
    ]);
    assert!(
        world
            .judge_from_host("node-1", "node-1", "x/a", HTTP)
            .allowed()
    );
    // It is subject to nothing.
    let judgement = world.judge("x/host", "y/a", HTTP);
    assert_eq!(judgement.egress, None);
    assert!(judgement.allowed());
}

#[test]
fn a_pods_own_node_and_the_pod_itself_are_exempt_from_every_tier() {
    let mut world = World::new();
    world.cluster_policy("above", &of_x("Admin", 0, &any_pod("Deny")));
    world.check(&[("x/a", "x/a", HTTP, ALLOW), ("x/a", "x/b", HTTP, DENY)]);
    // Unreadable: denies whatever comes, but for the own node.
    world.cluster_policy(
        "future",
        &of_x(
            "Admin",
            1,
            "ingress: [{action: Deny, from: [{future: {}}]}]",
        ),
    );
    let judgement = world.judge_from_host("node-1", "node-1", "x/a", HTTP);
    assert_eq!(
        judgement.ingress.and_then(|verdict| verdict.exempt),
        Some(Exemption::FromOwnNode)
    );
    world.check(&[("node-2", "x/a", HTTP, DENY)]);
}

#[test]
fn nodes_are_selected_by_label_at_all_their_addresses() {
    let mut world = World::new();
    world.node(
        "{metadata: {name: node-3, labels: {role: db}}, status: {addresses: [
            {type: Hostname, address: node-3}, {type: InternalIP, address: 192.168.1.3},
            {type: ExternalIP, address: 203.0.113.3}, {type: InternalIP, address: 'fd00:1::3'}]}}",
    );
    let rules = "egress: [{action: Deny, to: [{nodes: {matchLabels: {role: db}}}]}]";
    world.cluster_policy("above", &of_x("Admin", 0, rules));
    world.check(&[
        ("x/a", "node-3", HTTP, DENY),
        ("x/a", "203.0.113.3", HTTP, DENY),
        ("x/a#6", "node-3#6", PING, DENY),
        ("x/a", "node-2", HTTP, ALLOW),
        ("y/a", "node-3", HTTP, ALLOW),
    ]);
    let mut world = World::new();
    world.cluster_policy(
        "above",
        &of_x("Admin", 0, "egress: [{action: Deny, to: [{nodes: {}}]}]"),
    );
    world.check(&[
        ("x/a", "node-1", HTTP, DENY),
        ("x/a", "y/a", HTTP, ALLOW),
        ("x/a", WORLD, HTTP, ALLOW),
    ]);
}

#[test]
fn of_the_rules_of_a_tier_the_first_that_matches_counts() {
    let wide_first = format!(
        "egress: [{{action: Deny, to: [{ALL}]}},
                  {{action: Accept, to: [{{pods: {{namespaceSelector: {{matchLabels: {{team: 'y'}}}}, podSelector: {{matchLabels: {{app: a}}}}}}}}]}}]"
    );
    let mut world = World::new();
    world.cluster_policy("above", &of_x("Admin", 5, &wide_first));
    world.check(&[("x/a", "y/a", HTTP, DENY)]);
    // The number decides between policies, not the name or the order of creation.
    world.cluster_policy(
        "zz",
        &of_x(
            "Admin",
            4,
            &format!("egress: [{{action: Accept, to: [{ALL}]}}]"),
        ),
    );
    world.check(&[("x/a", "y/a", HTTP, ALLOW)]);
    world.cluster_policy(
        "aa",
        &of_x(
            "Admin",
            40,
            &format!("egress: [{{action: Deny, to: [{ALL}]}}]"),
        ),
    );
    world.check(&[("x/a", "y/a", HTTP, ALLOW)]);
}

#[test]
fn of_equal_priorities_the_name_that_sorts_first_comes_first() {
    let deny = of_x("Admin", 7, &any_pod("Deny"));
    let accept = of_x("Admin", 7, &any_pod("Accept"));
    for (first, second, expected) in [(&deny, &accept, DENY), (&accept, &deny, ALLOW)] {
        let mut world = World::new();
        world.cluster_policy("b", second);
        world.cluster_policy("a", first);
        world.check(&[("x/a", "y/a", HTTP, expected)]);
    }
}

#[test]
fn a_pass_leaves_out_the_rest_of_its_tier_only() {
    let mut world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
    );
    world.cluster_policy("pass", &of_x("Admin", 1, &any_pod("Pass")));
    world.cluster_policy("deny", &of_x("Admin", 2, &any_pod("Deny")));
    world.cluster_policy("below", &of_x("Baseline", 1, &any_pod("Deny")));
    world.check(&[
        ("x/a", "y/a", HTTP, ALLOW),
        ("x/a", "y/a", tcp(81), DENY),
        ("y/a", "x/a", HTTP, DENY),
    ]);
    let verdict = world.judge("y/a", "x/a", HTTP).ingress.expect("a verdict");
    let DirectionVerdict { admin, .. } = &verdict;
    assert_eq!(
        admin.as_ref().map(|rule| rule.action),
        Some(ClusterAction::Pass)
    );
    let Decider::Rule(rule) = verdict.decider() else {
        panic!("{verdict:?}");
    };
    assert_eq!((rule.policy.as_str(), rule.rule), ("below", 0));
}

#[test]
fn protocols_and_ports() {
    let denied = |protocols: &str| {
        let mut world = World::new();
        world.pod(
            "{metadata: {namespace: y, name: served}, spec: {nodeName: node-2, containers: [{name: c, ports: [
                {name: dns, containerPort: 53, protocol: UDP}, {name: dns, containerPort: 5353}, {name: http, containerPort: 8080}]}]},
              status: {phase: Running, podIPs: [{ip: 10.1.2.9}]}}",
        );
        let rules = format!("egress: [{{action: Deny, to: [{ALL}], protocols: {protocols}}}]");
        world.cluster_policy("above", &of_x("Admin", 0, &rules));
        move |service| !world.judge("x/a", "y/served", service).allowed()
    };
    let none = denied("[]");
    assert!(none(HTTP) && none(PING) && none((protocol::GRE, 0)));
    let one = denied("[{udp: {destinationPort: {number: 53}}}]");
    assert!(one(udp(53)) && !one(tcp(53)) && !one(udp(54)) && !one(PING));
    let range = denied("[{sctp: {destinationPort: {range: {start: 80, end: 90}}}}]");
    let edges = [79, 80, 90, 91].map(|port| range(sctp(port)));
    assert_eq!(edges, [false, true, true, false]);
    let several =
        denied("[{tcp: {destinationPort: {number: 1}}}, {tcp: {destinationPort: {number: 3}}}]");
    assert!(several(tcp(1)) && several(tcp(3)) && !several(tcp(2)));
    // A name is that of the pod at the destination, in every protocol that has it.
    let named = denied("[{destinationNamedPort: dns}]");
    assert!(named(udp(53)) && named(tcp(5353)) && !named(tcp(53)) && !named(udp(5353)));
    let named = denied("[{destinationNamedPort: http}]");
    assert!(named(tcp(8080)) && !named(tcp(80)) && !named(udp(8080)));
}

#[test]
fn subjects_and_peers_are_pods_by_namespace_and_label() {
    let mut world = World::new();
    world.pod(&plain_pod("x", "c", "{app: c}", 1, 1, 9));
    world.cluster_policy(
        "above",
        "{tier: Admin, priority: 0,
          subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchExpressions: [{key: app, operator: In, values: [a, c]}]}}},
          ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: b}}}}]}]}",
    );
    world.check(&[
        ("z/b", "x/a", HTTP, DENY),
        ("z/b", "x/c", HTTP, DENY),
        ("y/b", "y/a", HTTP, DENY),
        ("z/b", "z/a", HTTP, ALLOW),
        ("z/a", "x/a", HTTP, ALLOW),
        ("z/b", "x/b", HTTP, ALLOW),
    ]);
}
