//! What a node knows of the connections of an explanation: plain data that printers and JSON share.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::packet::Tried;
use crate::flows::Record;
use crate::model::{Direction, ObjectName, Protocol};

/// Answer of `/v1/evidence`: of one node, about its own pods and its own translation of Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The node.
    pub node: String,
    /// Generation of the maps that its programs read.
    pub generation: u64,
    /// What the maps say about each pod of the node that policies judge.
    pub verdicts: Vec<HeldVerdict>,
    /// Where the maps lead what is addressed to a Service.
    pub frontends: Vec<HeldFrontend>,
    /// How many records are kept of packets of these connections that were dropped or answered with a refusal.
    pub drops: usize,
    /// The last of them, newest first.
    pub last_drops: Vec<Record>,
    /// Connections that are tracked.
    pub connections: usize,
    /// Their packets, from who opened them and back.
    pub packets: [u64; 2],
}

impl Evidence {
    /// Whether the maps say what the objects say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let verdicts = self.verdicts.iter().all(HeldVerdict::agrees);
        verdicts && self.frontends.iter().all(HeldFrontend::agrees)
    }
}

/// What the maps say about a new connection at one of its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVerdict {
    /// The pod that is judged.
    pub pod: ObjectName,
    /// Seen from the pod.
    pub direction: Direction,
    /// The other end.
    pub peer: IpAddr,
    /// Port that is connected to.
    pub port: u16,
    /// Whether the objects let it pass.
    pub intended: bool,
    /// What the maps say.
    pub held: Held,
    /// What the programs made of a first packet; `None` where it could not be tried, for want of a device or a port.
    pub tried: Option<Tried>,
}

impl HeldVerdict {
    /// Whether the node does what the objects say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.maps_agree() && self.programs_agree()
    }

    /// Whether the maps say what the objects say.
    #[must_use]
    pub const fn maps_agree(&self) -> bool {
        match self.held {
            Held::Unknown => false,
            Held::Open | Held::Allowed(_) => self.intended,
            Held::Denied => !self.intended,
        }
    }

    /// Whether the programs do, as far as they were tried.
    #[must_use]
    pub fn programs_agree(&self) -> bool {
        let tried = self.tried.as_ref();
        tried.is_none_or(|tried| tried.passed == self.intended)
    }
}

/// A verdict of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "by", rename_all = "kebab-case")]
pub enum Held {
    /// They do not have the pod: its traffic is not judged.
    Unknown,
    /// No policy decides.
    Open,
    /// A rule allows it: its policy and its position there; `None` for a rule that the objects do not have.
    Allowed(Option<(ObjectName, usize)>),
    /// It is denied.
    Denied,
}

/// Where the maps lead a connection to an address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldFrontend {
    /// The Service.
    pub service: ObjectName,
    /// Its address and port.
    pub frontend: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Backends that follow from the objects.
    pub intended: BTreeSet<SocketAddr>,
    /// Those that the maps have for new connections; `None` where they do not have the frontend.
    pub held: Option<BTreeSet<SocketAddr>>,
    /// What the programs made of a first packet of a pod; `None` where none of the pods is on this node, or as with [`HeldVerdict::tried`].
    pub tried: Option<Tried>,
}

impl HeldFrontend {
    /// Whether the node does what the objects say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.maps_agree() && self.programs_agree()
    }

    /// Whether the maps say what the objects say.
    #[must_use]
    pub fn maps_agree(&self) -> bool {
        match &self.held {
            Some(held) => *held == self.intended,
            None => self.intended.is_empty(),
        }
    }

    /// Whether the programs do, as far as they were tried. What a policy stopped tells nothing about the Service.
    #[must_use]
    pub fn programs_agree(&self) -> bool {
        let Some(tried) = &self.tried else {
            return true;
        };
        match tried.to {
            Some(to) => self.intended.contains(&to),
            None => tried.is_denied() || self.intended.is_empty(),
        }
    }
}
