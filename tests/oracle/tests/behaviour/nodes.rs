//! Nodes, host-network pods and the exemption of the pod's own node.

use weir_oracle::{Exemption, judge, judge_cluster_wide};

use crate::world::{ALLOW, DENY, HTTP, PING, World, tcp};

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

#[test]
fn a_probe_from_the_pods_own_node_is_allowed_in_both_families_and_from_any_address_of_the_host() {
    let world = World::with("x", DENY_ALL);
    // The gateway of the pod network is an address of the host that no Node object shows.
    for (from, to) in [
        ("node-1", "x/a"),
        ("node-1#6", "x/a#6"),
        ("10.1.1.254", "x/a"),
        ("169.254.7.127", "x/a"),
    ] {
        for service in [HTTP, tcp(9), PING] {
            let verdict = world
                .judge_from_host("node-1", from, to, service)
                .ingress
                .expect(to);
            assert!(verdict.allowed, "{from} -> {to}");
            assert_eq!(verdict.exempt, Some(Exemption::FromOwnNode));
            assert_eq!(verdict.isolating.len(), 1, "the policies stay visible");
        }
    }
}

#[test]
fn a_forwarded_packet_with_the_nodes_address_is_not_exempt() {
    let world = World::with("x", DENY_ALL);
    world.check(&[
        ("node-1", "x/a", HTTP, DENY),
        ("node-1#6", "x/a#6", HTTP, DENY),
    ]);
}

#[test]
fn another_node_is_not_exempt() {
    let world = World::with("x", DENY_ALL);
    world.check(&[("node-2", "x/a", HTTP, DENY), ("node-1", "x/b", HTTP, DENY)]);
    // Not even where the packet is born: that node does not judge the pod.
    assert_eq!(
        world
            .judge_from_host("node-2", "node-2", "x/a", HTTP)
            .ingress,
        None
    );
    let flow = world.flow("node-2", "x/a", HTTP, "node-2");
    let born = weir_oracle::Flow {
        born_on_node: true,
        ..flow
    };
    assert!(!judge_cluster_wide(&world.0, &born).allowed());
}

#[test]
fn egress_to_the_own_node_is_not_exempt() {
    let world = World::with("x", DENY_ALL);
    world.check(&[
        ("x/a", "node-1", tcp(10250), DENY),
        ("x/a", "node-2", tcp(10250), DENY),
    ]);
}

#[test]
fn what_the_host_sends_is_no_pods_egress() {
    let world = World::with("x", DENY_ALL);
    assert_eq!(
        world.judge_from_host("node-1", "x/a", "y/a", HTTP).egress,
        None
    );
}

/// Adds y/host: a host-network pod on node-1 with the labels of `a`.
fn with_host_pod(mut world: World) -> World {
    world.pod(
        "{metadata: {namespace: y, name: host, labels: {app: a}},
          spec: {nodeName: node-1, hostNetwork: true, containers: [{name: main, ports: [{name: http, containerPort: 80}]}]},
          status: {phase: Running, podIP: 192.168.1.1, podIPs: [{ip: 192.168.1.1}, {ip: 'fd00:1::1'}]}}",
    );
    world
}

#[test]
fn a_host_network_pod_is_no_subject() {
    let world = with_host_pod(World::with("y", DENY_ALL));
    world.check(&[
        ("x/a", "y/host", HTTP, ALLOW),
        ("y/host", "x/a", HTTP, ALLOW),
        ("x/a", "y/a", HTTP, DENY),
    ]);
    let judgement = world.judge("y/host", "x/a", HTTP);
    assert!(judgement.egress.is_none() && judgement.ingress.is_some());
}

#[test]
fn a_host_network_pod_is_no_peer_of_a_selector_but_its_nodes_address_is_one_of_a_block() {
    let selecting =
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}";
    with_host_pod(World::with("x", selecting)).check(&[
        ("y/host", "x/b", HTTP, DENY),
        ("y/host#6", "x/b#6", HTTP, DENY),
        ("y/a", "x/b", HTTP, ALLOW),
    ]);
    let block = "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 192.168.1.1/32}}]}]}";
    with_host_pod(World::with("x", block)).check(&[("y/host", "x/b", HTTP, ALLOW)]);
}

#[test]
fn a_host_network_pod_has_no_port_names() {
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}";
    with_host_pod(World::with("x", spec))
        .check(&[("x/a", "y/host", HTTP, DENY), ("x/a", "y/a", HTTP, ALLOW)]);
}

#[test]
fn each_node_judges_the_ends_that_run_on_it() {
    let mut world = World::with("x", DENY_ALL);
    world.policy("y", "deny", DENY_ALL);
    let seen = |from: &str, to: &str, node: &str| {
        let judgement = judge(&world.0, &world.flow(from, to, HTTP, node));
        (judgement.egress.is_some(), judgement.ingress.is_some())
    };
    assert_eq!(seen("x/a", "y/b", "node-1"), (true, false));
    assert_eq!(seen("x/a", "y/b", "node-2"), (false, true));
    assert_eq!(seen("x/a", "y/a", "node-1"), (true, true));
    assert_eq!(seen("x/a", "y/a", "node-2"), (false, false));
    assert!(judge(&world.0, &world.flow("x/a", "y/a", HTTP, "node-2")).allowed());
}
