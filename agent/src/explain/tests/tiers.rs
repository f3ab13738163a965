//! Tiers above and below NetworkPolicies.

use std::sync::Arc;

use super::cluster::{Cluster, labels, shop};
use crate::explain::{Note, SideOutcome, Verdict};
use crate::model::{
    Action, ClusterPolicy, ClusterRule, ObjectName, Operator, Peer, PolicyPort, PortMatch,
    Protocol, Requirement, Rule, Selector, Tier,
};

fn selector(text: &str) -> Selector {
    let requirement = |(key, value)| Requirement {
        key,
        operator: Operator::In([value].into()),
    };
    Selector {
        requirements: labels(text).into_iter().map(requirement).collect(),
    }
}

/// Adds a policy of a tier and priority for the pods of namespace `shop`, with these rules for egress: what they do, to pods of
/// which namespaces, and on which TCP port (0 for all).
fn tier(
    mut cluster: Cluster,
    name: &str,
    tier: Tier,
    priority: u16,
    rules: &[(Action, &str, u16)],
) -> Cluster {
    let rule = |(action, namespaces, port): &(Action, &str, u16)| ClusterRule {
        name: format!("{namespaces} {port}"),
        action: *action,
        matches: Rule {
            peers: vec![Peer::Pods {
                namespaces: Some(selector(namespaces)),
                pods: Some(Selector::default()),
            }],
            ports: (*port > 0)
                .then_some(PolicyPort {
                    protocol: Protocol::Tcp,
                    port: PortMatch::Range(*port, *port),
                })
                .into_iter()
                .collect(),
        },
    };
    let policy = ClusterPolicy {
        name: ObjectName::cluster(name),
        uid: String::new(),
        labels: [].into(),
        tier,
        priority,
        namespaces: selector("team=shop"),
        pods: Selector::default(),
        ingress: Vec::new(),
        egress: rules.iter().map(rule).collect(),
    };
    let policies = &mut cluster.0.cluster_policies;
    policies.insert(name.to_owned(), Arc::new(policy));
    cluster
}

const OPEN: &str = "{podSelector: {}, policyTypes: [Egress], egress: [{}]}";
const DENY: &str = "{podSelector: {}, policyTypes: [Egress]}";

#[test]
fn the_deciding_rule_is_named_with_those_that_left_it_to_it() {
    let above = |action| tier(shop(), "above", Tier::Admin, 1, &[(action, "team=web", 0)]);
    let below = |cluster| {
        tier(
            cluster,
            "below",
            Tier::Baseline,
            1,
            &[(Action::Deny, "", 0)],
        )
    };
    for (what, cluster, outcome, rules) in [
        (
            "accepted",
            below(above(Action::Accept).rule("shop/deny", DENY)),
            SideOutcome::Allowed,
            "Admin above 0 Accept",
        ),
        (
            "denied",
            below(above(Action::Deny).rule("shop/open", OPEN)),
            SideOutcome::DeniedByRule,
            "Admin above 0 Deny",
        ),
        (
            "passed to NetworkPolicies",
            below(above(Action::Pass).rule("shop/open", OPEN)),
            SideOutcome::Allowed,
            "Admin above 0 Pass",
        ),
        (
            "passed to the baseline",
            below(above(Action::Pass)),
            SideOutcome::DeniedByRule,
            "Admin above 0 Pass, Baseline below 0 Deny",
        ),
        (
            "not isolated by the rest",
            below(shop()),
            SideOutcome::DeniedByRule,
            "Baseline below 0 Deny",
        ),
        (
            "passed to nobody",
            above(Action::Pass),
            SideOutcome::NotIsolated,
            "Admin above 0 Pass",
        ),
    ] {
        let answer = cluster.ask("shop/backend-1", "web/frontend:80");
        let side = &answer.flows[0].egress;
        assert_eq!(side.outcome, outcome, "{what}");
        let named = side.tiers.iter().map(|found| {
            let (tier, action) = (found.tier.as_str(), found.action.as_str());
            format!("{tier} {} {} {action}", found.rule.policy, found.rule.index)
        });
        assert_eq!(named.collect::<Vec<_>>().join(", "), rules, "{what}");
        let verdict = if outcome.passes() {
            Verdict::Allowed
        } else {
            Verdict::Denied
        };
        assert_eq!(answer.verdict, verdict, "{what}");
        // No NetworkPolicy mends what such a rule denies.
        assert!(answer.fixes.is_empty(), "{what}");
    }
    let answer = below(shop().rule("shop/deny", DENY)).ask("shop/backend-1", "web/frontend:80");
    assert_eq!(answer.flows[0].egress.outcome, SideOutcome::Denied);
    assert!(!answer.fixes.is_empty());
}

