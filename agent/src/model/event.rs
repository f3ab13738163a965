//! What a source tells the state.

use serde::{Deserialize, Serialize};

use super::{
    ClusterPolicy, EndpointSlice, ForeignService, Namespace, Node, ObjectName, Pod, Policy,
    Service, ServiceCidr,
};

/// Kinds of watched objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// v1 Pod.
    Pod,
    /// v1 Namespace.
    Namespace,
    /// v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::Pod,
        Self::Namespace,
        Self::Node,
        Self::ServiceCidr,
    ];

    /// Whether API servers may lack it: a cluster without has no objects of it.
    #[must_use]
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ServiceCidr | Self::ClusterNetworkPolicy)
    }

    /// The version of the API that objects of the kind are read in.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Pod | Self::Namespace | Self::Node => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy | Self::ServiceCidr => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// The API's name of the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// A Service that another proxy serves.
    Foreign(ForeignService),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A NetworkPolicy.
    Policy(Policy),
    /// A ClusterNetworkPolicy.
    ClusterPolicy(ClusterPolicy),
    /// A Pod.
    Pod(Pod),
    /// A Namespace.
    Namespace(Namespace),
    /// A Node.
    Node(Node),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidr),
}

impl Object {
    /// Kind and name, by which a later event replaces or deletes it.
    #[must_use]
    pub fn key(&self) -> (Kind, ObjectName) {
        match self {
            Self::Service(service) => (Kind::Service, service.name.clone()),
            Self::Foreign(service) => (Kind::Service, service.name.clone()),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, slice.name.clone()),
            Self::Policy(policy) => (Kind::NetworkPolicy, policy.name.clone()),
            Self::ClusterPolicy(policy) => (Kind::ClusterNetworkPolicy, policy.name.clone()),
            Self::Pod(pod) => (Kind::Pod, pod.name.clone()),
            Self::Namespace(namespace) => (Kind::Namespace, ObjectName::cluster(&namespace.name)),
            Self::Node(node) => (Kind::Node, ObjectName::cluster(&node.name)),
            Self::ServiceCidr(range) => (Kind::ServiceCidr, ObjectName::cluster(&range.name)),
        }
    }
}

/// One thing that a source has learnt.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object is there, with this content.
    Applied(Object),
    /// An object is gone, or is no longer ours to serve.
    Deleted(Kind, ObjectName),
    /// All objects of a kind as of now: the first list, and every relist. What is not in it is gone.
    Replaced(Kind, Vec<Object>),
    /// An object could not be used and is skipped; an earlier version of it is dropped from the state.
    Rejected {
        /// Its kind.
        kind: Kind,
        /// Its name as far as known.
        name: ObjectName,
        /// metadata.uid as far as known.
        uid: String,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// An object that has just been applied is used, except for parts that are not: told until its next event.
    Flawed {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: ObjectName,
        /// metadata.uid as far as known.
        uid: String,
        /// What was left out and what to do.
        message: String,
    },
    /// A file could not be read, and what was last read from it stays; or (no message) it is well again.
    File {
        /// File name.
        name: String,
        /// What is wrong with it, and where.
        message: Option<String>,
    },
}

/// What a changed state asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Services or endpoints differ.
    pub services: bool,
    /// Pods, namespaces, nodes or policies differ.
    pub policies: bool,
    /// Other devices lead out of the node, and want programs.
    pub devices: bool,
}
