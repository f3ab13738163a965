//! Lists of objects and flows, the same for a live agent and for files.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_common::abi::{BACKEND_SIDE, Flow, FlowKey, NAT, Side};

use crate::explain::details::subject;
use crate::explain::{self, Translation};
use crate::model::{
    AddressOwners, ClusterPolicy, Direction, Labels, ObjectName, Pod, Policy, Snapshot, Tier,
    TrafficPolicy,
};

/// An address and port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Where it leads.
    #[serde(flatten)]
    pub translation: Translation,
    /// Labels of the Service.
    #[serde(default)]
    pub labels: Labels,
    /// Its selector; empty for a Service without.
    #[serde(default)]
    pub selector: Labels,
    /// Its internalTrafficPolicy.
    #[serde(default)]
    pub internal_traffic_policy: TrafficPolicy,
    /// Its externalTrafficPolicy.
    #[serde(default)]
    pub external_traffic_policy: TrafficPolicy,
    /// Seconds for which a client keeps its endpoint; `None` without sessionAffinity.
    #[serde(default)]
    pub affinity_seconds: Option<u32>,
}

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    /// The pod.
    pub pod: ObjectName,
    /// Its node.
    #[serde(default)]
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The workload that made it, see [`Pod::workload`].
    #[serde(default)]
    pub workload: Option<ObjectName>,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Host end of its veth; `None` while not known.
    pub device: Option<String>,
    /// Policies with a say about connections to it, of every tier in order of weight.
    pub ingress: Vec<ObjectName>,
    /// Policies with a say about connections from it.
    pub egress: Vec<ObjectName>,
    /// Only the CNI plugin has told of it, the API not yet: it is cut off.
    #[serde(default)]
    pub unknown: bool,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// Its tier.
    pub tier: Tier,
    /// Its priority within the tier; `None` for a NetworkPolicy.
    pub priority: Option<u16>,
    /// The policy.
    pub policy: ObjectName,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// The pods that it is for, in words.
    #[serde(default)]
    pub subject: String,
    /// Number of ingress rules; `None` if it says nothing about ingress.
    pub ingress_rules: Option<usize>,
    /// Number of egress rules; `None` if it says nothing about egress.
    pub egress_rules: Option<usize>,
    /// Pods that it selects, in the whole cluster.
    pub pods: usize,
    /// Those of them on this node.
    pub local_pods: usize,
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who opened it.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// The pod there.
    #[serde(default)]
    pub source_pod: Option<ObjectName>,
    /// Who took it, after translation.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// The pod there.
    #[serde(default)]
    pub destination_pod: Option<ObjectName>,
    /// What it was addressed to, if a Service.
    pub service: Option<(IpAddr, u16)>,
    /// Packets from the opener and to it.
    pub packets: [u64; 2],
    /// Bytes from the opener and to it.
    pub bytes: [u64; 2],
    /// Rules that allowed it at the opener's and at the other end; 0 where no pod of this node is.
    pub rules: [u32; 2],
}

/// Every address and port of every Service, as the snapshot's node sees them.
#[must_use]
pub fn services(snapshot: &Snapshot) -> Vec<ServiceRow> {
    let rows = explain::services(snapshot).into_iter();
    rows.filter_map(|translation| {
        let service = snapshot.services.get(&translation.service)?;
        Some(ServiceRow {
            labels: service.labels.clone(),
            selector: service.selector.clone(),
            internal_traffic_policy: service.internal_traffic_policy,
            external_traffic_policy: service.external_traffic_policy,
            affinity_seconds: service.affinity_seconds,
            translation,
        })
    })
    .collect()
}

/// The pods of the snapshot's node that policies can select, and those of which the API has not told yet.
#[must_use]
pub fn pods(snapshot: &Snapshot) -> Vec<PodRow> {
    let cluster = by_weight(snapshot);
    let with_a_say = |pod: &Pod, direction: Direction| -> Vec<ObjectName> {
        let of_tier = |tier| {
            let policies = cluster.iter().filter(move |policy| policy.tier == tier);
            policies
                .filter(|policy| !policy.rules(direction).is_empty())
                .filter(|policy| cluster_selects(snapshot, policy, pod))
                .map(|policy| policy.name.clone())
        };
        let isolating = selecting(snapshot, pod)
            .filter(|policy| policy.rules(direction).is_some())
            .map(|policy| policy.name.clone());
        of_tier(Tier::Admin)
            .chain(isolating)
            .chain(of_tier(Tier::Baseline))
            .collect()
    };
    let device = |addresses: &[IpAddr]| {
        let devices = &snapshot.devices.devices;
        let device = addresses.iter().find_map(|address| devices.get(address));
        device.map(|device| device.name.clone())
    };
    let strangers = snapshot.strangers().map(|sandbox| PodRow {
        pod: sandbox.pod.clone(),
        node: snapshot.node_name.clone(),
        addresses: sandbox.addresses.clone(),
        workload: None,
        labels: Labels::new(),
        device: device(&sandbox.addresses),
        ingress: Vec::new(),
        egress: Vec::new(),
        unknown: true,
    });
    let pods = snapshot.pods.values();
    pods.filter(|pod| pod.owns_addresses() && pod.node == snapshot.node_name)
        .map(|pod| PodRow {
            pod: pod.name.clone(),
            node: pod.node.clone(),
            addresses: pod.ips.clone(),
            workload: pod.workload(),
            labels: pod.labels.clone(),
            device: device(&pod.ips),
            ingress: with_a_say(pod, Direction::Ingress),
            egress: with_a_say(pod, Direction::Egress),
            unknown: false,
        })
        .chain(strangers)
        .collect()
}

