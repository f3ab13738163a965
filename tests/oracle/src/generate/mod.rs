//! Random small clusters, and the flows that are worth asking about in each.
//!
//! A cluster is a function of its seed alone, so a failing case is replayed by its number.
//! Everything is drawn from small sets, so that selectors hit, CIDRs nest and ports collide.
//! All that is generated would be accepted by an API server, now or in the past.

mod cluster_policies;
mod flows;
mod lattice;
mod pods;
mod policies;
mod random;

pub use flows::flows;

use k8s_openapi::api::core::v1::{Namespace, Node, NodeAddress, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Cluster;
use random::Random;

/// Keys of labels and the values they take, on pods and on namespaces alike.
const LABELS: [(&str, [&str; 2]); 3] = [
    ("app", ["web", "db"]),
    ("tier", ["front", "back"]),
    ("env", ["prod", "test"]),
];

/// The cluster that belongs to `seed`.
pub fn cluster(seed: u64) -> Cluster {
    let mut random = Random::new(seed);
    let names = &["red", "green", "blue", "grey"][..random.between(2, 4)];
    let node_count = random.between(2, 3);
    let mut nodes: Vec<Node> = (1..=node_count)
        .map(|number| node(&mut random, number))
        .collect();
    let pods = pods::pods(&mut random, names, node_count);
    let policies = policies::policies(&mut random, names, &pods);
    // Now and then the agent has not seen a Namespace object yet.
    let unseen = random.one_in(20).then(|| random.below(names.len()));
    let seen = names
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != unseen);
    let namespaces = seen.map(|(_, name)| namespace(&mut random, name)).collect();
    for node in &mut nodes {
        node.metadata.labels = random.labels();
    }
    let cluster_policies = cluster_policies::policies(&mut random, &pods);
    Cluster {
        namespaces,
        nodes,
        pods,
        policies,
        cluster_policies,
    }
}

fn namespace(random: &mut Random, name: &str) -> Namespace {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        uid: Some(format!("namespace-{name}")),
        labels: random.labels(),
        ..ObjectMeta::default()
    };
    Namespace {
        metadata,
        ..Namespace::default()
    }
}

fn node(random: &mut Random, number: usize) -> Node {
    let mut found = vec![
        address("InternalIP", lattice::node_ipv4(number)),
        address("Hostname", node_name(number)),
    ];
    if random.one_in(2) {
        found.push(address("InternalIP", lattice::node_ipv6(number)));
    }
    if random.one_in(4) {
        found.push(address("ExternalIP", format!("203.0.113.{number}")));
    }
    let metadata = ObjectMeta {
        name: Some(node_name(number)),
        uid: Some(format!("node-{number}")),
        ..ObjectMeta::default()
    };
    let status = NodeStatus {
        addresses: Some(found),
        ..NodeStatus::default()
    };
    Node {
        metadata,
        status: Some(status),
        ..Node::default()
    }
}

fn address(kind: &str, address: String) -> NodeAddress {
    NodeAddress {
        address,
        type_: kind.to_owned(),
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}
