//! Lists of objects and flows, the same for a live agent and for files.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_common::abi::{BACKEND_SIDE, Flow, FlowKey, NAT, Side};

use crate::model::{Direction, ObjectName, Pod, Policy, Snapshot};

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    /// The pod.
    pub pod: ObjectName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Host end of its veth; `None` while not known.
    pub device: Option<String>,
    /// Policies that isolate it for connections to it.
    pub ingress: Vec<ObjectName>,
    /// Policies that isolate it for connections from it.
    pub egress: Vec<ObjectName>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// The policy.
    pub policy: ObjectName,
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
    /// Who took it, after translation.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// What it was addressed to, if a Service.
    pub service: Option<(IpAddr, u16)>,
    /// Packets from the opener and to it.
    pub packets: [u64; 2],
    /// Bytes from the opener and to it.
    pub bytes: [u64; 2],
    /// Rules that allowed it at the opener's and at the other end; 0 where no pod of this node is.
    pub rules: [u32; 2],
}

/// The pods of the snapshot's node that policies can select.
#[must_use]
pub fn pods(snapshot: &Snapshot) -> Vec<PodRow> {
    let isolating = |pod: &Pod, direction: Direction| -> Vec<ObjectName> {
        selecting(snapshot, pod)
            .filter(|policy| policy.rules(direction).is_some())
            .map(|policy| policy.name.clone())
            .collect()
    };
    snapshot
        .pods
        .values()
        .filter(|pod| pod.owns_addresses() && pod.node == snapshot.node_name)
        .map(|pod| PodRow {
            pod: pod.name.clone(),
            addresses: pod.ips.clone(),
            device: pod
                .ips
                .iter()
                .find_map(|ip| snapshot.devices.devices.get(ip))
                .map(|device| device.name.clone()),
            ingress: isolating(pod, Direction::Ingress),
            egress: isolating(pod, Direction::Egress),
        })
        .collect()
}

/// All policies, with what they select.
#[must_use]
pub fn policies(snapshot: &Snapshot) -> Vec<PolicyRow> {
    let row = |policy: &Policy| {
        let selected: Vec<&Pod> = snapshot
            .pods
            .values()
            .map(AsRef::as_ref)
            .filter(|pod| pod.owns_addresses() && selects(policy, pod))
            .collect();
        PolicyRow {
            policy: policy.name.clone(),
            ingress_rules: policy.ingress.as_ref().map(Vec::len),
            egress_rules: policy.egress.as_ref().map(Vec::len),
            pods: selected.len(),
            local_pods: selected
                .iter()
                .filter(|pod| pod.node == snapshot.node_name)
                .count(),
        }
    };
    let policies = snapshot.policies.values();
    policies.map(|policy| row(policy)).collect()
}

fn selecting<'s>(snapshot: &'s Snapshot, pod: &'s Pod) -> impl Iterator<Item = &'s Policy> {
    let policies = snapshot.policies.values().map(AsRef::as_ref);
    policies.filter(move |policy| selects(policy, pod))
}

fn selects(policy: &Policy, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace && policy.pod_selector.matches(&pod.labels)
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
        destination: key.addresses[other].into(),
        destination_port: key.ports[other],
        service: (flow.flags & NAT != 0).then(|| (flow.nat_address.into(), flow.nat_port)),
        packets: [flow.packets[opener], flow.packets[other]],
        bytes: [flow.bytes[opener], flow.bytes[other]],
        rules: [flow.ends[opener].rule, flow.ends[other].rule],
    }
}
