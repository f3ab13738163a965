//! Services and their endpoints.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Labels, ObjectName, Pod};

/// Transport protocols that Services and policies know.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, the default wherever the API leaves it out.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A text that names none of the protocols.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is none of TCP, UDP and SCTP")]
pub struct UnknownProtocol(pub String);

/// As people write it, in upper or lower case.
impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let mut all = Self::ALL.into_iter();
        all.find(|protocol| protocol.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

/// internalTrafficPolicy, externalTrafficPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Endpoints on the client's node only.
    Local,
}

/// A Service with virtual addresses. Headless and ExternalName Services, and those of another proxy, are never here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// metadata.uid; empty for one from a file that has none.
    pub uid: String,
    /// metadata.labels, for those who ask for Services by them.
    #[serde(default)]
    pub labels: Labels,
    /// spec.clusterIPs, one or two.
    pub cluster_ips: Vec<IpAddr>,
    /// spec.ports.
    pub ports: Vec<ServicePort>,
    /// spec.externalIPs: addresses that somebody routes to the cluster's nodes.
    pub external_ips: Vec<IpAddr>,
    /// status.loadBalancer.ingress: addresses that reach nodes unchanged (ipMode VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// spec.loadBalancerSourceRanges: who may use the load balancer's addresses; empty for everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// spec.internalTrafficPolicy, for clients of a cluster IP.
    pub internal_traffic_policy: TrafficPolicy,
    /// spec.externalTrafficPolicy, for clients of any other address that are outside the cluster.
    pub external_traffic_policy: TrafficPolicy,
    /// spec.healthCheckNodePort, where externalTrafficPolicy is Local: the port at which load balancers ask each node for endpoints
    /// of its own.
    pub health_check_node_port: Option<u16>,
    /// sessionAffinity ClientIP: seconds after a client's last new connection for which the next one goes to the same endpoint.
    pub affinity_seconds: Option<u32>,
    /// spec.selector, for the explainer; the endpoints come from slices.
    pub selector: std::collections::BTreeMap<String, String>,
}

impl Service {
    /// Whether a pod is one of those that it selects: a live one of its namespace. Without a selector it selects none.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        let mut labels = self.selector.iter();
        !self.selector.is_empty()
            && !pod.terminal
            && pod.name.namespace == self.name.namespace
            && labels.all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

/// A Service with virtual addresses that another proxy serves (label service.kubernetes.io/service-proxy-name).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignService {
    /// Namespace and name.
    pub name: ObjectName,
    /// spec.clusterIPs.
    pub cluster_ips: Vec<IpAddr>,
}

/// A ServiceCIDR (networking.k8s.io/v1): addresses that cluster IPs are taken from, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCidr {
    /// Name.
    pub name: String,
    /// spec.cidrs, one or two.
    pub cidrs: Vec<IpNetwork>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name, empty when it is the only one.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the virtual address, never 0.
    pub port: u16,
    /// nodePort: port of the nodes' own addresses.
    pub node_port: Option<u16>,
    /// targetPort as written (number or name), for the explainer.
    pub target_port: String,
}

/// An EndpointSlice (discovery.k8s.io/v1) of type IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// Label kubernetes.io/service-name.
    pub service: ObjectName,
    /// Endpoints with at least one address of the slice's type.
    pub endpoints: Vec<Endpoint>,
    /// Ports with a number.
    pub ports: Vec<SlicePort>,
    /// What made the control plane write it as it is.
    pub trigger: Option<Trigger>,
}

/// The change that a slice was last written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Annotation endpoints.kubernetes.io/last-change-trigger-time.
    pub at: SystemTime,
    /// Whether the slice is of type IPv4.
    pub v4: bool,
}

/// An endpoint of a slice; conditions are defaulted as KEP-1672 says (ready and serving unless told otherwise).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first address; further ones are to be ignored (discovery/v1 text).
    pub address: IpAddr,
    /// conditions.ready.
    pub ready: bool,
    /// conditions.serving.
    pub serving: bool,
    /// conditions.terminating.
    pub terminating: bool,
    /// nodeName.
    pub node: Option<String>,
    /// targetRef, when it is a Pod.
    pub pod: Option<ObjectName>,
    /// Who should prefer it; few Services say so.
    pub hints: Option<Box<Hints>>,
}

/// hints of an endpoint: which clients the control plane means it for (trafficDistribution, KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hints {
    /// forZones.
    pub zones: Vec<String>,
    /// forNodes.
    pub nodes: Vec<String>,
}

impl Endpoint {
    /// An endpoint of which nothing but the address is told: ready and serving.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            pod: None,
            hints: None,
        }
    }
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// Name; pairs it with the Service port of that name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the endpoints.
    pub port: u16,
}
