//! NetworkPolicy, with policyTypes and protocols defaulted.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Labels, ObjectName, Operator, Protocol, Requirement, Selector};

/// Direction of a rule, seen from the selected pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Connections to the pod.
    Ingress,
    /// Connections from the pod.
    Egress,
}

impl Direction {
    /// The API's word for it, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A NetworkPolicy (networking.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Namespace and name.
    pub name: ObjectName,
    /// metadata.uid, empty for a file without one.
    pub uid: String,
    /// metadata.labels, for those who ask for policies by them.
    #[serde(default)]
    pub labels: Labels,
    /// spec.podSelector.
    pub pod_selector: Selector,
    /// Rules for connections to the selected pods; `None` when policyTypes leaves ingress out (those pods are not isolated by it).
    pub ingress: Option<Vec<Rule>>,
    /// Rules for connections from the selected pods; `None` when policyTypes leaves egress out.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction; `None` if this policy does not isolate in it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// What a rule matches: a connection matches when a peer and a port match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `from` or `to`; empty means every peer.
    pub peers: Vec<Peer>,
    /// `ports`; empty means every port of every protocol.
    pub ports: Vec<PolicyPort>,
}

impl Rule {
    /// The rule that nothing matches.
    #[must_use]
    pub fn nobody() -> Self {
        let nothing = Requirement {
            key: String::new(),
            operator: Operator::In([].into()),
        };
        Self {
            peers: vec![Peer::Pods {
                namespaces: None,
                pods: Some(Selector {
                    requirements: vec![nothing],
                }),
            }],
            ports: Vec::new(),
        }
    }
}

/// NetworkPolicyPeer, and the egress peers of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// Pods by label. Both selectors absent cannot be: the API refuses it.
    Pods {
        /// namespaceSelector; `None` is the policy's own namespace.
        namespaces: Option<Selector>,
        /// podSelector; `None` is every pod of those namespaces.
        pods: Option<Selector>,
    },
    /// ipBlock; host bits are masked away.
    Block {
        /// cidr.
        cidr: IpNetwork,
        /// except; each inside `cidr`.
        except: Vec<IpNetwork>,
    },
    /// Nodes by label, at every address that their status shows. NetworkPolicies have no such peer.
    Nodes(Selector),
}

/// NetworkPolicyPort.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyPort {
    /// protocol, TCP by default.
    pub protocol: Protocol,
    /// port and endPort.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PortMatch {
    /// No port given: every port.
    All,
    /// port to endPort, inclusive; equal for a single port.
    Range(u16, u16),
    /// A port name, resolved per destination pod.
    Named(String),
}
