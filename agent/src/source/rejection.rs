//! Why an object, or a part of one, cannot be used.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::model::{Kind, ObjectName, Protocol};

/// An object that cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {name}: {fault}", kind.as_str())]
pub struct Rejection {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name; empty where the object has none.
    pub name: ObjectName,
    /// What is wrong.
    pub fault: Fault,
}

/// A problem and the field that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, as `kubectl explain` would name it with indexes; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

impl Fault {
    pub(super) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self {
            field: field.into(),
            problem: Box::new(problem),
        }
    }

    pub(super) fn of(self, kind: Kind, name: &ObjectName) -> Rejection {
        Rejection {
            kind,
            name: name.clone(),
            fault: self,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.problem.fmt(f)
    }
}

/// What can be wrong, each with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An object without a name.
    #[error("the object has no name; give it one")]
    NoName,
    /// The object does not have the shape of its kind.
    #[error("cannot be read as {api_version} {kind}: {message}")]
    Shape {
        /// The apiVersion that was tried.
        api_version: &'static str,
        /// The kind.
        kind: &'static str,
        /// What the decoder says.
        message: String,
    },
    /// A watched kind of a version that is not served.
    #[error("apiVersion {found:?} is not known for this kind; use {expected:?}")]
    Version {
        /// As written.
        found: String,
        /// The one that is served.
        expected: &'static str,
    },
    /// Not an IP address.
    #[error("{0:?} is not an IP address; write one like 10.0.0.1 or fd00::1")]
    Address(String),
    /// Not a CIDR.
    #[error("{0:?} is not a CIDR; write one like 10.0.0.0/8 or fd00::/64")]
    Cidr(String),
    /// An exception that does not lie inside the block.
    #[error("{except} is no strict part of cidr {cidr}; name a smaller block inside it")]
    Except {
        /// The exception.
        except: IpNetwork,
        /// The block.
        cidr: IpNetwork,
    },
    /// Not a port number.
    #[error("{0} is not a port; use 1 to 65535")]
    Port(i32),
    /// Not a port name.
    #[error("{0:?} is not a port name; use one with a letter, or write the number without quotes")]
    PortName(String),
    /// endPort below port.
    #[error("endPort {end} is below port {port}; it is the last port of the range")]
    EndBeforePort {
        /// endPort.
        end: u16,
        /// port.
        port: u16,
    },
    /// endPort without a numeric port.
    #[error("endPort needs a port that is a number")]
    EndWithoutNumber,
    /// Neither TCP nor UDP nor SCTP.
    #[error("{0:?} is not a protocol; use TCP, UDP or SCTP")]
    Protocol(String),
    /// One port twice.
    #[error("port {port}/{protocol} is there twice; remove one")]
    DuplicatePort {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// One port name twice; several ports need names.
    #[error("port name {0:?} is there twice; give each port its own name")]
    DuplicatePortName(String),
    /// A Service with nothing to serve.
    #[error("a Service needs at least one port")]
    NoPorts,
    /// A Service that nobody gave an address.
    #[error(
        "the Service has no clusterIP; give it one, because only an API server can choose it (or \"None\" for a headless Service)"
    )]
    NoClusterIp,
    /// Two addresses of one family, or more than two.
    #[error("at most one address of each family; remove {0}")]
    SecondOfFamily(std::net::IpAddr),
    /// internalTrafficPolicy or externalTrafficPolicy.
    #[error("{0:?} is not a traffic policy; use Cluster or Local")]
    TrafficPolicy(String),
    /// sessionAffinity.
    #[error("{0:?} is not a session affinity; use None or ClientIP")]
    SessionAffinity(String),
    /// sessionAffinityConfig.clientIP.timeoutSeconds.
    #[error("{0} is not a time that a client can be remembered for; use 1 to 86400 seconds")]
    AffinityTimeout(i32),
    /// spec.type of a Service.
    #[error("{0:?} is not a type; use ClusterIP, NodePort, LoadBalancer or ExternalName")]
    ServiceType(String),
    /// EndpointSlices of names.
    #[error("slices of type FQDN cannot be load-balanced; use addressType IPv4 or IPv6")]
    Fqdn,
    /// Any other address type.
    #[error("{0:?} is not an address type; use IPv4 or IPv6")]
    AddressType(String),
    /// An address of the other family than the slice's type.
    #[error(
        "{address} is not of the slice's addressType {address_type}; put it into another slice"
    )]
    Family {
        /// The address.
        address: std::net::IpAddr,
        /// The type.
        address_type: String,
    },
    /// Label selector operator.
    #[error("{0:?} is not an operator; use In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// In or NotIn without values.
    #[error("operator {0} needs at least one value")]
    NoValues(String),
    /// Exists or DoesNotExist with values.
    #[error("operator {0} takes no values; remove them")]
    Values(String),
    /// policyTypes.
    #[error("{0:?} is not a policy type; use Ingress or Egress")]
    PolicyType(String),
    /// A peer of nothing (or of fields that are not known).
    #[error("the peer has none of podSelector, namespaceSelector and ipBlock; give it one")]
    EmptyPeer,
    /// A peer, subject or protocol of a ClusterNetworkPolicy without exactly one field that is known.
    #[error("there must be one of {0}, and nothing else")]
    NotOne(&'static str),
    /// A field of a later version of the API, or a misspelt one.
    #[error("field {0:?} is not known here, and may narrow what is matched; remove it")]
    UnknownField(String),
    /// domainNames.
    #[error("domainNames are not followed yet; name networks instead")]
    DomainNames,
    /// A rule of a ClusterNetworkPolicy without peers.
    #[error("a rule needs at least one peer")]
    NoPeers,
    /// action of a ClusterNetworkPolicy's rule.
    #[error("{0:?} is not an action; use Accept, Deny or Pass")]
    Action(String),
    /// tier.
    #[error("{0:?} is not a tier; use Admin or Baseline")]
    Tier(String),
    /// priority.
    #[error("{0} is not a priority; use 0 to 1000")]
    Priority(i32),
    /// A rule of a ClusterNetworkPolicy of which a part cannot be used.
    #[error("{problem}; as long as it is so the rule {effect}")]
    FailsClosed {
        /// What is wrong.
        problem: Box<Problem>,
        /// What it does meanwhile.
        effect: &'static str,
    },
    /// ipBlock beside selectors.
    #[error("ipBlock cannot stand beside a selector; make it a peer of its own")]
    MixedPeer,
}
