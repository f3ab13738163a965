//! Names of objects, and the stable numbers that stand for them in the kernel.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use weir_common::abi::RULE_RESERVED;

use super::{Direction, Protocol};

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// A name in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of a cluster-scoped object.
    #[must_use]
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// SipHash-1-3 with fixed keys over length-prefixed parts: equal on every node and in every version.
fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x7765_6972, 1);
    for part in parts {
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish()
}

/// Endpoint id of a pod: hash of its UID, never 0.
#[must_use]
pub fn endpoint_id(pod_uid: &str) -> u64 {
    stable_hash(&[b"endpoint", pod_uid.as_bytes()]).max(1)
}

/// Id of a Service port.
#[must_use]
pub fn service_port_id(service: &ObjectName, port_name: &str, protocol: Protocol) -> u64 {
    stable_hash(&[
        b"service",
        service.namespace.as_bytes(),
        service.name.as_bytes(),
        port_name.as_bytes(),
        &[protocol.number()],
    ])
}

/// Fingerprint of a backend: who may call an id of the backend array its own.
#[must_use]
pub fn fingerprint(service_port: u64, address: IpAddr, port: u16) -> u32 {
    let address = weir_common::abi::Address::from(address).bytes();
    (stable_hash(&[
        b"backend",
        &service_port.to_be_bytes(),
        &address,
        &port.to_be_bytes(),
    ]) >> 32) as u32
}

/// Id of a policy rule. The compiler resolves the rare collision within a node by counting `attempt` up.
#[must_use]
pub fn rule_id(
    policy: &ObjectName,
    policy_uid: &str,
    direction: Direction,
    index: usize,
    attempt: u32,
) -> u32 {
    let hash = stable_hash(&[
        b"rule",
        policy.namespace.as_bytes(),
        policy.name.as_bytes(),
        policy_uid.as_bytes(),
        direction.as_str().as_bytes(),
        &(index as u64).to_be_bytes(),
        &attempt.to_be_bytes(),
    ]);
    ((hash >> 32) as u32).max(RULE_RESERVED)
}
