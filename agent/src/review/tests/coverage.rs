//! Which rules did anything, and who is isolated by none.

use super::{CLUSTER, policy, proposal};
use crate::compile::RuleOrigin;
use crate::model::{Direction, ObjectName, Snapshot, Tier};
use crate::review::worlds::Worlds;
use crate::review::{Counted, Counts, Coverage, coverage};

/// DNS, Prometheus, and two pods of a shop.
fn cluster(policies: &str) -> Snapshot {
    let pods = ["front-1", "back-1"].map(|name| {
        let app = name.trim_end_matches("-1");
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: {name}, labels: {{app: {app}}}}}\nspec: {{nodeName: n1, containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.1.0.{}}}]}}\n",
            name.len() + 20
        )
    });
    let objects = format!("{CLUSTER}{}{policies}", pods.join(""));
    Worlds::new(&proposal(&objects, "")).after
}

fn lines(coverage: &Coverage) -> Vec<String> {
    let rules = coverage.rules.iter().map(|it| {
        let index = it.index.map_or("-".to_owned(), |index| index.to_string());
        let Counted { hits, connections } = it.counted;
        let marks = [
            (it.shadowed_by.map(|by| format!(" shadowed by {by}"))),
            it.matches_nobody.then(|| " nobody".to_owned()),
            it.is_unused().then(|| " unused".to_owned()),
        ];
        let marks: String = marks.into_iter().flatten().collect();
        format!(
            "{} {} {index}: {hits} {connections}{marks}",
            it.policy.name,
            it.direction.as_str()
        )
    });
    rules.collect()
}

fn rule(tier: Tier, policy: ObjectName, direction: Direction, index: usize) -> RuleOrigin {
    RuleOrigin {
        tier,
        policy,
        direction,
        index,
    }
}

#[test]
fn rules_have_what_was_counted_and_what_makes_them_idle() {
    let own = policy(
        "back",
        "podSelector: {matchLabels: {app: back}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: front}}}]}, \
         {from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: 80}]}, {from: [{podSelector: {matchLabels: {app: gone}}}]}, {}]",
    );
    let idle = policy(
        "idle",
        "podSelector: {matchLabels: {app: gone}}, egress: [{}], policyTypes: [Egress]",
    );
    let tier = "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: top}\n\
                spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [192.0.2.0/24]}]}, \
                {action: Accept, to: [{networks: [192.0.2.0/25]}]}]}\n";
    let snapshot = cluster(&[&own, &idle, tier].map(String::from).join(""));
    let back = ObjectName::new("shop", "back");
    let mut counts = Counts::default();
    let counted = |hits, connections| Counted { hits, connections };
    counts.rules.insert(
        rule(Tier::NetworkPolicy, back.clone(), Direction::Ingress, 0),
        counted(200, 3),
    );
    counts.rules.insert(
        rule(Tier::NetworkPolicy, back.clone(), Direction::Ingress, 3),
        counted(0, 1),
    );
    counts.rules.insert(
        rule(
            Tier::Admin,
            ObjectName::cluster("top"),
            Direction::Egress,
            0,
        ),
        counted(7, 0),
    );
    counts.denials.insert((back, Direction::Egress), 5);
    assert_eq!(
        lines(&coverage(&snapshot, &counts)),
        [
            "top egress 0: 7 0",
            "top egress 1: 0 0 shadowed by 0 unused",
            "back ingress 0: 200 3 shadowed by 3",
            "back ingress 1: 0 0 shadowed by 0 unused",
            "back ingress 2: 0 0 shadowed by 3 nobody unused",
            "back ingress 3: 0 1",
            "back ingress -: 0 0",
            "back egress -: 5 0",
            "idle egress 0: 0 0 nobody unused",
            "idle egress -: 0 0 nobody",
        ]
    );
}

#[test]
fn pods_are_free_in_the_directions_that_no_policy_isolates() {
    let back = policy(
        "back",
        "podSelector: {matchLabels: {app: back}}, policyTypes: [Ingress, Egress]",
    );
    let front = policy(
        "front",
        "podSelector: {matchLabels: {app: front}}, policyTypes: [Ingress]",
    );
    let free = coverage(&cluster(&(back + &front)), &Counts::default()).unisolated;
    let free: Vec<_> = free
        .iter()
        .map(|it| (it.workload.as_str(), it.ingress, it.egress, it.pods))
        .collect();
    assert_eq!(
        free,
        [
            ("coredns-1", true, true, 1),
            ("prometheus-0", true, true, 1),
            ("front-1", false, true, 1),
        ]
    );
}