/// All policies in the order in which tiers are asked, with what they select.
#[must_use]
pub fn policies(snapshot: &Snapshot) -> Vec<PolicyRow> {
    let row = |empty: PolicyRow, selects: &dyn Fn(&Pod) -> bool| {
        let selected: Vec<&Pod> = snapshot
            .pods
            .values()
            .map(AsRef::as_ref)
            .filter(|pod| pod.owns_addresses() && selects(pod))
            .collect();
        let local = |pod: &&&Pod| pod.node == snapshot.node_name;
        PolicyRow {
            pods: selected.len(),
            local_pods: selected.iter().filter(local).count(),
            ..empty
        }
    };
    let cluster = by_weight(snapshot);
    let cluster = cluster.into_iter().map(|policy| {
        let count = |direction| Some(policy.rules(direction).len()).filter(|count| *count > 0);
        let empty = PolicyRow {
            tier: policy.tier,
            priority: Some(policy.priority),
            policy: policy.name.clone(),
            labels: policy.labels.clone(),
            subject: subject(Some(&policy.namespaces), &policy.pods),
            ingress_rules: count(Direction::Ingress),
            egress_rules: count(Direction::Egress),
            pods: 0,
            local_pods: 0,
        };
        row(empty, &|pod| cluster_selects(snapshot, policy, pod))
    });
    let namespaced = snapshot.policies.values().map(|policy| {
        let empty = PolicyRow {
            tier: Tier::NetworkPolicy,
            priority: None,
            policy: policy.name.clone(),
            labels: policy.labels.clone(),
            subject: subject(None, &policy.pod_selector),
            ingress_rules: policy.ingress.as_ref().map(Vec::len),
            egress_rules: policy.egress.as_ref().map(Vec::len),
            pods: 0,
            local_pods: 0,
        };
        row(empty, &|pod| selects(policy, pod))
    });
    let mut rows: Vec<PolicyRow> = cluster.chain(namespaced).collect();
    rows.sort_by_key(|row| row.tier);
    rows
}

/// All ClusterNetworkPolicies in order of weight.
fn by_weight(snapshot: &Snapshot) -> Vec<&ClusterPolicy> {
    let policies = snapshot.cluster_policies.values().map(AsRef::as_ref);
    let mut policies: Vec<&ClusterPolicy> = policies.collect();
    policies.sort_by_key(|policy| policy.weight());
    policies
}

fn cluster_selects(snapshot: &Snapshot, policy: &ClusterPolicy, pod: &Pod) -> bool {
    let namespace = snapshot.namespaces.get(&pod.name.namespace);
    policy.selects(namespace.map(|namespace| &namespace.labels), &pod.labels)
}

fn selecting<'s>(snapshot: &'s Snapshot, pod: &'s Pod) -> impl Iterator<Item = &'s Policy> {
    let policies = snapshot.policies.values().map(AsRef::as_ref);
    policies.filter(move |policy| selects(policy, pod))
}

fn selects(policy: &Policy, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace && policy.pod_selector.matches(&pod.labels)
}

/// Connections from conntrack entries, sorted, with the pods at their ends.
#[must_use]
pub fn named_flow_rows(flows: &[(FlowKey, Flow)], snapshot: &Snapshot) -> Vec<FlowRow> {
    let owners = AddressOwners::of(snapshot);
    let pod = |address: &IpAddr| owners.get(address).map(|pod| pod.name.clone());
    let mut rows = flow_rows(flows);
    for row in &mut rows {
        row.source_pod = pod(&row.source);
        row.destination_pod = pod(&row.destination);
    }
    rows
}

/// Connections from conntrack entries, sorted. Entries that only lead to another one are left out.
#[must_use]
pub fn flow_rows(flows: &[(FlowKey, Flow)]) -> Vec<FlowRow> {
    let mut rows: Vec<_> = flows
        .iter()
        .filter(|(_, flow)| flow.flags & BACKEND_SIDE != 0)
        .map(|(key, flow)| flow_row(key, flow))
        .collect();
    rows.sort();
    rows
}

fn flow_row(key: &FlowKey, flow: &Flow) -> FlowRow {
    let opener = match flow.opener() {
        Side::Low => 0,
        Side::High => 1,
    };
    let other = 1 - opener;
    FlowRow {
        protocol: key.protocol,
        source: key.addresses[opener].into(),
        source_port: flow.other_client_port().unwrap_or(key.ports[opener]),
        source_pod: None,
        destination: key.addresses[other].into(),
        destination_port: key.ports[other],
        destination_pod: None,
        service: (flow.flags & NAT != 0).then(|| (flow.nat_address.into(), flow.nat_port)),
        packets: [flow.packets[opener], flow.packets[other]],
        bytes: [flow.bytes[opener], flow.bytes[other]],
        rules: [flow.ends[opener].rule, flow.ends[other].rule],
    }
}
