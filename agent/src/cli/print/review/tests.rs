use std::path::Path;

use super::super::sarif;
use super::*;
use crate::cli::print::json;
use crate::review::{Proposal, review as ask};
use crate::source::manifests;

const REPOSITORY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: front}
spec: {template: {metadata: {labels: {app: front}}, spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: back}
spec: {template: {metadata: {labels: {app: back}}, spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: deny-back}
spec: {podSelector: {matchLabels: {app: back}}}
";

const CHANGE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: front}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: back}
spec:
  podSelector: {matchLabels: {app: back}}
  ingress: [{from: [{podSelector: {matchLabels: {app: front}}}, {podSelector: {matchLabels: {app: frnot}}}], ports: [{port: 8080}]}]
";

/// A change of a repository, with a line of another's hand that is not to be read as Markdown.
fn answer() -> Review {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        manifests::read(&[path], false).unwrap()
    };
    let (before, change) = (
        write("before.yaml", REPOSITORY),
        write("change.yaml", CHANGE),
    );
    let locations = change.locations.into_iter().map(|(key, mut location)| {
        location.file = Path::new("./deploy/my policies").join("change.yaml");
        (key, location)
    });
    ask(&Proposal {
        cluster: before.objects,
        manifests: change.objects,
        locations: locations.collect(),
        ..Proposal::default()
    })
}

#[test]
fn a_review_for_a_terminal() {
    insta::assert_snapshot!(review(&answer(), false));
}

#[test]
fn a_review_as_a_comment() {
    insta::assert_snapshot!(review_markdown(&answer()));
}

#[test]
fn a_review_as_json_comes_back_the_same() {
    let text = json("Review", &answer()).unwrap();
    insta::assert_snapshot!(text);
    assert_eq!(serde_json::from_str::<Review>(&text).unwrap(), answer());
}

#[test]
fn a_review_for_code_scanning() {
    let text = sarif(&answer()).unwrap();
    let log: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = log["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter();
    let ids: Vec<_> = ids.map(|rule| &rule["id"]).collect();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .all(|result| ids.contains(&&result["ruleId"])),
        "{results:?}"
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(results).unwrap());
}

#[test]
fn a_review_of_nothing_says_so() {
    assert_eq!(
        review(&Review::default(), false),
        "No connection opens or closes.\n\nGroups of connections that close: 0, that open: 0. Found by guards: 0.\n"
    );
}

#[test]
fn markdown_is_not_made_by_names() {
    assert_eq!(
        escaped("a|b*c`d<e>\n[f]_\\"),
        "a\\|b\\*c\\`d\\<e\\> \\[f\\]\\_\\\\"
    );
}
