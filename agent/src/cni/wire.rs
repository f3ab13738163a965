//! What the plugin and the agent say to each other: a line of JSON each, one exchange a connection.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Attachment, ObjectName, PodDevice, Sandbox};

/// The socket at which an agent with this run directory hears of pods.
#[must_use]
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("cni.sock")
}

/// What the plugin asks for. Every request may be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// A pod is about to start: answer when it is isolated.
    Add(Announcement),
    /// Is it isolated?
    Check(Attachment),
    /// Its network is going.
    Del(Attachment),
    /// Every sandbox of the network that is not named is gone.
    Gc {
        /// The network.
        network: String,
        /// What the runtime still has.
        valid: Vec<Attachment>,
    },
}

/// A pod's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Container and interface.
    pub attachment: Attachment,
    /// Name of the CNI network.
    pub network: String,
    /// The pod.
    pub pod: ObjectName,
    /// Its UID, as far as the runtime told.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Interfaces on the node that the container's veth may be.
    pub interfaces: Vec<String>,
    /// How long the plugin waits for the answer.
    pub wait_milliseconds: u64,
}

impl Announcement {
    /// The sandbox, once its device was looked for.
    #[must_use]
    pub fn sandbox(self, device: Option<PodDevice>) -> Sandbox {
        Sandbox {
            attachment: self.attachment,
            network: self.network,
            pod: self.pod,
            uid: self.uid,
            addresses: self.addresses,
            device,
        }
    }
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is so.
    Done,
    /// Not yet, and time is up.
    Waiting {
        /// For what.
        why: String,
    },
    /// There is no such sandbox.
    Unknown,
}
