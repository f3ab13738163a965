//! What the guards find, and what they leave alone.

use super::*;

fn found(review: &Review) -> Vec<String> {
    let findings = review.findings.iter();
    findings
        .map(|it| format!("{}: {}", it.guard.as_str(), it.message))
        .collect()
}

const DNS_RULE: &str = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: PORT, protocol: UDP}TCP]}";

fn egress(rules: &str) -> String {
    policy(
        "out",
        &format!(
            "podSelector: {{matchLabels: {{app: front}}}}, policyTypes: [Egress], egress: [{rules}]"
        ),
    )
}

fn dns(port: u16, tcp: bool) -> String {
    let tcp = if tcp {
        format!(", {{port: {port}}}")
    } else {
        String::new()
    };
    egress(
        &DNS_RULE
            .replace("PORT", &port.to_string())
            .replace("TCP", &tcp),
    )
}

#[test]
fn lookups_that_are_cut_off_are_found() {
    let cluster = format!("{CLUSTER}{SHOP}");
    // In a repository alone DNS pods are assumed to listen on 53; a Service tells where they do.
    for (cluster, manifests, protocols) in [
        (SHOP, egress(""), &["UDP and TCP"][..]),
        (SHOP, dns(53, true), &[]),
        (SHOP, dns(53, false), &["TCP"]),
        (&cluster, dns(5353, true), &[]),
        (&cluster, dns(53, true), &["UDP and TCP"]),
        (&cluster, policy("in", "podSelector: {}"), &[]),
    ] {
        let review = reviewed(cluster, &manifests);
        let findings: Vec<_> = review
            .findings
            .iter()
            .filter(|it| it.guard == Guard::Dns)
            .collect();
        let messages: Vec<_> = findings.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(messages.len(), protocols.len(), "{manifests} {messages:?}");
        for protocol in protocols {
            let start = format!("shop/deploy/front cannot look names up by {protocol}");
            assert!(
                messages.iter().any(|it| it.starts_with(&start)),
                "{messages:?}"
            );
        }
        for finding in findings {
            assert_eq!(finding.policies, [ObjectName::new("shop", "out")]);
            assert_eq!(finding.locations[0].line, 2);
            assert!(
                finding.fixes[0].yaml.contains("name: allow-dns"),
                "{:?}",
                finding.fixes
            );
        }
    }
}

#[test]
fn the_fix_that_is_offered_mends_it() {
    let review = reviewed(SHOP, &egress(""));
    let fixes: Vec<_> = review
        .findings
        .iter()
        .flat_map(|it| &it.fixes)
        .map(|fix| fix.yaml.clone())
        .collect();
    let mended = reviewed(SHOP, &format!("{}---\n{}", egress(""), fixes[0]));
    assert_eq!(found(&mended), [""; 0]);
}

#[test]
fn lookups_that_were_cut_off_before_are_not_this_changes_doing() {
    let cluster = format!("{SHOP}{}", egress(""));
    let other = policy("in", "podSelector: {matchLabels: {app: back}}");
    assert_eq!(found(&reviewed(&cluster, &other)), [""; 0]);
    // But a workload that comes to where they are is told of.
    let mut lonely = proposal(&egress(""), SHOP);
    lonely.replaces = false;
    let found = found(&review(&lonely));
    assert!(
        found
            .iter()
            .any(|it| it.starts_with("dns: shop/deploy/front cannot")),
        "{found:?}"
    );
}

#[test]
fn the_api_server_is_missed_by_those_who_had_it() {
    let cluster = format!("{CLUSTER}{SHOP}");
    let allowed = "{to: [{ipBlock: {cidr: 192.168.0.1/32}}], ports: [{port: 6443}]}";
    let by_cluster_ip = "{to: [{ipBlock: {cidr: 10.96.0.1/32}}], ports: [{port: 443}]}";
    for (cluster, rules, guards) in [
        (&*cluster, "", &["shop/deploy/front"][..]),
        (&cluster, allowed, &[]),
        (&cluster, by_cluster_ip, &["shop/deploy/front"]),
        (SHOP, "", &[]),
    ] {
        let review = reviewed(cluster, &egress(rules));
        let lost = review
            .findings
            .iter()
            .filter(|it| it.guard == Guard::ApiServer);
        let lost: Vec<_> = lost
            .map(|it| it.message.split(' ').next().unwrap_or_default())
            .collect();
        assert_eq!(lost, guards, "{rules}");
    }
    let fresh = reviewed(CLUSTER, &format!("{SHOP}{}", egress("")));
    assert!(!fresh.findings.iter().any(|it| it.guard == Guard::ApiServer));
}

