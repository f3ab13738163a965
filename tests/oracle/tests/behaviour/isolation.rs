//! Which pods a policy isolates, in which direction, and how policies add up.

use weir_oracle::{PolicyRef, RuleRef};

use crate::world::{ALLOW, DENY, GRE, HTTP, PING, WORLD, WORLD6, World, tcp, udp};

#[test]
fn without_policies_everything_is_allowed() {
    let world = World::new();
    world.check(&[
        ("x/a", "y/b", HTTP, ALLOW),
        (WORLD, "x/a", PING, ALLOW),
        ("x/a#6", WORLD6, GRE, ALLOW),
    ]);
    let judgement = world.judge("x/a", "y/b", HTTP);
    assert!(
        judgement
            .egress
            .is_some_and(|verdict| verdict.isolating.is_empty())
    );
}

#[test]
fn absent_policy_types_isolate_ingress_and_with_an_egress_rule_also_egress() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", DENY, ALLOW),
        ("{podSelector: {}, policyTypes: []}", DENY, ALLOW),
        ("{podSelector: {}, egress: []}", DENY, ALLOW),
        (
            "{podSelector: {}, policyTypes: [], egress: []}",
            DENY,
            ALLOW,
        ),
        (
            "{podSelector: {}, egress: [{to: [{podSelector: {matchLabels: {no: one}}}]}]}",
            DENY,
            DENY,
        ),
        (
            "{podSelector: {}, policyTypes: [], egress: [{ports: [{port: 1}]}]}",
            DENY,
            DENY,
        ),
        ("{podSelector: {}, policyTypes: [Egress]}", ALLOW, DENY),
        ("{podSelector: {}, policyTypes: [Ingress]}", DENY, ALLOW),
        (
            "{podSelector: {}, policyTypes: [Ingress, Egress]}",
            DENY,
            DENY,
        ),
    ] {
        let world = World::with("x", spec);
        assert_eq!(
            world.judge("y/b", "x/a", HTTP).allowed(),
            ingress,
            "ingress of {spec}"
        );
        assert_eq!(
            world.judge("x/a", "y/b", HTTP).allowed(),
            egress,
            "egress of {spec}"
        );
    }
}

#[test]
fn an_empty_spec_is_a_policy_that_denies_all_ingress_of_its_namespace() {
    let world = World::with("x", "{}");
    world.check(&[
        ("y/a", "x/a", HTTP, DENY),
        ("x/a", "y/a", HTTP, ALLOW),
        ("x/a", "z/a", HTTP, ALLOW),
    ]);
}

#[test]
fn rules_of_a_direction_that_is_not_in_policy_types_are_ignored() {
    let mut world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 1}]}]}",
    );
    world.check(&[("y/a", "x/a", HTTP, ALLOW), ("x/a", "y/a", HTTP, DENY)]);
    // Nor do they allow what another policy isolates.
    world.policy("x", "deny", "{podSelector: {}, policyTypes: [Ingress]}");
    world.check(&[("y/a", "x/a", tcp(1), DENY)]);
}

#[test]
fn no_rule_denies_all_and_an_empty_rule_allows_all() {
    for rules in ["", "ingress: [],", "ingress: null,"] {
        let world = World::with(
            "x",
            &format!("{{podSelector: {{}}, {rules} policyTypes: [Ingress]}}"),
        );
        world.check(&[
            ("y/a", "x/a", HTTP, DENY),
            ("x/b", "x/a", HTTP, DENY),
            (WORLD, "x/a", PING, DENY),
        ]);
    }
    let world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
    );
    world.check(&[
        ("y/a", "x/a", HTTP, ALLOW),
        (WORLD, "x/a", udp(5), ALLOW),
        (WORLD6, "x/a#6", GRE, ALLOW),
        ("node-2", "x/a", PING, ALLOW),
    ]);
}

#[test]
fn an_absent_or_empty_pod_selector_selects_every_pod_of_the_namespace_only() {
    for selector in [
        "",
        "podSelector: {},",
        "podSelector: {matchLabels: {}, matchExpressions: []},",
    ] {
        let world = World::with("z", &format!("{{{selector} policyTypes: [Ingress]}}"));
        world.check(&[
            ("y/a", "z/a", HTTP, DENY),
            ("y/a", "z/b", HTTP, DENY),
            ("y/a", "z/bare", HTTP, DENY),
            ("z/a", "y/a", HTTP, ALLOW),
            ("z/a", "x/a", HTTP, ALLOW),
        ]);
    }
}

#[test]
fn a_pod_selector_isolates_only_the_pods_it_selects() {
    let world = World::with(
        "z",
        "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [b]}]}}",
    );
    world.check(&[
        ("y/a", "z/a", HTTP, DENY),
        ("y/a", "z/b", HTTP, ALLOW),
        // A pod without the key is not in any set of values.
        ("y/a", "z/bare", HTTP, DENY),
    ]);
}

#[test]
fn a_policy_that_selects_no_pod_has_no_effect() {
    let world = World::with(
        "x",
        "{podSelector: {matchLabels: {app: typo}}, policyTypes: [Ingress, Egress]}",
    );
    world.check(&[("y/a", "x/a", HTTP, ALLOW), ("x/a", "y/a", HTTP, ALLOW)]);
}

