//! Connections that nodes tell of, and that a change cuts.

use super::*;
use crate::flows::SeenEnd;
use crate::model::Protocol;

/// Two replicas of the front, one back, all on node n1; the second node is n2.
fn cluster() -> String {
    let pods = [
        made("front-abc-x1", "front", "10.1.0.20"),
        made("front-abc-x2", "front", "10.1.0.21"),
        made("back-abc-x1", "back", "10.1.0.30"),
    ];
    format!("{CLUSTER}{}", pods.concat())
}

/// Connections between addresses; `@` names the pod that had an address then.
fn seen(from: &str, to: &str, port: u16, connections: usize) -> Seen {
    let end = |text: &str| {
        let (address, pod) = match text.split_once('@') {
            Some((address, pod)) => (address, Some(ObjectName::new("shop", pod))),
            None => (text, None),
        };
        let address = address.parse().unwrap();
        SeenEnd { address, pod }
    };
    Seen {
        from: end(from),
        to: end(to),
        protocol: Protocol::Tcp,
        port,
        connections,
    }
}

/// What the guard finds where the back gets connections from one app only, at one port.
fn found(allowed: &str, nodes: &[&[Seen]], more: &str) -> Vec<Finding> {
    let spec = format!(
        "podSelector: {{matchLabels: {{app: back}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {allowed}}}}}}}], ports: [{{port: 8080}}]}}]"
    );
    let proposal = Proposal {
        seen: nodes.iter().map(|seen| seen.to_vec()).collect(),
        ..proposal(&cluster(), &format!("{more}{}", policy("in", &spec)))
    };
    let mut findings = review(&proposal).findings;
    findings.retain(|finding| finding.guard == Guard::InUse);
    findings
}

fn messages(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|it| it.message.as_str()).collect()
}

#[test]
fn what_is_used_and_would_be_cut_is_found_once_for_each_pair_of_workloads() {
    let here = [
        seen("10.1.0.20", "10.1.0.30", 8080, 3),
        seen("10.1.0.20@front-abc-x1", "10.1.0.30@back-abc-x1", 8080, 1),
        seen("10.1.0.21", "10.1.0.30", 8080, 1),
        seen("10.1.0.21", "10.1.0.30", 9090, 1),
        // From outside, from another node, and a probe of the own one.
        seen("203.0.113.1", "10.1.0.30", 8080, 1),
        seen("203.0.113.2", "10.1.0.30", 8080, 1),
        seen("192.168.0.2", "10.1.0.30", 8080, 1),
        seen("192.168.0.1", "10.1.0.30", 8080, 1),
        // Not of the policy's pod.
        seen("10.1.0.30", "10.1.0.20", 8080, 1),
    ];
    // The nodes of both ends tell of the same connections, each as far as it knows.
    let there = [here[0].clone()];
    let lost = "does not reach shop/deploy/back at TCP";
    let lately = "seen lately";
    assert_eq!(
        messages(&found("other", &[&here, &there], "")),
        [
            format!("node n2 {lost} 8080 any more: 1 connection was {lately}"),
            format!("shop/deploy/front {lost} 8080 any more: 5 connections were {lately}"),
            format!("shop/deploy/front {lost} 9090 any more: 1 connection was {lately}"),
            format!(
                "who is outside {lost} 8080 any more (outside: 203.0.113.1, 203.0.113.2): 2 connections were {lately}"
            ),
        ]
    );
    let kept = found("front", &[&here[..3]], "");
    assert_eq!(messages(&kept), [""; 0]);
}

#[test]
fn a_finding_names_the_policy_and_what_would_mend_it() {
    let findings = found("other", &[&[seen("10.1.0.20", "10.1.0.30", 8080, 1)]], "");
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.policies, [ObjectName::new("shop", "in")]);
    assert_eq!(finding.locations.len(), 1);
    assert!(
        finding
            .fixes
            .iter()
            .any(|fix| fix.yaml.contains("app: front")),
        "{finding:?}"
    );
}

#[test]
fn what_is_gone_is_not_taken_for_what_has_its_address() {
    for gone in [
        seen("10.1.0.20@front-abc-x9", "10.1.0.30", 8080, 1),
        seen("10.1.0.99@front-abc-x9", "10.1.0.30", 8080, 1),
        seen("10.1.0.20", "10.1.0.30@back-abc-x9", 8080, 1),
    ] {
        assert_eq!(messages(&found("other", &[&[gone]], "")), [""; 0]);
    }
}

#[test]
fn workloads_that_are_applied_stand_for_the_pods_that_they_made() {
    let replicas = [
        seen("10.1.0.20", "10.1.0.30", 8080, 1),
        seen("10.1.0.21", "10.1.0.30", 8080, 1),
        // Between replicas.
        seen("10.1.0.20", "10.1.0.21", 8080, 1),
    ];
    // With the workload come labels that the policy lets in, or not.
    assert_eq!(messages(&found("front", &[&replicas], SHOP)), [""; 0]);
    let renamed = SHOP.replace("labels: {app: front}", "labels: {app: new}");
    let lost = "shop/deploy/front does not reach shop/deploy/back at TCP 8080 any more: 2 connections were seen lately";
    assert_eq!(messages(&found("front", &[&replicas], &renamed)), [lost]);
}

#[test]
fn what_did_not_pass_before_is_not_cut() {
    let closed = policy(
        "before",
        "podSelector: {matchLabels: {app: back}}, ingress: []",
    );
    let manifests = policy(
        "before",
        "podSelector: {matchLabels: {app: front}}, policyTypes: [Egress]",
    );
    let proposal = Proposal {
        // A record of a time when there was no policy yet.
        seen: vec![vec![seen("10.1.0.20", "10.1.0.30", 8080, 1)]],
        ..proposal(&format!("{}{closed}", cluster()), &manifests)
    };
    let findings = review(&proposal).findings;
    assert!(
        findings.iter().all(|it| it.guard != Guard::InUse),
        "{findings:?}"
    );
}
