//! `from` and `to` with selectors: which pods they pick, and that they pick nothing but pods.

use crate::world::{ALLOW, DENY, HTTP, WORLD, World};

fn ingress_from(peers: &str) -> World {
    World::with(
        "x",
        &format!("{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{peers}]}}]}}"),
    )
}

#[test]
fn a_pod_selector_alone_picks_pods_of_the_policys_own_namespace() {
    ingress_from("{podSelector: {}}").check(&[
        ("x/b", "x/a", HTTP, ALLOW),
        ("x/b#6", "x/a#6", HTTP, ALLOW),
        ("y/b", "x/a", HTTP, DENY),
        (WORLD, "x/a", HTTP, DENY),
        ("node-2", "x/a", HTTP, DENY),
    ]);
    ingress_from("{podSelector: {matchLabels: {app: b}}}").check(&[
        ("x/b", "x/a", HTTP, ALLOW),
        ("x/a", "x/b", HTTP, DENY),
        ("y/b", "x/a", HTTP, DENY),
    ]);
}

#[test]
fn a_namespace_selector_alone_picks_all_pods_of_the_matching_namespaces() {
    ingress_from("{namespaceSelector: {matchLabels: {team: y}}}").check(&[
        ("y/a", "x/a", HTTP, ALLOW),
        ("y/b", "x/a", HTTP, ALLOW),
        ("z/a", "x/a", HTTP, DENY),
        ("x/b", "x/a", HTTP, DENY),
    ]);
    ingress_from("{namespaceSelector: {matchLabels: {team: y, env: test}}}")
        .check(&[("y/a", "x/a", HTTP, DENY)]);
}

#[test]
fn an_empty_namespace_selector_picks_every_pod_and_nothing_else() {
    ingress_from("{namespaceSelector: {}}").check(&[
        ("x/b", "x/a", HTTP, ALLOW),
        ("z/bare", "x/a", HTTP, ALLOW),
        ("y/a#6", "x/a#6", HTTP, ALLOW),
        (WORLD, "x/a", HTTP, DENY),
        ("node-2", "x/a", HTTP, DENY),
    ]);
}

#[test]
fn both_selectors_in_one_peer_must_match_and_in_two_peers_either() {
    let both =
        "{namespaceSelector: {matchLabels: {team: y}}, podSelector: {matchLabels: {app: b}}}";
    ingress_from(both).check(&[
        ("y/b", "x/a", HTTP, ALLOW),
        ("y/a", "x/a", HTTP, DENY),
        ("x/b", "x/a", HTTP, DENY),
        ("z/b", "x/a", HTTP, DENY),
    ]);
    let either =
        "{namespaceSelector: {matchLabels: {team: y}}}, {podSelector: {matchLabels: {app: b}}}";
    ingress_from(either).check(&[
        ("y/b", "x/a", HTTP, ALLOW),
        ("y/a", "x/a", HTTP, ALLOW),
        ("x/b", "x/a", HTTP, ALLOW),
        ("z/b", "x/a", HTTP, DENY),
    ]);
    ingress_from("{namespaceSelector: {}, podSelector: {matchLabels: {app: b}}}")
        .check(&[("z/b", "x/a", HTTP, ALLOW), ("z/a", "x/a", HTTP, DENY)]);
}

#[test]
fn a_negative_requirement_picks_objects_that_lack_the_key() {
    let labelled =
        "{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [y]}]}}";
    ingress_from(labelled).check(&[
        ("z/a", "x/a", HTTP, ALLOW),
        ("x/b", "x/a", HTTP, ALLOW),
        ("y/a", "x/a", HTTP, DENY),
    ]);
    let bare = "{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}";
    ingress_from(bare).check(&[("z/bare", "x/a", HTTP, ALLOW), ("z/a", "x/a", HTTP, DENY)]);
}

#[test]
fn every_namespace_bears_its_name_as_a_label() {
    ingress_from("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}")
        .check(&[("z/bare", "x/a", HTTP, ALLOW), ("y/a", "x/a", HTTP, DENY)]);
}

#[test]
fn a_relabelled_namespace_changes_who_is_a_peer() {
    let mut world = ingress_from("{namespaceSelector: {matchLabels: {team: y}}}");
    for namespace in &mut world.0.namespaces {
        match namespace.metadata.name.as_deref() {
            Some("y") => namespace.metadata.labels = None,
            Some("z") => {
                namespace.metadata.labels = Some([("team".to_owned(), "y".to_owned())].into());
            }
            _ => {}
        }
    }
    world.check(&[("y/a", "x/a", HTTP, DENY), ("z/a", "x/a", HTTP, ALLOW)]);
}

#[test]
fn without_a_namespace_object_policies_count_but_no_namespace_selector_picks() {
    let mut world = ingress_from("{namespaceSelector: {}}, {podSelector: {matchLabels: {app: b}}}");
    world.0.namespaces.clear();
    world.check(&[
        ("y/a", "x/a", HTTP, DENY),
        ("y/b", "x/a", HTTP, DENY),
        ("x/b", "x/a", HTTP, ALLOW),
        ("x/a", "y/a", HTTP, ALLOW),
    ]);
}

#[test]
fn peers_of_egress_are_the_destinations() {
    let world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: y}}}]}]}",
    );
    world.check(&[
        ("x/a", "y/a", HTTP, ALLOW),
        ("x/a", "z/a", HTTP, DENY),
        ("x/a", "x/b", HTTP, DENY),
        ("x/a", WORLD, HTTP, DENY),
        ("y/a", "x/a", HTTP, ALLOW),
    ]);
}

#[test]
fn a_peer_that_validation_refuses_matches_nothing() {
    for peer in [
        "{}",
        "{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}",
        "{ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}",
    ] {
        ingress_from(peer).check(&[("x/b", "x/a", HTTP, DENY), (WORLD, "x/a", HTTP, DENY)]);
    }
}
