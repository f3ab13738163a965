//! Does a rule's `from` or `to` match an address?

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::pods::{labels, namespace};
use crate::{Cluster, block_contains, owner, selects};

/// The label that an API server puts on every namespace, with the namespace's name.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether any peer matches. No peers: every address, of pods, nodes and the world.
///
/// `policy_namespace` is what a `podSelector` without `namespaceSelector` is confined to.
pub(crate) fn match_address(
    cluster: &Cluster,
    policy_namespace: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    address: IpAddr,
) -> bool {
    match peers {
        None | Some([]) => true,
        Some(peers) => peers
            .iter()
            .any(|peer| peer_matches(cluster, policy_namespace, peer, address)),
    }
}

fn peer_matches(
    cluster: &Cluster,
    policy_namespace: &str,
    peer: &NetworkPolicyPeer,
    address: IpAddr,
) -> bool {
    let pod_in = |namespace_matches: &dyn Fn(&Pod) -> bool, pods: Option<&LabelSelector>| {
        owner(cluster, address).is_some_and(|pod| {
            namespace_matches(pod)
                && pods.is_none_or(|selector| selects(selector, labels(&pod.metadata)))
        })
    };
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => block_contains(block, address),
        (None, Some(namespaces), pods) => pod_in(
            &|pod| namespace_selected(cluster, namespaces, namespace(&pod.metadata)),
            pods.as_ref(),
        ),
        (None, None, Some(pods)) => pod_in(
            &|pod| namespace(&pod.metadata) == policy_namespace,
            Some(pods),
        ),
        // Validation refuses a peer with no field, and `ipBlock` beside a selector.
        (None, None, None) | (Some(_), _, _) => false,
    }
}

/// Whether the namespace of that name is there and selected.
pub(crate) fn namespace_selected(cluster: &Cluster, selector: &LabelSelector, name: &str) -> bool {
    let mut namespaces = cluster.namespaces.iter();
    namespaces
        .find(|namespace| namespace.metadata.name.as_deref() == Some(name))
        .is_some_and(|namespace| {
            let mut labels = labels(&namespace.metadata).clone();
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
            selects(selector, &labels)
        })
}
