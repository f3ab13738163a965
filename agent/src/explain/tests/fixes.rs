//! The policies that are printed, word by word.

use crate::compile::testing;
use crate::explain::{Fix, Verdict};

use super::cluster::{Cluster, shop};

const DENY: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
const NOBODY_IN: &str = "{podSelector: {}, policyTypes: [Ingress]}";

/// What is printed; once it is applied, the connection passes.
fn fixes(closed: &Cluster, source: &str, destination: &str) -> Vec<Fix> {
    let answer = closed.ask(source, destination);
    assert_ne!(answer.verdict, Verdict::Allowed, "{source} {destination}");
    let again = closed.fixed(&answer).ask(source, destination);
    assert_eq!(again.verdict, Verdict::Allowed, "{source} {destination}");
    answer.fixes
}

fn printed(closed: &Cluster, source: &str, destination: &str) -> String {
    let fixes = fixes(closed, source, destination).into_iter();
    let fixes: Vec<_> = fixes
        .map(|fix| format!("# {}\n{}", fix.title, fix.yaml))
        .collect();
    format!("## {source} {destination}\n{}", fixes.join("---\n"))
}

/// A pod of each kind that is named in another way.
fn named() -> Cluster {
    shop()
        .pod("web/bare", "n1", "10.1.0.20", "", "")
        .pod("shop/bare", "n1", "10.1.0.21", "", "")
        .pod(
            "web/odd",
            "n1",
            "10.1.0.22",
            "tier=x,pod-template-hash=1a",
            "",
        )
        .pod(
            "web/usual",
            "n1",
            "10.1.0.23",
            "app.kubernetes.io/name=web,app=web,tier=x",
            "",
        )
        .pod("web/database", "n1", "10.1.0.24", "app=database", "")
        .rule("shop/deny", NOBODY_IN)
}