#[test]
fn metrics_that_prometheus_cannot_read_any_more_are_found() {
    let scraped = |how: &str| {
        let shop = match how {
            "name" => SHOP.replace("name: http, containerPort: 8080", "name: metrics, containerPort: 8080"),
            "annotation" => SHOP.replace(
                "{metadata: {labels: {app: back}}",
                "{metadata: {annotations: {prometheus.io/scrape: 'true', prometheus.io/port: '9102'}, labels: {app: back}}",
            ),
            _ => SHOP.to_owned(),
        };
        format!("{CLUSTER}{shop}")
    };
    let deny = policy("in", "podSelector: {matchLabels: {app: back}}");
    let allow = policy(
        "in",
        "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{namespaceSelector: {}}]}]",
    );
    for (how, manifests, port) in [
        ("name", &deny, Some(8080)),
        ("annotation", &deny, Some(9102)),
        ("annotation", &allow, None),
        ("", &deny, None),
    ] {
        let review = reviewed(&scraped(how), manifests);
        let expected = port.map(|port| {
            format!(
                "metrics: shop/sts/back cannot be scraped by Prometheus any more at port {port}"
            )
        });
        assert_eq!(found(&review), Vec::from_iter(expected), "{how}");
    }
}

#[test]
fn selectors_that_nothing_matches_are_found_with_what_was_meant() {
    let cluster = format!("{CLUSTER}{SHOP}");
    let from = |peer: &str| format!("podSelector: {{}}, ingress: [{{from: [{peer}]}}]");
    for (world, spec, guard, told) in [
        (
            SHOP,
            "podSelector: {matchLabels: {app: fornt}}".to_owned(),
            Some(Guard::SelectsNothing),
            "did you mean app=front",
        ),
        (
            SHOP,
            "podSelector: {matchLabels: {k8s-app: front}}".to_owned(),
            Some(Guard::SelectsNothing),
            "did you mean app=front",
        ),
        // Another repository may have it.
        (
            SHOP,
            "podSelector: {matchLabels: {app: warehouse}}".to_owned(),
            None,
            "",
        ),
        (
            &cluster,
            "podSelector: {matchLabels: {app: warehouse}}".to_owned(),
            Some(Guard::SelectsNothing),
            "mend the selector",
        ),
        (
            SHOP,
            from("{podSelector: {matchLabels: {app: bakc}}}"),
            Some(Guard::PeerMatchesNothing),
            "did you mean app=back",
        ),
        (
            SHOP,
            from("{podSelector: {matchLabels: {app: back}}}"),
            None,
            "",
        ),
        (
            SHOP,
            from("{podSelector: {matchExpressions: [{key: ap, operator: Exists}]}}"),
            Some(Guard::PeerMatchesNothing),
            "did you mean app=",
        ),
        (
            SHOP,
            from("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shpo}}}"),
            None,
            "",
        ),
        (
            &cluster,
            from("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitorng}}}"),
            Some(Guard::PeerMatchesNothing),
            "metadata.name=monitoring",
        ),
        (
            &cluster,
            from("{namespaceSelector: {matchLabels: {name: monitoring}}}"),
            Some(Guard::PeerMatchesNothing),
            "kubernetes.io/metadata.name=monitoring",
        ),
    ] {
        let review = reviewed(world, &policy("a", &spec));
        let selectors = [Guard::SelectsNothing, Guard::PeerMatchesNothing];
        let findings = review
            .findings
            .iter()
            .filter(|it| selectors.contains(&it.guard));
        let findings: Vec<_> = findings.collect();
        assert_eq!(
            findings.first().map(|it| it.guard),
            guard,
            "{spec} {findings:?}"
        );
        assert!(
            findings.iter().all(|it| it.hint.contains(told)),
            "{findings:?}"
        );
    }
}

#[test]
fn policies_that_stay_as_they_are_are_not_reviewed() {
    let slip = policy("a", "podSelector: {matchLabels: {app: fornt}}");
    let cluster = format!("{SHOP}{slip}");
    assert_eq!(found(&reviewed(&cluster, &slip)), [""; 0]);
}

#[test]
fn blocks_of_services_and_pods_are_found() {
    let cluster = format!("{CLUSTER}{SHOP}");
    for (cidr, guard) in [
        ("10.96.0.10/32", Some(Guard::VirtualAddress)),
        ("10.96.0.0/20", Some(Guard::VirtualAddress)),
        ("10.0.0.0/8", None),
        ("0.0.0.0/0", None),
        ("10.1.0.9/32", Some(Guard::PodAddress)),
        ("10.1.0.0/24", Some(Guard::PodAddress)),
        ("10.1.0.0/16", None),
        ("192.168.0.1/32", None),
    ] {
        let spec =
            format!("podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]");
        let mut proposal = proposal(&cluster, &policy("a", &spec));
        proposal.pod_ranges = vec!["10.1.0.0/16".parse().expect("a range")];
        let review = review(&proposal);
        let found: Vec<_> = review.findings.iter().map(|it| it.guard).collect();
        assert_eq!(found, Vec::from_iter(guard), "{cidr}");
    }
}

