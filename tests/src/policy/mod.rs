//! What the agent makes of a cluster's policies, held against the oracle, at every level from objects to packets.

mod explained;
mod hooks;
mod packets;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir::compile::{RuleOrigin, Tables, compile};
use weir::model::{DeviceFacts, Event, Kind, Object, PodDevice, Snapshot, Tier};
use weir::source::convert::{self, Conversion};
use weir::state::State;
use weir_oracle::{
    Cluster, ClusterNetworkPolicy, Decider, DirectionVerdict, PolicyRef, RuleRef, owner,
};

pub use explained::explainer;
pub use hooks::{Answer, Hooks, Loaded};
pub use packets::packets;
pub use tables::tables;

/// More than the pods of a generated cluster, each of which has a device.
pub const DEVICES: usize = 10;

/// Why a cluster does not pass.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The agent takes an object for unusable.
    Rejected(String),
    /// The agent's answer is not the oracle's.
    Disagreement(String),
}

/// A cluster as the agent of one node has it.
pub struct View {
    /// The objects.
    pub snapshot: Snapshot,
    /// What follows from them.
    pub tables: Tables,
}

impl View {
    /// Takes the objects the agent's way. Pods of the node get one of `devices` each.
    ///
    /// # Errors
    /// The agent rejects an object.
    pub fn new(cluster: &Cluster, node: &str, devices: &[u32; DEVICES]) -> Result<Self, Trouble> {
        let mut state = State::new(node);
        for (kind, objects) in [
            (
                Kind::Namespace,
                objects(&cluster.namespaces, convert::namespace)?,
            ),
            (Kind::Node, objects(&cluster.nodes, convert::node)?),
            (Kind::Pod, objects(&cluster.pods, convert::pod)?),
            (
                Kind::NetworkPolicy,
                objects(&cluster.policies, convert::network_policy)?,
            ),
            (
                Kind::ClusterNetworkPolicy,
                cluster_policies(&cluster.cluster_policies)?,
            ),
        ] {
            state.apply(Event::Replaced(kind, objects));
        }
        state.set_devices(facts(cluster, node, devices));
        let snapshot = state.snapshot().clone();
        let tables = compile(&snapshot);
        Ok(Self { snapshot, tables })
    }

    /// The device of the local pod that owns an address.
    #[must_use]
    pub fn device(&self, address: IpAddr) -> Option<u32> {
        let device = self.snapshot.devices.devices.get(&address)?;
        Some(device.ifindex)
    }

    /// Whether a rule id of the tables is that of who decides, with this effect.
    fn decides(&self, id: u32, wanted: &DirectionVerdict) -> bool {
        let Some(RuleOrigin {
            tier,
            policy,
            index,
            ..
        }) = self.tables.policies.rules.get(&id)
        else {
            return false;
        };
        match wanted.decider() {
            Decider::Rule(rule) => {
                *tier != Tier::NetworkPolicy
                    && (policy.name.as_str(), *index) == (&rule.policy, rule.rule)
            }
            Decider::NetworkPolicies => {
                let policy = PolicyRef {
                    namespace: policy.namespace.clone(),
                    name: policy.name.clone(),
                };
                let rule = *index;
                *tier == Tier::NetworkPolicy && wanted.allowing.contains(&RuleRef { policy, rule })
            }
            Decider::Nobody => false,
        }
    }
}

/// Parts that the agent cannot use are meant to be there.
fn cluster_policies(items: &[ClusterNetworkPolicy]) -> Result<Vec<Object>, Trouble> {
    let rejected = |error: String| Trouble::Rejected(error);
    let mut objects = Vec::new();
    for item in items {
        let text = serde_json::to_value(item).map_err(|error| rejected(error.to_string()))?;
        let object = serde_json::from_value(text).map_err(|error| rejected(error.to_string()))?;
        let converted = convert::cluster_network_policy(object);
        let converted = converted.map_err(|error| rejected(error.to_string()))?;
        objects.extend(converted.map(|converted| converted.object));
    }
    Ok(objects)
}

fn objects<T: Clone>(items: &[T], convert: fn(T) -> Conversion) -> Result<Vec<Object>, Trouble> {
    let mut objects = Vec::new();
    for item in items {
        match convert(item.clone()) {
            Ok(Some(converted)) if converted.flaws.is_empty() => objects.push(converted.object),
            Ok(Some(converted)) => {
                return Err(Trouble::Rejected(format!("{:?}", converted.flaws)));
            }
            Ok(None) => {}
            Err(rejection) => return Err(Trouble::Rejected(rejection.to_string())),
        }
    }
    Ok(objects)
}

/// Which device leads to which address: that of the pod that owns it.
fn facts(cluster: &Cluster, node: &str, devices: &[u32; DEVICES]) -> DeviceFacts {
    let mut by_pod = BTreeMap::new();
    let mut facts = DeviceFacts::default();
    for address in cluster.pods.iter().flat_map(weir_oracle::addresses) {
        let Some(pod) = owner(cluster, address) else {
            continue;
        };
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node) {
            continue;
        }
        let next = devices[by_pod.len()];
        let key = (&pod.metadata.namespace, &pod.metadata.name);
        let ifindex = *by_pod.entry(key).or_insert(next);
        let name = format!("pod{ifindex}");
        facts.devices.insert(address, PodDevice { ifindex, name });
    }
    facts
}