#[test]
fn peers_are_named_by_what_they_are() {
    let closed = named();
    let all = [
        "web/bare",
        "shop/bare",
        "web/odd",
        "web/usual",
        "192.168.0.1",
        "203.0.113.7",
    ]
    .map(|source| printed(&closed, source, "10.2.0.4:5432"));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn subjects_are_those_that_are_isolated_already() {
    let labelled = "{podSelector: {matchLabels: {app: database, tier: x}, matchExpressions: [{key: app, operator: In, values: [database]}, {key: tier, operator: In, values: [x, z]}, {key: zone, operator: NotIn, values: [z]}, {key: app, operator: Exists}, {key: gone, operator: DoesNotExist}]}, policyTypes: [Ingress]}";
    let closed = shop()
        .edit_pod("shop/database", |pod| {
            pod.labels.insert("tier".to_owned(), "x".to_owned());
        })
        .pod("shop/other", "n1", "10.1.0.30", "app=database", "")
        .rule("shop/deny", labelled);
    let some = printed(&closed, "web/frontend", "10.2.0.4:5432");
    // What looks like it elsewhere, has ended, or has the node's address is nobody that the policy would isolate.
    let closed = named()
        .pod("shop/ended", "n1", "10.1.0.31", "app=database", "")
        .edit_pod("shop/ended", |pod| pod.terminal = true)
        .pod("shop/host", "n1", "192.168.0.1", "app=database", "")
        .host_network("shop/host");
    let all = printed(&closed, "web/frontend", "10.2.0.4:5432");
    insta::assert_snapshot!([some, all].join("\n"));
}

#[test]
fn names_that_are_taken_are_not_given_again() {
    let other = "{podSelector: {matchLabels: {app: none}}, policyTypes: [Ingress]}";
    let closed = shop()
        .rule("shop/deny", NOBODY_IN)
        .rule("shop/allow-from-frontend-5432", other)
        .rule("shop/allow-from-frontend-5432-2", other);
    let printed = printed(&closed, "web/frontend", "shop/database");
    assert!(
        printed.contains("name: allow-from-frontend-5432-3\n"),
        "{printed}"
    );
}

#[test]
fn lookups_are_opened_for_all_and_by_what_the_service_selects() {
    let labelled = shop().edit_pod("kube-system/dns", |pod| {
        pod.labels.insert("app".to_owned(), "coredns".to_owned());
    });
    let closed = labelled
        .clone()
        .rule("shop/deny", DENY)
        .rule("kube-system/deny", DENY)
        .pod("kube-system/other", "n1", "10.1.0.40", "app=other", "");
    // The Service selects other pods than it lists, or none.
    let selecting = |labels: &[(&str, &str)]| {
        closed
            .clone()
            .edit_service("kube-system/kube-dns", |service| {
                service.selector = testing::labels(labels);
            })
    };
    // Some pods are isolated, by several policies: the widest of these.
    let narrow = "{podSelector: {matchLabels: {app: backend, pod-template-hash: 1a}}, policyTypes: [Egress]}";
    let wide = "{podSelector: {matchLabels: {app: backend}}, policyTypes: [Egress]}";
    let some = labelled.rule("shop/a", narrow).rule("shop/b", wide);
    let service = "10.96.0.53:53/UDP";
    let pod = "10.1.0.9:5353/UDP";
    let ingress = |from: &str| {
        format!("ingress of all pods in namespace kube-system: from {from} on TCP 5353, UDP 5353")
    };
    let egress = |subject: &str, to: &str| {
        format!("egress of {subject} in namespace {to} on TCP 5353, UDP 5353")
    };
    let shop = ingress("all pods in namespaces kubernetes.io/metadata.name=shop");
    let home = "in namespaces kubernetes.io/metadata.name=kube-system";
    let by_selector = format!("shop: to pods k8s-app=kube-dns {home}");
    let by_selector = |subject| egress(subject, &by_selector);
    let by_labels = egress(
        "all pods",
        &format!("shop: to pods app=coredns,k8s-app=kube-dns {home}"),
    );
    let own = [
        ingress("all pods in the policy's namespace"),
        egress(
            "all pods",
            "kube-system: to pods k8s-app=kube-dns in the policy's namespace",
        ),
    ];
    let others = selecting(&[("k8s-app", "other")]);
    let none = selecting(&[]);
    let both = [shop.clone(), by_selector("all pods")];
    let by_labels = [shop, by_labels];
    for (cluster, source, destination, wanted) in [
        (&closed, "shop/backend-1", service, &both[..]),
        (&closed, "shop/backend-1", pod, &both),
        (&others, "shop/backend-1", service, &by_labels),
        (&others, "shop/backend-1", pod, &by_labels),
        (&none, "shop/backend-1", service, &by_labels),
        (&none, "shop/backend-1", pod, &by_labels),
        (&closed, "kube-system/other", service, &own),
        (&closed, "192.168.0.2", pod, &[ingress("192.168.0.2/32")]),
        (
            &some,
            "shop/backend-1",
            service,
            &[by_selector("pods app=backend")],
        ),
    ] {
        let titles = fixes(cluster, source, destination).into_iter();
        let titles: Vec<_> = titles.map(|fix| fix.title).collect();
        assert_eq!(titles, wanted, "{source} {destination}");
    }
}

#[test]
fn lookups_from_outside_are_opened_for_whom_policies_see() {
    let closed = shop()
        .edit_service("kube-system/kube-dns", |service| {
            service.external_ips = vec!["192.0.2.53".parse().unwrap()];
        })
        .rule("kube-system/deny", NOBODY_IN);
    for (node, peer) in [("n1", "203.0.113.7"), ("n2", "192.168.0.2")] {
        let mut cluster = closed.clone();
        cluster.0.node_name = node.to_owned();
        let titles = fixes(&cluster, "203.0.113.7", "192.0.2.53:53/UDP");
        let titles: Vec<_> = titles.into_iter().map(|fix| fix.title).collect();
        let wanted = format!(
            "ingress of all pods in namespace kube-system: from {peer}/32 on TCP 5353, UDP 5353"
        );
        assert_eq!(titles, [wanted], "comes in by {node}");
    }
}
