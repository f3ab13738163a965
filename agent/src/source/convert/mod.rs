//! API objects to model objects: one pure function per kind.
//!
//! Each returns `Ok(None)` for an object that is not for Weir to serve. Objects are defaulted as the API server does, because
//! those from files have never met one. What would change the meaning of an object rejects it; a list element that stands
//! for itself (an endpoint, a pod address, a container port) is left out and reported as a flaw, and the others stay.

mod address;
mod cluster_policy;
mod fields;
mod policy;
mod service;
mod slice;
mod workload;

#[cfg(test)]
mod tests;

pub use cluster_policy::cluster_network_policy;
pub use policy::network_policy;
pub use service::{service, service_cidr};
pub use slice::endpoint_slice;
pub use workload::{namespace, node, pod};

use super::{Fault, Rejection};
use crate::model::Object;

/// A usable object.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The object.
    pub object: Object,
    /// Parts of it that were left out.
    pub flaws: Vec<Fault>,
}

impl Converted {
    fn whole(object: Object) -> Self {
        Self {
            object,
            flaws: Vec::new(),
        }
    }
}

/// What a conversion yields: an object, nothing if it is not ours, or the reason why it cannot be used.
pub type Conversion = Result<Option<Converted>, Rejection>;
