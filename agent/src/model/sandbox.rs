//! Pods' networks, as the chained CNI plugin announces them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Labels, ObjectName, Pod, PodDevice};

/// What CNI calls an attachment: an interface of a container. The runtime adds and deletes it under this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// CNI_CONTAINERID: the pod's sandbox.
    pub container: String,
    /// CNI_IFNAME: the interface's name in the sandbox.
    pub interface: String,
}

/// The network of a pod that is about to start, or runs: known before the API tells the pod's addresses, and perhaps before it
/// tells of the pod at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Its name.
    pub attachment: Attachment,
    /// Name of the CNI network that it is attached to.
    pub network: String,
    /// K8S_POD_NAMESPACE, K8S_POD_NAME.
    pub pod: ObjectName,
    /// K8S_POD_UID, empty where the runtime does not tell: of a static pod not the UID of its object.
    pub uid: String,
    /// Its addresses, never in their mapped form.
    pub addresses: Vec<IpAddr>,
    /// Host end of its veth; `None` where the result of the main plugin does not name it.
    pub device: Option<PodDevice>,
}

impl Sandbox {
    /// Whether a Pod object is that of the pod inside, not of a former one with its name.
    #[must_use]
    pub fn is_of(&self, pod: &Pod) -> bool {
        let known_as = [Some(&pod.uid), pod.mirrors.as_ref()];
        self.pod == pod.name
            && (self.uid.is_empty() || known_as.into_iter().flatten().any(|uid| *uid == self.uid))
    }

    /// Whether another sandbox must be gone when this one is there: it had its device, or one of its addresses.
    #[must_use]
    pub fn replaces(&self, former: &Self) -> bool {
        let shares_address = || {
            let mut addresses = self.addresses.iter();
            addresses.any(|address| former.addresses.contains(address))
        };
        former.attachment != self.attachment
            && (former.device.is_some() && former.device == self.device || shares_address())
    }

    /// What is known of the pod inside while the API has not told of it: nothing that any selector could match.
    #[must_use]
    pub fn stranger(&self, node: &str) -> Pod {
        Pod {
            name: self.pod.clone(),
            uid: if self.uid.is_empty() {
                self.attachment.container.clone()
            } else {
                self.uid.clone()
            },
            mirrors: None,
            scraped: None,
            labels: Labels::new(),
            ips: self.addresses.clone(),
            host_network: false,
            terminal: false,
            node: node.to_owned(),
            ports: Vec::new(),
            // Its device is no former pod's any more.
            created: i64::MAX,
        }
    }
}
