//! Writing to a snapshot. Each call says whether anything differs afterwards, and keeps the shared object where nothing does.

use std::sync::Arc;

use imbl::OrdMap;

use crate::model::{Kind, Object, ObjectName, Snapshot};

impl Snapshot {
    pub(super) fn insert(&mut self, object: Object) -> bool {
        match object {
            // A Service is in one of the two: where it moves to, it is new.
            Object::Service(new) => {
                self.foreign.remove(&new.name);
                put(&mut self.services, new.name.clone(), new)
            }
            Object::Foreign(new) => {
                self.services.remove(&new.name);
                put(&mut self.foreign, new.name.clone(), new)
            }
            Object::EndpointSlice(new) => put(&mut self.slices, new.name.clone(), new),
            Object::Policy(new) => put(&mut self.policies, new.name.clone(), new),
            Object::ClusterPolicy(new) => {
                put(&mut self.cluster_policies, new.name.name.clone(), new)
            }
            Object::Pod(new) => put(&mut self.pods, new.name.clone(), new),
            Object::Namespace(new) => put(&mut self.namespaces, new.name.clone(), new),
            Object::Node(new) => put(&mut self.nodes, new.name.clone(), new),
            Object::ServiceCidr(new) => put(&mut self.service_cidrs, new.name.clone(), new),
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
        match kind {
            Kind::Service => {
                self.services.remove(name).is_some() || self.foreign.remove(name).is_some()
            }
            Kind::EndpointSlice => self.slices.remove(name).is_some(),
            Kind::NetworkPolicy => self.policies.remove(name).is_some(),
            Kind::ClusterNetworkPolicy => self.cluster_policies.remove(&name.name).is_some(),
            Kind::Pod => self.pods.remove(name).is_some(),
            Kind::Namespace => self.namespaces.remove(&name.name).is_some(),
            Kind::Node => self.nodes.remove(&name.name).is_some(),
            Kind::ServiceCidr => self.service_cidrs.remove(&name.name).is_some(),
        }
    }

    pub(super) fn replace(&mut self, kind: Kind, objects: Vec<Object>) -> bool {
        let mut new = Self::default();
        for object in objects {
            new.insert(object);
        }
        match kind {
            Kind::Service => {
                let foreign = swap(&mut self.foreign, new.foreign);
                swap(&mut self.services, new.services) || foreign
            }
            Kind::EndpointSlice => swap(&mut self.slices, new.slices),
            Kind::NetworkPolicy => swap(&mut self.policies, new.policies),
            Kind::ClusterNetworkPolicy => swap(&mut self.cluster_policies, new.cluster_policies),
            Kind::Pod => swap(&mut self.pods, new.pods),
            Kind::Namespace => swap(&mut self.namespaces, new.namespaces),
            Kind::Node => swap(&mut self.nodes, new.nodes),
            Kind::ServiceCidr => swap(&mut self.service_cidrs, new.service_cidrs),
        }
    }
}

fn put<K: Ord + Clone, V: PartialEq>(objects: &mut OrdMap<K, Arc<V>>, name: K, new: V) -> bool {
    let differs = objects.get(&name).is_none_or(|old| **old != new);
    if differs {
        objects.insert(name, Arc::new(new));
    }
    differs
}

fn swap<K: Ord + Clone, V: PartialEq>(
    objects: &mut OrdMap<K, Arc<V>>,
    new: OrdMap<K, Arc<V>>,
) -> bool {
    let mut kept = objects.clone();
    for name in objects.keys().filter(|name| !new.contains_key(*name)) {
        kept.remove(name);
    }
    let mut differs = kept.len() != objects.len();
    for (name, object) in new {
        if kept.get(&name) != Some(&object) {
            kept.insert(name, object);
            differs = true;
        }
    }
    *objects = kept;
    differs
}