#[test]
fn a_denial_tells_what_would_have_accepted_it() {
    let rules = [(Action::Accept, "team=web", 443), (Action::Deny, "", 0)];
    let cluster = tier(shop(), "above", Tier::Admin, 1, &rules);
    let answer = cluster.ask("shop/backend-1", "web/frontend:80");
    let near = &answer.flows[0].egress.nearest[0];
    assert_eq!((near.policy.to_string().as_str(), near.index), ("above", 0));
    assert_eq!(near.misses, ["port 80 is not 443"]);
}

#[test]
fn nodes_are_peers_by_label() {
    let rules = [(Action::Deny, "", 0)];
    let mut cluster = tier(shop(), "above", Tier::Admin, 1, &rules);
    let policies = &mut cluster.0.cluster_policies;
    let policy = Arc::make_mut(policies.get_mut("above").expect("the policy"));
    policy.egress[0].matches.peers = vec![Peer::Nodes(selector("role=db"))];
    let outcome =
        |cluster: &Cluster, to: &str| cluster.ask("shop/backend-1", to).flows[0].egress.outcome;
    assert_eq!(
        outcome(&cluster, "192.168.0.2:80"),
        SideOutcome::NotIsolated
    );
    for (node, has) in [("n1", "role=web"), ("n2", "role=db")] {
        let node = cluster.0.nodes.get_mut(node).expect("a node");
        Arc::make_mut(node).labels = labels(has);
    }
    assert_eq!(
        outcome(&cluster, "192.168.0.2:80"),
        SideOutcome::DeniedByRule
    );
    assert_eq!(
        outcome(&cluster, "192.168.0.1:80"),
        SideOutcome::NotIsolated
    );
    assert_eq!(
        outcome(&cluster, "shop/database:80"),
        SideOutcome::NotIsolated
    );
}

#[test]
fn a_denial_tells_which_nodes_would_have_been_accepted() {
    let rules = [(Action::Accept, "", 0), (Action::Deny, "", 0)];
    let mut cluster = tier(shop(), "above", Tier::Admin, 1, &rules)
        .node("n2b", "192.168.0.2")
        .node("n3", "192.168.0.3");
    let policies = &mut cluster.0.cluster_policies;
    let policy = Arc::make_mut(policies.get_mut("above").expect("the policy"));
    policy.egress[0].matches.peers = vec![Peer::Nodes(selector("role=db,zone=a"))];
    policy.egress[1].matches.peers.clear();
    for (node, has) in [("n2", "role=web"), ("n2b", "role=web,zone=a")] {
        let node = cluster.0.nodes.get_mut(node).expect("a node");
        Arc::make_mut(node).labels = labels(has);
    }
    let misses = |to: &str| {
        let answer = cluster.ask("shop/backend-1", to);
        answer.flows[0].egress.nearest[0].misses.join("; ")
    };
    assert_eq!(
        misses("192.168.0.3:80"),
        "label role=db is missing on node n3; label zone=a is missing on node n3"
    );
    // Of two nodes that show the address, the nearer one.
    assert_eq!(
        misses("192.168.0.2:80"),
        "label role=web on node n2b does not match role=db"
    );
    assert_eq!(
        misses("203.0.113.7:80"),
        "no node shows the address 203.0.113.7"
    );
}

#[test]
fn lookups_that_a_rule_denies_are_told() {
    let rules = [(Action::Accept, "team=web", 0), (Action::Deny, "", 0)];
    let answer =
        tier(shop(), "above", Tier::Admin, 1, &rules).ask("shop/backend-1", "web/frontend:80");
    assert_eq!(answer.verdict, Verdict::Allowed);
    let told = answer.notes.iter().any(|note| {
        matches!(note, Note::Warning(text) if text.contains("name lookups of shop/backend-1 are denied (by above)"))
    });
    assert!(told, "{:?}", answer.notes);
}
