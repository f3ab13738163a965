//! What opens and what closes.

use super::*;

const DENY: &str = "podSelector: {}, policyTypes: [Ingress, Egress]";
const TO_BACK: &str = "podSelector: {matchLabels: {app: front}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: http}]}]";
const FROM_FRONT: &str = "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: 8080}]}]";

#[test]
fn a_policy_for_ingress_closes_all_but_what_its_rules_say() {
    let review = reviewed(SHOP, &policy("from-front", FROM_FRONT));
    assert_eq!(
        lines(&review.closed),
        [
            "kube-system/dns (assumed)*1 shop/sts/back*2 0.0.0.0/0[] -> shop/sts/back*2: every port | ingress Denied from-front",
            "shop/deploy/front*2 -> shop/sts/back*2: every port but TCP 8080 | ingress Denied from-front",
        ]
    );
    assert_eq!(lines(&review.opened), [""; 0]);
    let near = review
        .closed
        .iter()
        .find_map(|change| change.nearest.as_ref());
    assert_eq!(
        near.map(|rule| (rule.index, rule.port.as_str())),
        Some((0, "TCP 8080"))
    );
}

#[test]
fn what_closes_opens_the_other_way_round() {
    let deny = format!("{SHOP}{}", policy("deny", DENY));
    let rules = format!(
        "{}{}",
        policy("to-back", TO_BACK),
        policy("from-front", FROM_FRONT)
    );
    let opened = reviewed(&deny, &rules);
    assert_eq!(
        lines(&opened.opened),
        [
            "shop/deploy/front*2 -> shop/sts/back*2: TCP 8080 | egress Allowed to-back, ingress Allowed from-front"
        ]
    );
    assert_eq!(lines(&opened.closed), [""; 0]);
    let both = format!("{deny}{rules}");
    let mut back = proposal(&both, &deny);
    back.replaces = true;
    let closed = review(&back);
    assert_eq!(
        lines(&closed.closed),
        [
            "shop/deploy/front*2 -> shop/sts/back*2: TCP 8080 | egress Denied deny, ingress Denied deny"
        ]
    );
    assert_eq!(lines(&closed.opened), [""; 0]);
}

#[test]
fn labels_open_and_close_as_policies_do() {
    let cluster = format!("{SHOP}{}", policy("from-front", FROM_FRONT));
    let renamed = SHOP.replace("{app: front}", "{app: face}");
    let review = reviewed(&cluster, &renamed);
    assert_eq!(
        lines(&review.closed),
        ["shop/deploy/front*2 -> shop/sts/back*2: TCP 8080 | ingress Denied from-front"]
    );
    assert_eq!(lines(&review.opened), [""; 0]);
    let namespace =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let by_team = "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]";
    let review = reviewed(&format!("{SHOP}{}", policy("team", by_team)), namespace);
    assert_eq!(
        lines(&review.opened),
        [
            "shop/deploy/front*2 shop/sts/back*2 -> shop/sts/back*2: every port | ingress Allowed team"
        ]
    );
}

#[test]
fn nodes_and_addresses_outside_are_ends_too() {
    let blocks = "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}, {ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]}]";
    let review = reviewed(&format!("{CLUSTER}{SHOP}"), &policy("blocks", blocks));
    assert_eq!(
        lines(&review.closed),
        [
            "kube-system/coredns-1*1 monitoring/prometheus-0*1 shop/deploy/front*2 shop/sts/back*2 [192.168.0.1] 0.0.0.0/0[10.96.0.0/16 192.168.0.2/32 203.0.113.0/24] 203.0.113.128/25[] -> shop/sts/back*2: every port | ingress Denied blocks"
        ]
    );
}

#[test]
fn tiers_decide_before_and_after_policies() {
    let tier = |name: &str, tier: &str, action: &str| {
        format!(
            "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{tier: {tier}, priority: 1, subject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: back}}}}}}}}, ingress: [{{action: {action}, from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: front}}}}}}}}]}}]}}\n"
        )
    };
    let denied = reviewed(SHOP, &tier("no", "Admin", "Deny"));
    assert_eq!(
        lines(&denied.closed),
        ["shop/deploy/front*2 -> shop/sts/back*2: every port | ingress DeniedByRule no"]
    );
    let deny = format!(
        "{SHOP}{}",
        policy("deny", "podSelector: {matchLabels: {app: back}}")
    );
    let accepted = reviewed(&deny, &tier("yes", "Admin", "Accept"));
    assert_eq!(
        lines(&accepted.opened),
        ["shop/deploy/front*2 -> shop/sts/back*2: every port | ingress Allowed yes"]
    );
    let nothing = reviewed(&deny, &tier("late", "Baseline", "Accept"));
    assert_eq!(
        (lines(&nothing.opened), lines(&nothing.closed)),
        (Vec::new(), Vec::new())
    );
}

#[test]
fn families_are_told_where_they_differ() {
    let mut proposal = proposal(
        SHOP,
        &policy(
            "v4",
            "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]",
        ),
    );
    proposal.pod_ranges = vec![
        "10.5.0.0/16".parse().expect("a range"),
        "fd05::/64".parse().expect("a range"),
    ];
    let review = review(&proposal);
    let lines = lines(&review.closed);
    assert!(
        lines.iter().any(|line| line.starts_with("kube-system/dns (assumed)*1 shop/deploy/front*2 shop/sts/back*2 -> shop/sts/back*2: every port [IPv6] ")),
        "{lines:#?}"
    );
}

#[test]
fn the_same_again_changes_nothing() {
    let all = format!("{CLUSTER}{SHOP}{}", policy("deny", DENY));
    let review = reviewed(&all, &all);
    assert_eq!(review, Review::default());
}
