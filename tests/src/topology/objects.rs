//! The API objects that a real cluster would hold for a topology.

use k8s_openapi::api::core::v1::{
    Container, Node as NodeObject, NodeAddress, NodeCondition, NodeSpec, NodeStatus,
    Pod as PodObject, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Node, Pod};

impl Node {
    /// The Node object, ready, with addresses and pod subnets.
    #[must_use]
    pub fn object(&self) -> NodeObject {
        let (v4, v6) = self.pod_cidrs();
        let addresses = self.addresses().both().map(|address| NodeAddress {
            type_: "InternalIP".to_owned(),
            address: address.to_string(),
        });
        let ready = NodeCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            ..NodeCondition::default()
        };
        NodeObject {
            metadata: ObjectMeta {
                name: Some(self.name().to_owned()),
                labels: Some(self.labels().clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: Some(v4.to_string()),
                pod_cidrs: Some(vec![v4.to_string(), v6.to_string()]),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: Some(addresses.to_vec()),
                conditions: Some(vec![ready]),
                ..NodeStatus::default()
            }),
        }
    }
}

impl Pod {
    /// The Pod object, running and ready. Its container names no image that exists.
    #[must_use]
    pub fn object(&self) -> PodObject {
        let addresses = self.addresses().both().map(|address| address.to_string());
        let true_condition = |type_: &str| PodCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        PodObject {
            metadata: ObjectMeta {
                name: Some(self.name().to_owned()),
                namespace: Some(self.spec().namespace.clone()),
                uid: Some(self.uid()),
                labels: Some(self.spec().labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: Some(self.node().to_owned()),
                containers: vec![Container {
                    name: "main".to_owned(),
                    image: Some("weir.test/none".to_owned()),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some("Running".to_owned()),
                conditions: Some(vec![
                    true_condition("ContainersReady"),
                    true_condition("Ready"),
                ]),
                pod_ip: addresses.first().cloned(),
                pod_ips: Some(addresses.map(|ip| PodIP { ip }).to_vec()),
                ..PodStatus::default()
            }),
        }
    }
}
