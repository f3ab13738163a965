//! ClusterNetworkPolicies, and rules of them that cannot be used.

use super::*;
use crate::model::{Action, ClusterPolicy, ClusterRule, PolicyPort, Rule, Selector, Tier};

fn tiered(field: &str, value: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "top", "uid": "u", "labels": {"team": "a"}},
        "spec": {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}},
    });
    object["spec"][field] = value;
    object
}

/// The policy, and its flaws in words.
fn policy(object: Value) -> (ClusterPolicy, Vec<String>) {
    let Converted { object, flaws } = used(Kind::ClusterNetworkPolicy, object);
    let Object::ClusterPolicy(policy) = object else {
        panic!("{object:?}");
    };
    (policy, flaws.iter().map(ToString::to_string).collect())
}

fn refused(object: Value) -> String {
    let refusal = convert(Kind::ClusterNetworkPolicy, object);
    refusal.expect_err("a refusal").fault.to_string()
}

fn labelled(key: &str, value: &str) -> Selector {
    let operator = Operator::In([value.to_owned()].into());
    let key = key.to_owned();
    Selector {
        requirements: vec![model::Requirement { key, operator }],
    }
}

#[test]
fn every_field_is_taken_over() {
    let mut object = tiered(
        "subject",
        json!({"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "db"}}}}),
    );
    object["spec"]["tier"] = "Baseline".into();
    object["spec"]["ingress"] =
        json!([{"name": "all", "action": "Pass", "from": [{"namespaces": {}}]}]);
    object["spec"]["egress"] = json!([{
        "action": "Deny",
        "to": [{"nodes": {"matchLabels": {"role": "db"}}}, {"networks": ["10.1.2.3/8", "fd00::/8"]}],
        "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 5, "end": 6}}}}],
    }, {
        "action": "Accept",
        "to": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}],
        "protocols": [{"destinationNamedPort": "web"}],
    }]);
    let every = || Some(Selector::default());
    let all_pods = || Peer::Pods {
        namespaces: every(),
        pods: every(),
    };
    let block = |cidr: &str| Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: vec![],
    };
    let port = |protocol, port| PolicyPort { protocol, port };
    let web = |protocol| port(protocol, PortMatch::Named("web".to_owned()));
    let rule = |name: &str, action, peers, ports| ClusterRule {
        name: name.to_owned(),
        action,
        matches: Rule { peers, ports },
    };
    let expected = ClusterPolicy {
        name: ObjectName::cluster("top"),
        uid: "u".to_owned(),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        tier: Tier::Baseline,
        priority: 7,
        namespaces: labelled("team", "a"),
        pods: labelled("app", "db"),
        ingress: vec![rule("all", Action::Pass, vec![all_pods()], vec![])],
        egress: vec![
            rule(
                "",
                Action::Deny,
                vec![
                    Peer::Nodes(labelled("role", "db")),
                    block("10.0.0.0/8"),
                    block("fd00::/8"),
                ],
                vec![
                    port(Protocol::Tcp, PortMatch::Range(80, 80)),
                    port(Protocol::Udp, PortMatch::Range(5, 6)),
                ],
            ),
            rule(
                "",
                Action::Accept,
                vec![all_pods()],
                [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                    .map(web)
                    .to_vec(),
            ),
        ],
    };
    assert_eq!(policy(object), (expected, vec![]));
}