#[test]
fn a_relabelled_pod_changes_sides() {
    let mut world = World::with("x", "{podSelector: {matchLabels: {app: a}}}");
    world.check(&[("y/a", "x/a", HTTP, DENY)]);
    let pod = world
        .0
        .pods
        .iter_mut()
        .find(|pod| pod.metadata.namespace.as_deref() == Some("x"))
        .expect("x/a");
    pod.metadata.labels = None;
    world.check(&[("y/a", "x/a", HTTP, ALLOW)]);
}

#[test]
fn isolation_is_per_direction() {
    let world = World::with(
        "x",
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}",
    );
    let out = world.judge("x/a", "y/a", HTTP);
    assert!(out.allowed());
    assert!(
        out.egress
            .is_some_and(|verdict| verdict.isolating.is_empty())
    );
}

#[test]
fn both_ends_must_allow() {
    let mut world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
    );
    world.policy("y", "deny", "{podSelector: {}, policyTypes: [Ingress]}");
    let judgement = world.judge("x/a", "y/b", HTTP);
    assert!(
        judgement
            .egress
            .as_ref()
            .is_some_and(|verdict| verdict.allowed)
    );
    assert!(
        judgement
            .ingress
            .as_ref()
            .is_some_and(|verdict| !verdict.allowed)
    );
    assert!(!judgement.allowed());

    let mut world = World::with("x", "{podSelector: {}, policyTypes: [Egress]}");
    world.policy(
        "y",
        "allow",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
    );
    let judgement = world.judge("x/a", "y/b", HTTP);
    assert!(
        judgement
            .egress
            .as_ref()
            .is_some_and(|verdict| !verdict.allowed)
    );
    assert!(
        judgement
            .ingress
            .as_ref()
            .is_some_and(|verdict| verdict.allowed)
    );
    assert!(!judgement.allowed());
}

#[test]
fn policies_only_add() {
    let mut world = World::with("x", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
    world.check(&[("y/a", "x/a", tcp(81), DENY)]);
    world.policy(
        "x",
        "more",
        "{podSelector: {}, ingress: [{ports: [{port: 81}]}]}",
    );
    world.policy("x", "none", "{podSelector: {}, ingress: []}");
    world.check(&[
        ("y/a", "x/a", tcp(80), ALLOW),
        ("y/a", "x/a", tcp(81), ALLOW),
        ("y/a", "x/a", tcp(82), DENY),
    ]);
}

#[test]
fn a_rule_needs_both_its_peers_and_its_ports_and_rules_do_not_mix() {
    let world = World::with(
        "x",
        "{podSelector: {}, ingress: [
            {from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]},
            {from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}",
    );
    world.check(&[
        (WORLD, "x/a", tcp(80), ALLOW),
        (WORLD, "x/a", tcp(443), DENY),
        ("y/a", "x/a", tcp(80), ALLOW),
        ("y/a", "x/a", tcp(443), ALLOW),
        ("y/a", "x/a", tcp(81), DENY),
    ]);
}

#[test]
fn empty_lists_in_a_rule_mean_no_restriction_like_absent_ones() {
    for rule in [
        "{}",
        "{from: []}",
        "{ports: []}",
        "{from: [], ports: []}",
        "{from: null, ports: null}",
    ] {
        let world = World::with("x", &format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
        world.check(&[
            (WORLD, "x/a", HTTP, ALLOW),
            ("y/a", "x/a", GRE, ALLOW),
            ("node-2", "x/b", PING, ALLOW),
        ]);
    }
}

#[test]
fn policies_of_one_name_in_two_namespaces_are_two_policies() {
    let mut world = World::new();
    world.policy("x", "same", "{podSelector: {}, policyTypes: [Ingress]}");
    world.policy(
        "y",
        "same",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
    );
    world.check(&[
        ("z/a", "x/a", HTTP, DENY),
        ("z/a", "y/a", HTTP, ALLOW),
        ("z/a", "z/b", HTTP, ALLOW),
    ]);
}

#[test]
fn a_verdict_names_the_isolating_policies_and_the_allowing_rules() {
    let mut world = World::new();
    world.policy(
        "x",
        "second",
        "{podSelector: {}, ingress: [{ports: [{port: 81}]}, {}, {ports: [{port: 80}]}]}",
    );
    world.policy("x", "first", "{podSelector: {}, ingress: [{}]}");
    world.policy("x", "egress", "{podSelector: {}, policyTypes: [Egress]}");
    world.policy("y", "other", "{podSelector: {}}");
    let verdict = world
        .judge("y/a", "x/a", HTTP)
        .ingress
        .expect("x/a is judged");
    let policy = |name: &str| PolicyRef {
        namespace: "x".to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(verdict.isolating, [policy("first"), policy("second")]);
    let rule = |name, rule| RuleRef {
        policy: policy(name),
        rule,
    };
    assert_eq!(
        verdict.allowing,
        [rule("first", 0), rule("second", 1), rule("second", 2)]
    );
    assert_eq!(verdict.exempt, None);
}

#[test]
fn objects_without_a_namespace_are_in_the_default_namespace() {
    let mut world = World::new();
    world.0.policies.push(
        serde_saphyr::from_str("{metadata: {name: deny}, spec: {podSelector: {}}}")
            .expect("a policy"),
    );
    world.pod(&crate::world::plain_pod("default", "a", "{}", 1, 9, 1));
    world.check(&[
        ("y/a", "default/a", HTTP, DENY),
        ("y/a", "x/a", HTTP, ALLOW),
    ]);
}
