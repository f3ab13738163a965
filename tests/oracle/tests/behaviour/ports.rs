//! `ports`: numbers, ranges, protocols and names.

use weir_oracle::{beneath_policy, protocol};

use crate::world::{ALLOW, DENY, GRE, HTTP, PING, Service, WORLD, World, sctp, tcp, udp};

fn ingress_ports(ports: &str) -> World {
    World::with(
        "x",
        &format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{ports: [{ports}]}}]}}"),
    )
}

fn egress_ports(ports: &str) -> World {
    World::with(
        "x",
        &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{ports}]}}]}}"),
    )
}

/// Checks what `world` lets y/a send to x/a.
#[track_caller]
fn check(world: &World, services: &[(Service, bool)]) {
    for &(service, expected) in services {
        world.check(&[("y/a", "x/a", service, expected)]);
    }
}

#[test]
fn a_protocol_that_is_not_named_is_tcp() {
    check(
        &ingress_ports("{port: 80}"),
        &[
            (tcp(80), ALLOW),
            (udp(80), DENY),
            (sctp(80), DENY),
            (tcp(81), DENY),
        ],
    );
}

#[test]
fn a_protocol_without_port_is_all_its_ports() {
    let all_udp = [
        (udp(0), ALLOW),
        (udp(1), ALLOW),
        (udp(65535), ALLOW),
        (tcp(1), DENY),
        (sctp(1), DENY),
        (PING, DENY),
    ];
    check(&ingress_ports("{protocol: UDP}"), &all_udp);
    check(
        &ingress_ports("{}"),
        &[(tcp(1), ALLOW), (tcp(65535), ALLOW), (udp(1), DENY)],
    );
}

#[test]
fn a_range_includes_both_ends() {
    let range = [
        (tcp(7999), DENY),
        (tcp(8000), ALLOW),
        (tcp(8003), ALLOW),
        (tcp(8004), DENY),
        (udp(8001), DENY),
    ];
    check(&ingress_ports("{port: 8000, endPort: 8003}"), &range);
    check(
        &ingress_ports("{port: 80, endPort: 80}"),
        &[(tcp(79), DENY), (tcp(80), ALLOW), (tcp(81), DENY)],
    );
    check(
        &ingress_ports("{port: 1, endPort: 65535}"),
        &[(tcp(0), DENY), (tcp(1), ALLOW), (tcp(65535), ALLOW)],
    );
}

#[test]
fn a_range_that_validation_refuses_matches_nothing() {
    check(
        &ingress_ports("{port: 81, endPort: 80}"),
        &[(tcp(80), DENY), (tcp(81), DENY)],
    );
    check(
        &ingress_ports("{port: http, endPort: 90}"),
        &[(tcp(80), DENY), (tcp(85), DENY)],
    );
    check(
        &ingress_ports("{endPort: 90}"),
        &[(tcp(80), DENY), (tcp(90), DENY)],
    );
}

#[test]
fn sctp_is_never_read_as_tcp_and_isolates_all_the_same() {
    check(
        &ingress_ports("{protocol: SCTP, port: 80}"),
        &[(sctp(80), ALLOW), (tcp(80), DENY), (sctp(81), DENY)],
    );
}

#[test]
fn an_unknown_protocol_matches_nothing() {
    check(
        &ingress_ports("{protocol: ICMP}, {protocol: tcp}, {protocol: ''}"),
        &[(tcp(80), DENY), (PING, DENY)],
    );
}

#[test]
fn many_ports_all_count() {
    let ports: Vec<String> = (1..=100)
        .map(|port| format!("{{port: {}}}", port * 10))
        .collect();
    let world = ingress_ports(&ports.join(", "));
    for port in 1..=100 {
        check(
            &world,
            &[(tcp(port * 10), ALLOW), (tcp(port * 10 + 1), DENY)],
        );
    }
}

#[test]
fn protocols_without_ports_pass_only_rules_without_ports() {
    let everything = "{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}";
    check(
        &ingress_ports(everything),
        &[
            (tcp(9), ALLOW),
            (PING, DENY),
            (GRE, DENY),
            ((protocol::ICMPV6, 0), DENY),
        ],
    );
    let world = World::with(
        "x",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: y}}}]}]}",
    );
    world.check(&[
        ("y/a", "x/a", PING, ALLOW),
        ("y/a", "x/a", GRE, ALLOW),
        ("z/a", "x/a", PING, DENY),
    ]);
}

#[test]
fn neighbour_discovery_and_multicast_listeners_are_beneath_policy_and_ping_is_not() {
    for (message, expected) in [
        (128, false),
        (129, false),
        (1, false),
        (130, true),
        (132, true),
        (133, true),
        (137, true),
        (138, false),
        (143, true),
    ] {
        assert_eq!(
            beneath_policy(protocol::ICMPV6, message),
            expected,
            "ICMPv6 type {message}"
        );
        assert!(
            !beneath_policy(protocol::ICMP, message),
            "ICMP type {message}"
        );
    }
}

/// x/a and x/b as in the world; x/c calls 8080 `http`; x/d calls TCP 53 and UDP 5353 `dns`.
fn add_named(world: &mut World) {
    for (name, last, ports) in [
        (
            "c",
            21,
            "[{name: http, containerPort: 8080, protocol: TCP}]",
        ),
        (
            "d",
            22,
            "[{name: dns, containerPort: 53, protocol: TCP}]}, {name: two, ports: [{name: dns, containerPort: 5353, protocol: UDP}]",
        ),
    ] {
        world.pod(&format!(
            "{{metadata: {{namespace: x, name: {name}, labels: {{app: {name}}}}},
               spec: {{nodeName: node-1, containers: [{{name: main, ports: {ports}}}]}},
               status: {{phase: Running, podIPs: [{{ip: 10.1.1.{last}}}]}}}}"
        ));
    }
}

