//! From a failing cluster to the part of it that fails.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::{
    Cluster, ClusterNetworkPolicy, ClusterPeer, ClusterProtocol, ClusterSubject, NamespacedPod,
};

/// Takes away objects and parts of objects for as long as the rest still fails, until no single
/// removal does.
///
/// `still_fails` is asked about every attempt, at most a few times for each part of the cluster,
/// and must hold for `cluster` itself. Lists that become empty stay: an absent list may mean
/// something else.
pub fn minimise(mut cluster: Cluster, still_fails: impl Fn(&Cluster) -> bool) -> Cluster {
    let mut next = 0;
    let mut removed = false;
    loop {
        let mut smaller = cluster.clone();
        if !remove_part(&mut smaller, next) {
            // Every part was tried; one removal may have made another possible.
            if !removed {
                return cluster;
            }
            (next, removed) = (0, false);
        } else if still_fails(&smaller) {
            // The parts behind moved up by at least one, so `next` is a new part.
            cluster = smaller;
            removed = true;
        } else {
            next += 1;
        }
    }
}

/// Removes part number `index`, in the order in which this walks; false if there are fewer.
fn remove_part(cluster: &mut Cluster, index: usize) -> bool {
    let mut knife = Knife { before: index };
    knife.item(&mut cluster.policies)
        || knife.item(&mut cluster.cluster_policies)
        || knife.item(&mut cluster.pods)
        || knife.item(&mut cluster.namespaces)
        || knife.item(&mut cluster.nodes)
        || cluster
            .policies
            .iter_mut()
            .any(|policy| knife.policy(policy))
        || cluster
            .cluster_policies
            .iter_mut()
            .any(|policy| knife.cluster_policy(policy))
        || cluster.pods.iter_mut().any(|pod| {
            let spec = pod.spec.iter_mut();
            let mut containers = spec.flat_map(|spec| {
                spec.containers
                    .iter_mut()
                    .chain(spec.init_containers.iter_mut().flatten())
            });
            knife.labels(&mut pod.metadata)
                || containers.any(|container| {
                    container
                        .ports
                        .as_mut()
                        .is_some_and(|ports| knife.item(ports))
                })
                || pod
                    .status
                    .iter_mut()
                    .any(|status| status.pod_ips.as_mut().is_some_and(|ips| knife.item(ips)))
        })
        || cluster
            .namespaces
            .iter_mut()
            .any(|namespace| knife.labels(&mut namespace.metadata))
        || cluster
            .nodes
            .iter_mut()
            .any(|node| knife.labels(&mut node.metadata))
}

/// Walks over parts and cuts out one.
struct Knife {
    /// How many parts to leave before the one that goes.
    before: usize,
}

impl Knife {
    fn item<T>(&mut self, items: &mut Vec<T>) -> bool {
        let here = self.before < items.len();
        if here {
            items.remove(self.before);
        } else {
            self.before -= items.len();
        }
        here
    }

    fn labels(&mut self, metadata: &mut ObjectMeta) -> bool {
        let Some(labels) = &mut metadata.labels else {
            return false;
        };
        let key = labels.keys().nth(self.before).cloned();
        match &key {
            Some(key) => drop(labels.remove(key)),
            None => self.before -= labels.len(),
        }
        key.is_some()
    }

    fn policy(&mut self, policy: &mut NetworkPolicy) -> bool {
        let Some(spec) = &mut policy.spec else {
            return false;
        };
        spec.ingress.as_mut().is_some_and(|rules| {
            self.item(rules)
                || rules
                    .iter_mut()
                    .any(|rule| self.rule(&mut rule.from, &mut rule.ports))
        }) || spec.egress.as_mut().is_some_and(|rules| {
            self.item(rules)
                || rules
                    .iter_mut()
                    .any(|rule| self.rule(&mut rule.to, &mut rule.ports))
        }) || spec
            .pod_selector
            .as_mut()
            .is_some_and(|selector| self.selector(selector))
    }

    fn rule(
        &mut self,
        peers: &mut Option<Vec<NetworkPolicyPeer>>,
        ports: &mut Option<Vec<NetworkPolicyPort>>,
    ) -> bool {
        ports.as_mut().is_some_and(|ports| self.item(ports))
            || peers.as_mut().is_some_and(|peers| {
                self.item(peers) || peers.iter_mut().any(|peer| self.peer(peer))
            })
    }

    fn peer(&mut self, peer: &mut NetworkPolicyPeer) -> bool {
        peer.ip_block
            .as_mut()
            .and_then(|block| block.except.as_mut())
            .is_some_and(|except| self.item(except))
            || peer
                .namespace_selector
                .as_mut()
                .is_some_and(|selector| self.selector(selector))
            || peer
                .pod_selector
                .as_mut()
                .is_some_and(|selector| self.selector(selector))
    }

    fn cluster_policy(&mut self, policy: &mut ClusterNetworkPolicy) -> bool {
        let spec = &mut policy.spec;
        self.item(&mut spec.ingress)
            || spec
                .ingress
                .iter_mut()
                .any(|rule| self.cluster_rule(&mut rule.from, &mut rule.protocols))
            || self.item(&mut spec.egress)
            || spec
                .egress
                .iter_mut()
                .any(|rule| self.cluster_rule(&mut rule.to, &mut rule.protocols))
            || match &mut spec.subject {
                ClusterSubject::Namespaces(selector) => self.selector(selector),
                ClusterSubject::Pods(pods) => self.namespaced_pod(pods),
            }
    }

    fn cluster_rule(
        &mut self,
        peers: &mut Vec<ClusterPeer>,
        protocols: &mut Vec<ClusterProtocol>,
    ) -> bool {
        self.item(protocols)
            || self.item(peers)
            || peers.iter_mut().any(|peer| match peer {
                ClusterPeer::Namespaces(selector) | ClusterPeer::Nodes(selector) => {
                    self.selector(selector)
                }
                ClusterPeer::Pods(pods) => self.namespaced_pod(pods),
                ClusterPeer::Networks(networks) => self.item(networks),
                ClusterPeer::DomainNames(_) | ClusterPeer::Unknown(_) => false,
            })
    }

    fn namespaced_pod(&mut self, pods: &mut NamespacedPod) -> bool {
        self.selector(&mut pods.namespace_selector) || self.selector(&mut pods.pod_selector)
    }

    fn selector(&mut self, selector: &mut LabelSelector) -> bool {
        if let Some(labels) = &mut selector.match_labels {
            let key = labels.keys().nth(self.before).cloned();
            if let Some(key) = key {
                labels.remove(&key);
                return true;
            }
            self.before -= labels.len();
        }
        selector
            .match_expressions
            .as_mut()
            .is_some_and(|requirements| self.item(requirements))
    }
}