#[test]
fn rules_that_another_one_makes_needless_are_found() {
    const BACK: &str = "{podSelector: {matchLabels: {app: back}}}";
    const BACK_DB: &str = "{podSelector: {matchLabels: {app: back, db: a}}}";
    const ANYWHERE: &str = "{namespaceSelector: {}}";
    const ELSEWHERE: &str = "{namespaceSelector: {matchLabels: {team: a}}}";
    let rule = |peer: &str, ports: &str| format!("{{from: [{peer}], ports: [{ports}]}}");
    let block =
        |cidr: &str, except: &str| format!("{{ipBlock: {{cidr: {cidr}, except: [{except}]}}}}");
    for (first, second, shadowed) in [
        (rule(BACK, ""), rule(BACK, ""), Some(1)),
        (rule("", ""), rule(BACK, "{port: 80}"), Some(1)),
        (rule(BACK, "{port: 80}"), rule("", ""), Some(0)),
        (rule(BACK, "{port: 80}"), rule("", "{port: 81}"), None),
        (
            rule(BACK, "{port: 80, endPort: 90}"),
            rule(BACK, "{port: 80}, {port: 90}"),
            Some(1),
        ),
        (
            rule(BACK, "{port: 80, endPort: 90}"),
            rule(BACK, "{port: 80}, {port: 91}"),
            None,
        ),
        (
            rule(BACK, "{protocol: TCP}"),
            rule(BACK, "{port: web}"),
            Some(1),
        ),
        (
            rule(BACK, "{protocol: UDP}"),
            rule(BACK, "{port: 80}"),
            None,
        ),
        (rule(BACK, "{port: web}"), rule(BACK, "{port: 80}"), None),
        // Protocols without ports need a rule without ports.
        (
            rule(BACK, "{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}"),
            rule(BACK, ""),
            Some(0),
        ),
        (rule(BACK, ""), rule(BACK_DB, ""), Some(1)),
        (rule(BACK_DB, ""), rule(BACK, ""), Some(0)),
        (rule("{podSelector: {}}", ""), rule(BACK, ""), Some(1)),
        (rule(ANYWHERE, ""), rule(BACK, ""), Some(1)),
        (rule(ELSEWHERE, ""), rule(BACK, ""), None),
        (rule(BACK, ""), rule(ELSEWHERE, ""), None),
        (
            rule(&block("198.51.100.0/24", ""), ""),
            rule(&block("198.51.100.8/29", ""), ""),
            Some(1),
        ),
        (
            rule(&block("198.51.100.0/24", "198.51.100.8/32"), ""),
            rule(&block("198.51.100.8/29", ""), ""),
            None,
        ),
        (
            rule(&block("198.51.100.0/24", "198.51.100.8/32"), ""),
            rule(&block("198.51.100.8/29", "198.51.100.8/32"), ""),
            Some(1),
        ),
        (
            rule(&block("198.51.100.0/24", "198.51.100.128/25"), ""),
            rule(&block("198.51.100.8/29", ""), ""),
            Some(1),
        ),
        (
            rule(&block("198.51.100.0/25", ""), ""),
            rule(&block("198.51.100.0/24", ""), ""),
            Some(0),
        ),
        (rule(&block("0.0.0.0/0", ""), ""), rule(BACK, ""), None),
    ] {
        let spec = format!("podSelector: {{}}, ingress: [{first}, {second}]");
        let review = reviewed(SHOP, &policy("a", &spec));
        let found = review
            .findings
            .iter()
            .filter(|it| it.guard == Guard::Shadowed);
        let found: Vec<_> = found.map(|it| it.message.as_str()).collect();
        let told = shadowed.map(|index| format!("ingress[{index}] of policy shop/a decides nothing: ingress[{}] matches all that it does", 1 - index));
        assert_eq!(found, Vec::from_iter(told.as_deref()), "{spec}");
    }
}

#[test]
fn of_a_cluster_policy_only_rules_before_make_others_needless() {
    let tiers = |first: &str, second: &str| {
        format!(
            "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: tiers}}
spec:
  tier: Admin
  priority: 1
  subject: {{namespaces: {{}}}}
  ingress: [{first}, {second}]
"
        )
    };
    let all = "{action: Deny, from: [{namespaces: {}}]}";
    let some = "{action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}";
    for (first, second, expected) in [(all, some, 1), (some, all, 0)] {
        let review = reviewed(SHOP, &tiers(first, second));
        let found = review
            .findings
            .iter()
            .filter(|it| it.guard == Guard::Shadowed);
        assert_eq!(found.count(), expected, "{first} {second}");
    }
}

#[test]
fn policies_that_are_there_are_linted_as_if_they_came() {
    let read = |manifests: &str| proposal(manifests, "").cluster;
    let slip = policy("slip", "podSelector: {matchLabels: {app: fornt}}");
    let cut = egress("{to: [{podSelector: {matchLabels: {app: back}}}]}");
    let fine = policy(
        "fine",
        "podSelector: {matchLabels: {app: back}}, ingress: [{from: [{podSelector: {matchLabels: {app: front}}}]}]",
    );
    for (policies, expected) in [
        (slip, &[Guard::SelectsNothing][..]),
        // Lookups by UDP and TCP are lost for one reason.
        (cut, &[Guard::Dns]),
        (fine, &[]),
        (String::new(), &[]),
    ] {
        let findings = lint(read(&format!("{CLUSTER}{SHOP}{policies}")));
        let found: Vec<_> = findings.iter().map(|it| it.guard).collect();
        assert_eq!(found, expected, "{policies} {findings:?}");
    }
}
