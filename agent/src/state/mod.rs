//! All objects as of now: events in, snapshot out. No clock, no lock, no await, no I/O; what the state holds depends on the
//! newest event of each object only, never on the order in which objects came.

mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{
    AddressOwners, Attachment, Change, DeviceFacts, Event, Kind, NodePorts, ObjectName, Sandbox,
    Snapshot,
};

/// The objects that a source has told of, and what it could not use.
#[derive(Debug, Default)]
pub struct State {
    snapshot: Snapshot,
    /// What the kernel itself says of devices.
    devices: DeviceFacts,
    synced: BTreeSet<Kind>,
    objects: BTreeMap<(Kind, ObjectName), Flaw>,
    files: BTreeMap<String, String>,
    owners: AddressOwners,
}

/// Something that is skipped, wholly or in part, until somebody mends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rejected {
    /// Kind of the object, or `File`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its UID as far as known.
    pub uid: String,
    /// What is the matter, in the form that reasons of Events have.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a source could not use of an object.
#[derive(Clone, Debug)]
struct Flaw {
    uid: String,
    reason: &'static str,
    message: String,
}

impl State {
    /// An empty state, seen from a node that has node ports at its primary addresses.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        Self::with_node_ports(node_name, Vec::new())
    }

    /// An empty state, seen from a node that has node ports at these addresses.
    #[must_use]
    pub fn with_node_ports(node_name: impl Into<String>, node_ports: Vec<NodePorts>) -> Self {
        Self {
            snapshot: Snapshot {
                node_name: node_name.into(),
                node_ports,
                ..Snapshot::default()
            },
            ..Self::default()
        }
    }

    /// Takes in an event and says what it changed; an object that stays as it was changes nothing.
    pub fn apply(&mut self, event: Event) -> Change {
        let node = self.snapshot.own_node().cloned();
        let mut change = self.take(event);
        if change.policies {
            self.owners.follow(&self.snapshot);
        }
        // Which endpoints are near, and which addresses have node ports, hangs on this one node.
        change.services |= self.snapshot.own_node() != node.as_ref();
        change
    }

    fn take(&mut self, event: Event) -> Change {
        match event {
            Event::Applied(object) => {
                let key = object.key();
                self.objects.remove(&key);
                change(key.0, self.snapshot.insert(object))
            }
            Event::Deleted(kind, name) => {
                let changed = self.snapshot.remove(kind, &name);
                self.objects.remove(&(kind, name));
                change(kind, changed)
            }
            Event::Replaced(kind, objects) => {
                self.synced.insert(kind);
                self.objects.retain(|(rejected, _), _| *rejected != kind);
                change(kind, self.snapshot.replace(kind, objects))
            }
            Event::Rejected {
                kind,
                name,
                uid,
                message,
            } => {
                let changed = self.snapshot.remove(kind, &name);
                let reason = "Rejected";
                let flaw = Flaw {
                    uid,
                    reason,
                    message,
                };
                self.objects.insert((kind, name), flaw);
                change(kind, changed)
            }
            Event::Flawed {
                kind,
                name,
                uid,
                message,
            } => {
                let reason = "UsedInPart";
                let flaw = Flaw {
                    uid,
                    reason,
                    message,
                };
                self.objects.insert((kind, name), flaw);
                Change::default()
            }
            Event::File { name, message } => {
                match message {
                    Some(message) => self.files.insert(name, message),
                    None => self.files.remove(&name),
                };
                Change::default()
            }
        }
    }

    /// Takes in what leads where on this node.
    pub fn set_devices(&mut self, devices: DeviceFacts) -> Change {
        self.devices = devices;
        self.join_devices()
    }

    /// Takes in a pod's network. Its addresses and its device are no former sandbox's any more.
    pub fn announce(&mut self, sandbox: Sandbox) -> Change {
        let mut change = self.retire(|former| sandbox.replaces(former));
        let known = self.snapshot.sandboxes.get(&sandbox.attachment);
        if known.is_none_or(|known| **known != sandbox) {
            let name: Attachment = sandbox.attachment.clone();
            self.snapshot.sandboxes.insert(name, Arc::new(sandbox));
            self.owners.follow(&self.snapshot);
            self.join_devices();
            change.policies = true;
        }
        change
    }

    /// Forgets the sandboxes that are gone.
    pub fn retire(&mut self, is_gone: impl Fn(&Sandbox) -> bool) -> Change {
        let known = self.snapshot.sandboxes.values();
        let gone: Vec<Attachment> = known
            .filter(|sandbox| is_gone(sandbox))
            .map(|sandbox| sandbox.attachment.clone())
            .collect();
        if gone.is_empty() {
            return Change::default();
        }
        for attachment in gone {
            self.snapshot.sandboxes.remove(&attachment);
        }
        self.owners.follow(&self.snapshot);
        self.join_devices();
        Change {
            policies: true,
            ..Change::default()
        }
    }

    /// An empty state, seen from the same node.
    #[must_use]
    pub fn anew(&self) -> Self {
        let Snapshot {
            node_name,
            node_ports,
            ..
        } = &self.snapshot;
        Self::with_node_ports(node_name, node_ports.clone())
    }

    /// Takes over what a former state knows of the node itself: devices and sandboxes.
    pub fn succeed(&mut self, former: &Self) {
        self.devices = former.devices.clone();
        self.snapshot.sandboxes = former.snapshot.sandboxes.clone();
        self.owners.follow(&self.snapshot);
        self.join_devices();
    }

    /// Puts the devices of sandboxes in the place of what the kernel's tables say, which comes later and is at times outdated.
    fn join_devices(&mut self) -> Change {
        let mut devices = self.devices.clone();
        for sandbox in self.snapshot.sandboxes.values() {
            if let Some(device) = &sandbox.device {
                let addresses = sandbox.addresses.iter();
                let behind = addresses.map(|address| (*address, device.clone()));
                devices.devices.extend(behind);
            }
        }
        let known = &self.snapshot.devices;
        let policies = known.devices != devices.devices;
        let leading_out = known.nets != devices.nets;
        let before = self.own_node_ports();
        self.snapshot.devices = devices;
        Change {
            services: self.own_node_ports() != before,
            policies,
            devices: leading_out,
        }
    }

    fn own_node_ports(&self) -> BTreeSet<IpAddr> {
        self.snapshot.node_port_addresses(&self.snapshot.node_name)
    }

    /// All objects as of now.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The pod behind each address.
    #[must_use]
    pub fn owners(&self) -> &AddressOwners {
        &self.owners
    }

    /// Whether every kind has been listed. Before that, what is missing here may exist, and nothing may be deleted for it.
    #[must_use]
    pub fn synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.synced.contains(kind))
    }

    /// Everything that is skipped now: files, objects, and addresses that two live pods claim.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejected> {
        let files = self.files.iter().map(|(name, message)| Rejected {
            kind: "File",
            name: name.clone(),
            uid: String::new(),
            reason: "Rejected",
            message: message.clone(),
        });
        let objects = self.objects.iter().map(|((kind, name), flaw)| Rejected {
            kind: kind.as_str(),
            name: name.to_string(),
            uid: flaw.uid.clone(),
            reason: flaw.reason,
            message: flaw.message.clone(),
        });
        let mut all: Vec<_> = files.chain(objects).collect();
        all.extend(self.address_conflicts());
        all
    }

    /// Pods whose address is another's, by name.
    fn address_conflicts(&self) -> Vec<Rejected> {
        let contests = self.owners.contests();
        let mut conflicts: Vec<_> = contests
            .map(|(address, pod, owner)| Rejected {
                kind: Kind::Pod.as_str(),
                name: pod.name.to_string(),
                uid: pod.uid.clone(),
                reason: "AddressConflict",
                message: format!(
                    "address {address} is also that of pod {}, which is newer and gets it; delete one of the two",
                    owner.name
                ),
            })
            .collect();
        conflicts.sort();
        conflicts
    }
}

/// Which tables depend on a kind.
fn change(kind: Kind, changed: bool) -> Change {
    match kind {
        Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => Change {
            services: changed,
            ..Change::default()
        },
        Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::Pod
        | Kind::Namespace
        | Kind::Node => Change {
            policies: changed,
            ..Change::default()
        },
    }
}
