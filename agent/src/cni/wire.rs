//! What the plugin and the agent say to each other: a line of JSON each, one exchange a connection.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::{is_container, is_interface};
use crate::model::{Attachment, ObjectName, PodDevice, Sandbox};

/// The socket at which an agent with this run directory hears of pods.
#[must_use]
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("cni.sock")
}

/// What the plugin said is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is no JSON of that shape.
    #[error(
        "the agent does not understand the plugin ({0}): `weir cni install` brings both to one version"
    )]
    Json(#[from] serde_json::Error),
    /// It would become part of a file name.
    #[error(
        "{:?} is no container with an interface {:?}: CNI_CONTAINERID begins with a letter or digit and goes on with these, _, . and -, \
         CNI_IFNAME is what the kernel allows an interface", .0.container, .0.interface
    )]
    Attachment(Attachment),
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

impl Request {
    /// Reads what the plugin sent: a line.
    ///
    /// # Errors
    /// When it is no request, or is about what cannot be.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let request: Self = serde_json::from_slice(line)?;
        let attachment = match &request {
            Self::Add(announcement) => &announcement.attachment,
            Self::Check(attachment) | Self::Del(attachment) => attachment,
            // These are compared, and what nobody has announced is nobody's.
            Self::Gc { .. } => return Ok(request),
        };
        if is_container(&attachment.container) && is_interface(&attachment.interface) {
            Ok(request)
        } else {
            Err(RequestError::Attachment(attachment.clone()))
        }
    }
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
            addresses: self.addresses.iter().map(IpAddr::to_canonical).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_file_name_is_no_request() {
        let long = "c".repeat(64);
        for (container, interface, is_one) in [
            ("abc_1.2-3", "eth0", true),
            (long.as_str(), "veth-1@x_345678", true),
            ("", "eth0", false),
            ("..", "eth0", false),
            ("../../x", "eth0", false),
            ("a/../../x", "eth0", false),
            ("a:b", "eth0", false),
            ("a\0", "eth0", false),
            ("abc", "", false),
            ("abc", ".", false),
            ("abc", "..", false),
            ("abc", "../x", false),
            ("abc", "a:b", false),
            ("abc", "a b", false),
            ("abc", "a\0b", false),
            ("abc", "sixteen-and-more", false),
        ] {
            let attachment = Attachment {
                container: container.to_owned(),
                interface: interface.to_owned(),
            };
            for request in [
                Request::Add(Announcement {
                    attachment: attachment.clone(),
                    network: "pods".to_owned(),
                    pod: ObjectName::new("shop", "web-0"),
                    uid: String::new(),
                    addresses: Vec::new(),
                    interfaces: Vec::new(),
                    wait_milliseconds: 0,
                }),
                Request::Check(attachment.clone()),
                Request::Del(attachment.clone()),
            ] {
                let line = serde_json::to_vec(&request).unwrap();
                let read = Request::parse(&line);
                assert_eq!(read.is_ok(), is_one, "{request:?}");
                if let Ok(read) = read {
                    assert_eq!(read, request);
                }
            }
        }
    }

    #[test]
    fn addresses_of_a_sandbox_are_never_mapped() {
        let line = br#"{"add":{"attachment":{"container":"a","interface":"eth0"},"network":"pods","pod":{"namespace":"shop","name":"web-0"},
            "uid":"","addresses":["::ffff:10.1.0.7","fd00::7"],"interfaces":[],"waitMilliseconds":0}}"#;
        let Request::Add(announcement) = Request::parse(line).unwrap() else {
            panic!("another request");
        };
        let wanted = ["10.1.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(announcement.sandbox(None).addresses, wanted);
    }
}
