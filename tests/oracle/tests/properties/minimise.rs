//! Cutting a failing cluster down.

use std::collections::BTreeMap;

use weir_oracle::generate::{cluster, flows};
use weir_oracle::{Cluster, Flow, judge, minimise};

/// Some generated cluster and flow for which `wanted` holds.
fn find(wanted: impl Fn(&Cluster, &Flow) -> bool) -> (Cluster, Flow) {
    (0..100)
        .find_map(|seed| {
            let cluster = cluster(seed);
            let flow = flows(&cluster)
                .into_iter()
                .find(|flow| wanted(&cluster, flow))?;
            Some((cluster, flow))
        })
        .expect("100 clusters hold such a flow")
}

#[test]
fn a_denied_flow_needs_one_pod_and_one_policy_without_rules() {
    let denied = |cluster: &Cluster, flow: &Flow| {
        judge(cluster, flow)
            .ingress
            .is_some_and(|verdict| !verdict.allowed)
    };
    let (cluster, flow) = find(|cluster, flow| denied(cluster, flow) && cluster.policies.len() > 3);
    let small = minimise(cluster, |cluster| denied(cluster, &flow));
    assert!(denied(&small, &flow));
    assert_eq!(
        (small.pods.len(), small.policies.len()),
        (1, 1),
        "{small:#?}"
    );
    assert_eq!(
        (small.namespaces.len(), small.nodes.len()),
        (0, 0),
        "{small:#?}"
    );
    let spec = small.policies[0].spec.clone().unwrap_or_default();
    assert_eq!(spec.ingress.unwrap_or_default().len(), 0);
    assert_eq!(spec.egress.unwrap_or_default().len(), 0);
}

#[test]
fn what_the_failure_needs_stays_to_the_last_label() {
    // Allowed by a rule that picks its peers by namespace and labels, denied without that.
    let by_selector = |cluster: &Cluster, flow: &Flow| {
        let by_rule = |cluster: &Cluster| {
            judge(cluster, flow)
                .egress
                .is_some_and(|verdict| verdict.exempt.is_none() && !verdict.allowing.is_empty())
        };
        let mut unlabelled = cluster.clone();
        unlabelled
            .namespaces
            .iter_mut()
            .for_each(|namespace| namespace.metadata.labels = None);
        by_rule(cluster) && !by_rule(&unlabelled)
    };
    let (cluster, flow) =
        find(|cluster, flow| by_selector(cluster, flow) && cluster.policies.len() > 2);
    let small = minimise(cluster, |cluster| by_selector(cluster, &flow));
    assert!(by_selector(&small, &flow));
    assert_eq!(
        (
            small.pods.len(),
            small.policies.len(),
            small.namespaces.len()
        ),
        (2, 1, 1),
        "{small:#?}"
    );
    assert_eq!(
        small.namespaces[0]
            .metadata
            .labels
            .as_ref()
            .map_or(0, BTreeMap::len),
        1
    );
    let rules = small.policies[0]
        .spec
        .as_ref()
        .and_then(|spec| spec.egress.clone())
        .unwrap_or_default();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].to.as_ref().map_or(0, Vec::len), 1);
}

#[test]
fn a_cluster_of_which_nothing_can_go_is_returned_whole() {
    let whole = cluster(7);
    assert_eq!(minimise(whole.clone(), |smaller| *smaller == whole), whole);
}

#[test]
fn a_part_that_can_go_only_after_a_later_one_goes_too() {
    // Policies are tried before pods, and the last one can go only when no pod is left.
    let (cluster, _) = find(|cluster, _| !cluster.policies.is_empty());
    let small = minimise(cluster, |cluster| {
        cluster.pods.is_empty() || !cluster.policies.is_empty()
    });
    assert_eq!((small.pods.len(), small.policies.len()), (0, 0));
}
