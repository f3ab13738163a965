//! Which pod an address belongs to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{Cluster, parse_address};

/// The pod that owns `address`: a live pod on the pod network whose status shows it.
///
/// A pod that has succeeded or failed keeps showing an address that may be another pod's by now.
/// Of several live pods the one with the newest `creationTimestamp` owns the address; of equally
/// old ones the one with the greatest UID.
pub fn owner(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    cluster
        .pods
        .iter()
        .filter(|pod| on_pod_network(pod) && addresses(pod).contains(&address))
        .max_by_key(|pod| {
            (
                &pod.metadata.creation_timestamp,
                &pod.metadata.uid,
                &pod.metadata.name,
            )
        })
}

/// Whether policies can apply to the pod at all: it is not on the host's network and not over.
/// A pod that is being deleted still counts until its containers have stopped.
pub fn on_pod_network(pod: &Pod) -> bool {
    let host_network = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false);
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !host_network && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Every address that the pod's status shows, of either family.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status
        .pod_ips
        .iter()
        .flatten()
        .map(|entry| entry.ip.as_str());
    let mut found: Vec<IpAddr> = listed
        .chain(status.pod_ip.as_deref())
        .filter_map(parse_address)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Name of the node that runs the pod.
pub(crate) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Namespace of an object; `default` if it names none.
pub(crate) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

/// Labels of an object.
pub(crate) fn labels(metadata: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    metadata.labels.as_ref().unwrap_or(&NONE)
}
