//! Which pods this node must judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Pod, Snapshot};

/// A pod of this node with the addresses that are its own.
pub(super) struct Local {
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: Vec<IpAddr>,
    /// The API has not told of it, only a CNI plugin: nothing but its node may reach it, and it reaches nothing.
    pub(super) stranger: bool,
}

/// The pods of this node that own an address, by name, and those that the API has not told of.
pub(super) fn local(snapshot: &Snapshot, owners: &BTreeMap<IpAddr, &Arc<Pod>>) -> Vec<Local> {
    let mut local = BTreeMap::new();
    for (address, pod) in owners
        .iter()
        .filter(|(_, pod)| pod.node == snapshot.node_name)
    {
        local
            .entry(&pod.name)
            .or_insert_with(|| Local {
                pod: Arc::clone(pod),
                addresses: Vec::new(),
                stranger: false,
            })
            .addresses
            .push(*address);
    }
    let strangers = snapshot.strangers().map(|sandbox| Local {
        pod: Arc::new(sandbox.stranger(&snapshot.node_name)),
        addresses: sandbox.addresses.clone(),
        stranger: true,
    });
    local.into_values().chain(strangers).collect()
}

/// Which local pod is behind each device. A device that is being handed from one pod to the next belongs to the newer.
pub(super) fn devices<'a>(snapshot: &Snapshot, local: &'a [Local]) -> BTreeMap<u32, &'a Arc<Pod>> {
    let mut devices: BTreeMap<u32, &Arc<Pod>> = BTreeMap::new();
    for Local { pod, addresses, .. } in local {
        let known: BTreeSet<u32> = addresses
            .iter()
            .filter_map(|address| snapshot.devices.devices.get(address))
            .map(|device| device.ifindex)
            .collect();
        for ifindex in known {
            let owner = devices.entry(ifindex).or_insert(pod);
            if pod.precedence() > owner.precedence() {
                *owner = pod;
            }
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use weir_common::abi::EndpointKey;

    use super::*;
    use crate::compile::testing::{ip, pod, policy, selector, snapshot};
    use crate::compile::{Verdict, judge, policies};
    use crate::model::{Attachment, Direction, ObjectName, PodDevice, Sandbox};

    const ADDRESS: &str = "10.0.0.9";
    const DEVICE: u32 = 7;

    /// A sandbox of pod `a/web` with this UID.
    fn sandbox(uid: &str) -> Arc<Sandbox> {
        Arc::new(Sandbox {
            attachment: Attachment {
                container: "c".to_owned(),
                interface: "eth0".to_owned(),
            },
            network: "pods".to_owned(),
            pod: ObjectName::new("a", "web"),
            uid: uid.to_owned(),
            addresses: vec![ip(ADDRESS)],
            device: None,
        })
    }

    /// What the tables say of the sandbox's address: for ingress and for egress, from and to a pod, `None` if it is no endpoint.
    fn verdicts(snapshot: &Snapshot) -> Option<[Verdict; 2]> {
        let tables = policies(snapshot);
        let entry = tables
            .endpoints
            .get(&EndpointKey::address(ip(ADDRESS).into()))?;
        assert_eq!(entry.ifindex, DEVICE);
        let behind = tables.endpoints.get(&EndpointKey::device(DEVICE));
        assert_eq!(behind, Some(entry), "its device is its own");
        let judged = |direction| judge(&tables, entry, direction, ip("10.0.0.1"), 6, 80);
        Some([Direction::Ingress, Direction::Egress].map(judged))
    }

    #[test]
    fn what_is_in_a_sandbox_is_cut_off_until_the_api_tells_of_it() {
        let (open, shut) = (Verdict::Open, Verdict::Denied(None));
        let isolated = || {
            let mut policy = policy("a", "deny", selector(&[("app", "web")]));
            policy.ingress = Some(Vec::new());
            vec![policy]
        };
        let known = || {
            let mut pod = pod("a", "web", "web", ADDRESS);
            pod.ips.clear();
            pod
        };
        let with = |change: fn(&mut Pod)| {
            let mut pod = known();
            change(&mut pod);
            vec![pod]
        };
        for (what, pods, uid, policies, wanted) in [
            ("nobody", vec![], "a/web", vec![], Some([shut, shut])),
            ("itself", vec![known()], "a/web", vec![], Some([open, open])),
            (
                "itself, isolated",
                vec![known()],
                "a/web",
                isolated(),
                Some([shut, open]),
            ),
            ("no UID", vec![known()], "", vec![], Some([open, open])),
            (
                "a former pod with its name and address",
                with(|pod| pod.ips = vec![ip(ADDRESS)]),
                "new",
                isolated(),
                Some([shut, shut]),
            ),
            (
                "another pod with its address",
                with(|pod| {
                    pod.name.name = "old".to_owned();
                    pod.ips = vec![ip(ADDRESS)];
                }),
                "a/web",
                vec![],
                Some([shut, shut]),
            ),
            (
                "the object of a static pod",
                with(|pod| pod.mirrors = Some("hash".to_owned())),
                "hash",
                isolated(),
                Some([shut, open]),
            ),
            (
                "itself, at its end",
                with(|pod| pod.terminal = true),
                "a/web",
                isolated(),
                None,
            ),
        ] {
            let mut snapshot = snapshot(pods, policies);
            let sandbox = sandbox(uid);
            let key = sandbox.attachment.clone();
            snapshot.sandboxes.insert(key, sandbox);
            let device = PodDevice {
                ifindex: DEVICE,
                name: "veth7".to_owned(),
            };
            snapshot.devices.devices.insert(ip(ADDRESS), device);
            assert_eq!(verdicts(&snapshot), wanted, "{what}");
        }
    }

    #[test]
    fn a_pod_in_a_sandbox_is_a_peer_before_the_api_shows_its_address() {
        let mut peer = pod("a", "web", "web", ADDRESS);
        peer.ips.clear();
        let mut allow = policy("a", "allow", selector(&[("app", "db")]));
        allow.ingress = Some(vec![crate::model::Rule {
            peers: vec![crate::model::Peer::Pods {
                namespaces: None,
                pods: Some(selector(&[("app", "web")])),
            }],
            ports: Vec::new(),
        }]);
        let db = pod("a", "db", "db", "10.0.0.1");
        let mut snapshot = snapshot(vec![peer, db], vec![allow]);
        let judged = |snapshot: &Snapshot| {
            let tables = policies(snapshot);
            let db = &tables.endpoints[&EndpointKey::address(ip("10.0.0.1").into())];
            judge(&tables, db, Direction::Ingress, ip(ADDRESS), 6, 80).passes()
        };
        assert!(!judged(&snapshot));
        let sandbox = sandbox("a/web");
        snapshot
            .sandboxes
            .insert(sandbox.attachment.clone(), sandbox);
        assert!(judged(&snapshot));
    }
}