#[test]
fn a_name_of_an_ingress_port_is_what_the_subject_calls_so() {
    let mut world = ingress_ports("{port: http}");
    add_named(&mut world);
    world.check(&[
        ("y/a", "x/a", tcp(80), ALLOW),
        ("y/a", "x/a", tcp(8080), DENY),
        ("y/a", "x/c", tcp(8080), ALLOW),
        ("y/a", "x/c", tcp(80), DENY),
        ("y/a", "x/a", udp(80), DENY),
        // Without the name there is no match, whatever the source calls so.
        ("y/a", "x/d", tcp(80), DENY),
        (WORLD, "x/a", tcp(80), ALLOW),
    ]);
}

#[test]
fn a_name_of_an_egress_port_is_what_each_destination_pod_calls_so() {
    let mut world = egress_ports("{port: http}");
    add_named(&mut world);
    world.check(&[
        ("x/b", "x/a", tcp(80), ALLOW),
        ("x/b", "x/a", tcp(8080), DENY),
        ("x/a", "x/c", tcp(8080), ALLOW),
        ("x/a", "x/c", tcp(80), DENY),
        ("x/a", "x/d", tcp(80), DENY),
        ("x/a", "y/a", tcp(80), ALLOW),
        ("x/a#6", "y/a#6", tcp(80), ALLOW),
        // Only pods have port names, also when `to` is empty.
        ("x/a", WORLD, tcp(80), DENY),
        ("x/a", "node-2", tcp(80), DENY),
    ]);
}

#[test]
fn a_name_counts_per_protocol() {
    let mut world = ingress_ports("{port: dns, protocol: UDP}");
    add_named(&mut world);
    world.check(&[
        ("y/a", "x/d", udp(5353), ALLOW),
        ("y/a", "x/d", udp(53), DENY),
        ("y/a", "x/d", tcp(53), DENY),
        ("y/a", "x/d", tcp(5353), DENY),
    ]);
    let mut world = ingress_ports("{port: dns}");
    add_named(&mut world);
    world.check(&[
        ("y/a", "x/d", tcp(53), ALLOW),
        ("y/a", "x/d", udp(5353), DENY),
    ]);
}

#[test]
fn of_containers_that_share_a_name_the_first_counts() {
    let container = |name: &str, ports: &str| format!("{{name: {name}, ports: [{ports}]}}");
    let http = |port| format!("{{name: http, containerPort: {port}}}");
    let (one, other) = (container("one", &http(81)), container("other", &http(82)));
    let side = format!(
        "{{name: side, restartPolicy: Always, ports: [{}]}}",
        http(83)
    );
    for (containers, expected) in [
        (format!("{one}, {other}"), 81),
        (format!("{other}, {one}"), 82),
        (container("silent", ""), 83),
    ] {
        for mut world in [ingress_ports("{port: http}"), egress_ports("{port: http}")] {
            world.pod(&format!(
                "{{metadata: {{namespace: x, name: s}},
                   spec: {{nodeName: node-1, containers: [{containers}], initContainers: [{side}]}},
                   status: {{podIPs: [{{ip: 10.1.1.30}}]}}}}"
            ));
            for port in [81, 82, 83] {
                world.check(&[("x/b", "10.1.1.30", tcp(port), port == expected)]);
            }
        }
    }
}

#[test]
fn a_sidecars_port_name_counts_and_a_finished_init_containers_does_not() {
    for (restart_policy, expected) in [
        ("restartPolicy: Always,", ALLOW),
        ("", DENY),
        ("restartPolicy: OnFailure,", DENY),
    ] {
        let mut world = ingress_ports("{port: metrics}");
        world.pod(&format!(
            "{{metadata: {{namespace: x, name: s}},
               spec: {{nodeName: node-1, containers: [{{name: main}}],
                       initContainers: [{{name: side, {restart_policy} ports: [{{name: metrics, containerPort: 9090}}]}}]}},
               status: {{podIPs: [{{ip: 10.1.1.30}}]}}}}"
        ));
        world.check(&[
            ("y/a", "x/s", tcp(9090), expected),
            ("y/a", "x/s", tcp(9091), DENY),
        ]);
    }
}

#[test]
fn a_name_in_a_rule_with_a_block_is_resolved_on_the_pods_in_the_block() {
    let world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Egress],
          egress: [{to: [{ipBlock: {cidr: 10.1.2.0/24}}, {ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: http}]}]}",
    );
    world.check(&[
        ("x/a", "y/a", HTTP, ALLOW),
        ("x/a", "y/a", tcp(81), DENY),
        ("x/a", "z/a", HTTP, DENY),
        ("x/a", WORLD, HTTP, DENY),
    ]);
}

#[test]
fn a_number_in_quotes_is_a_name() {
    check(&ingress_ports("{port: '80'}"), &[(tcp(80), DENY)]);
}

#[test]
fn the_port_that_matters_is_the_pods_not_the_services() {
    // A Service 80 -> 8080 is seen here with the destination already translated.
    let world = ingress_ports("{port: 80}");
    check(&world, &[(tcp(8080), DENY)]);
    check(&ingress_ports("{port: 8080}"), &[(tcp(8080), ALLOW)]);
}

#[test]
fn dns_over_udp_does_not_open_dns_over_tcp() {
    let world = egress_ports("{port: 53, protocol: UDP}");
    world.check(&[
        ("x/a", "y/a", udp(53), ALLOW),
        ("x/a", "y/a", tcp(53), DENY),
    ]);
}