#[test]
fn a_rule_of_which_a_part_cannot_be_used_fails_closed() {
    let any = json!({"namespaces": {}});
    let tcp = |port: Value| json!({"tcp": {"destinationPort": port}});
    for (direction, peers, protocols, wanted) in [
        (
            "ingress",
            json!([{"serviceAccounts": {}}]),
            json!([]),
            "spec.ingress[0].from[0]: field \"serviceAccounts\" is not known",
        ),
        (
            "ingress",
            json!([any, {}]),
            json!([]),
            "spec.ingress[0].from[1]: there must be one of namespaces and pods",
        ),
        (
            "ingress",
            json!([{"networks": ["10.0.0.0/8"]}]),
            json!([]),
            "spec.ingress[0].from[0]: there must be one of namespaces and pods",
        ),
        (
            "egress",
            json!([any, {"domainNames": ["example.com"]}]),
            json!([]),
            "spec.egress[0].to[1].domainNames: domainNames are not followed yet",
        ),
        (
            "egress",
            json!([{"networks": ["10.0.0.0/8", "10.0.0.0/88"]}]),
            json!([]),
            "spec.egress[0].to[0].networks[1]: \"10.0.0.0/88\" is not a CIDR",
        ),
        (
            "egress",
            json!([{"networks": []}]),
            json!([]),
            "spec.egress[0].to[0]: there must be one of namespaces, pods, nodes and networks",
        ),
        (
            "egress",
            json!([{"nodes": {}, "namespaces": {}}]),
            json!([]),
            "spec.egress[0].to[0]: there must be one of namespaces, pods, nodes",
        ),
        (
            "egress",
            json!([{"pods": {"namespaceSelector": {}, "podSelector": {}, "ages": 1}}]),
            json!([]),
            "spec.egress[0].to[0].pods: field \"ages\" is not known",
        ),
        (
            "egress",
            json!([{"nodes": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}]),
            json!([]),
            "spec.egress[0].to[0].nodes.matchExpressions[0].operator: \"Gt\" is not an operator",
        ),
        (
            "egress",
            json!([]),
            json!([]),
            "spec.egress[0].to: a rule needs at least one peer",
        ),
        (
            "ingress",
            json!([any]),
            json!([{"icmp": {}}]),
            "spec.ingress[0].protocols[0]: field \"icmp\" is not known",
        ),
        (
            "ingress",
            json!([any]),
            json!([{}]),
            "spec.ingress[0].protocols[0]: there must be one of tcp, udp, sctp",
        ),
        (
            "ingress",
            json!([any]),
            json!([{"tcp": {}}]),
            "spec.ingress[0].protocols[0].tcp.destinationPort: there must be one of number and range",
        ),
        (
            "ingress",
            json!([any]),
            json!([{"tcp": {"flags": "SYN"}}]),
            "spec.ingress[0].protocols[0].tcp: field \"flags\" is not known",
        ),
        (
            "ingress",
            json!([any]),
            json!([tcp(json!({"number": 0}))]),
            "spec.ingress[0].protocols[0].tcp.destinationPort.number: 0 is not a port",
        ),
        (
            "ingress",
            json!([any]),
            json!([tcp(json!({"range": {"start": 9, "end": 8}}))]),
            "spec.ingress[0].protocols[0].tcp.destinationPort.range: endPort 8",
        ),
        (
            "ingress",
            json!([any]),
            json!([tcp(json!({"number": 1, "odd": true}))]),
            "spec.ingress[0].protocols[0].tcp.destinationPort: field \"odd\" is not known",
        ),
    ] {
        let field = if direction == "ingress" { "from" } else { "to" };
        let nothing = ClusterRule {
            name: "it".to_owned(),
            action: Action::Accept,
            matches: Rule::nobody(),
        };
        let everything = ClusterRule {
            name: "it".to_owned(),
            action: Action::Deny,
            matches: Rule::default(),
        };
        for (action, expected, effect) in [
            ("Accept", nothing, "accepts nothing"),
            ("Deny", everything.clone(), "denies everything"),
            ("Pass", everything, "denies everything"),
        ] {
            let rule =
                json!({"name": "it", "action": action, field: peers, "protocols": protocols});
            // The rule behind it keeps its place, and its meaning.
            let whole = json!({"action": "Pass", field: [any]});
            let (found, flaws) = policy(tiered(direction, json!([rule, whole])));
            let rules = if direction == "ingress" {
                &found.ingress
            } else {
                &found.egress
            };
            assert_eq!(rules[0], expected, "{rule}");
            assert_eq!(rules[1].action, Action::Pass);
            assert!(
                flaws.len() == 1 && flaws[0].starts_with(wanted) && flaws[0].ends_with(effect),
                "{rule}: {flaws:?}"
            );
        }
    }
    let strange = json!([{"action": "Log", "from": [any]}, {"action": "Deny", "to": [any]}, {"action": "Accept", "from": [any], "when": "night"}]);
    let (found, flaws) = policy(tiered("ingress", strange));
    let actions: Vec<_> = found.ingress.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::Deny, Action::Deny, Action::Accept]);
    assert_eq!(found.ingress[2].matches, Rule::nobody());
    assert!(
        flaws[0].starts_with("spec.ingress[0].action: \"Log\" is not an action"),
        "{flaws:?}"
    );
    assert!(
        flaws[1].starts_with("spec.ingress[1]: field \"to\" is not known"),
        "{flaws:?}"
    );
    assert!(
        flaws[2].starts_with("spec.ingress[2]: field \"when\" is not known"),
        "{flaws:?}"
    );
}

#[test]
fn without_a_tier_a_priority_or_a_subject_there_is_no_policy() {
    for (field, value, wanted) in [
        (
            "tier",
            json!("NetworkPolicy"),
            "spec.tier: \"NetworkPolicy\" is not a tier",
        ),
        (
            "priority",
            json!(1001),
            "spec.priority: 1001 is not a priority",
        ),
        ("priority", json!(-1), "spec.priority: -1 is not a priority"),
        (
            "subject",
            json!({}),
            "spec.subject: there must be one of namespaces and pods",
        ),
        (
            "subject",
            json!({"nodes": {}}),
            "spec.subject: there must be one of namespaces and pods",
        ),
        (
            "subject",
            json!({"nodePools": {}}),
            "spec.subject: field \"nodePools\" is not known",
        ),
    ] {
        let told = refused(tiered(field, value));
        assert!(told.starts_with(wanted), "{told}");
    }
    assert!(policy(tiered("priority", json!(0))).1.is_empty());
    assert!(policy(tiered("priority", json!(1000))).1.is_empty());
}
