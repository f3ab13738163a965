//! Which pods this node must judge, and which policies select each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::chosen::PolicyKey;
use crate::compile::RowId;
use crate::model::{AddressOwners, ObjectName, Pod, Snapshot};

/// The pods of this node that own an address, by name.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    pub(super) known: BTreeMap<ObjectName, Subject>,
    /// How many each policy selects.
    chosen: BTreeMap<PolicyKey, usize>,
}

/// A pod of this node with the addresses that are its own.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: Vec<IpAddr>,
    /// The policies of all tiers that select it.
    pub(super) selected: BTreeSet<PolicyKey>,
    /// Its rows for ingress and egress.
    pub(super) rows: [RowId; 2],
}

/// Objects that differ from those of the last time.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Policies of all tiers.
    pub(super) policies: BTreeSet<PolicyKey>,
    /// Namespaces.
    pub(super) namespaces: BTreeSet<String>,
}

/// What became of the subjects.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Those about which policies may say something else than before.
    pub(super) restated: BTreeSet<ObjectName>,
    /// Rows of those that are gone.
    pub(super) left: Vec<RowId>,
    /// Policies that differ, or that select somebody now, or nobody any more.
    pub(super) policies: BTreeSet<PolicyKey>,
}

impl Subjects {
    /// Becomes the subjects of another snapshot.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        owners: &AddressOwners,
        changes: &Changes,
    ) -> News {
        let mut addresses: BTreeMap<&ObjectName, (&Arc<Pod>, Vec<IpAddr>)> = BTreeMap::new();
        for (address, pod) in owners.local() {
            let entry = addresses.entry(&pod.name);
            entry.or_insert((pod, Vec::new())).1.push(*address);
        }
        let mut news = News {
            policies: changes.policies.clone(),
            ..News::default()
        };
        let gone: Vec<ObjectName> = self
            .known
            .keys()
            .filter(|name| !addresses.contains_key(name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(subject) = self.known.remove(&name) {
                self.count(&subject.selected, &BTreeSet::new(), &mut news);
                news.left.extend(subject.rows);
            }
        }
        for (name, (pod, addresses)) in addresses {
            let former = self.known.remove(name);
            let same = former.as_ref().filter(|it| Arc::ptr_eq(&it.pod, pod));
            let selected = match same {
                Some(subject) => select_again(&subject.selected, snapshot, pod, changes),
                None => select(snapshot, pod),
            };
            let is_same = same.is_some();
            let (before, rows) = match former {
                Some(subject) => (subject.selected, subject.rows),
                None => (BTreeSet::new(), [RowId::OPEN; 2]),
            };
            let says_other = || selected.iter().any(|it| changes.policies.contains(it));
            if !is_same || selected != before || says_other() {
                news.restated.insert(name.clone());
                self.count(&before, &selected, &mut news);
            }
            let subject = Subject {
                pod: Arc::clone(pod),
                addresses,
                selected,
                rows,
            };
            self.known.insert(name.clone(), subject);
        }
        news
    }

    /// Whether a policy selects any of them.
    pub(super) fn choose(&self, policy: &PolicyKey) -> bool {
        self.chosen.contains_key(policy)
    }

    fn count(&mut self, old: &BTreeSet<PolicyKey>, new: &BTreeSet<PolicyKey>, news: &mut News) {
        for key in new.difference(old) {
            let count = self.chosen.entry(key.clone()).or_default();
            *count += 1;
            if *count == 1 {
                news.policies.insert(key.clone());
            }
        }
        for key in old.difference(new) {
            let Some(count) = self.chosen.get_mut(key) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.chosen.remove(key);
                news.policies.insert(key.clone());
            }
        }
    }
}

/// The policies that select a pod.
fn select(snapshot: &Snapshot, pod: &Pod) -> BTreeSet<PolicyKey> {
    let namespace = pod.name.namespace.as_str();
    let first = ObjectName::new(namespace, "");
    let policies = snapshot.policies.range(first..);
    let policies = policies.take_while(|(name, _)| name.namespace == namespace);
    let mut selected: BTreeSet<PolicyKey> = policies
        .filter(|(_, policy)| policy.pod_selector.matches(&pod.labels))
        .map(|(name, _)| PolicyKey::Namespaced(name.clone()))
        .collect();
    select_cluster(&mut selected, snapshot, pod);
    selected
}

/// The same, from those that selected it before other policies and labels of namespaces.
fn select_again(
    before: &BTreeSet<PolicyKey>,
    snapshot: &Snapshot,
    pod: &Pod,
    changes: &Changes,
) -> BTreeSet<PolicyKey> {
    let mut selected = before.clone();
    let mut cluster = changes.namespaces.contains(&pod.name.namespace);
    for key in &changes.policies {
        let PolicyKey::Namespaced(name) = key else {
            cluster = true;
            continue;
        };
        let policy = snapshot.policies.get(name);
        let selects = name.namespace == pod.name.namespace
            && policy.is_some_and(|policy| policy.pod_selector.matches(&pod.labels));
        if selects {
            selected.insert(key.clone());
        } else {
            selected.remove(key);
        }
    }
    if cluster {
        selected.retain(|key| matches!(key, PolicyKey::Namespaced(_)));
        select_cluster(&mut selected, snapshot, pod);
    }
    selected
}

fn select_cluster(selected: &mut BTreeSet<PolicyKey>, snapshot: &Snapshot, pod: &Pod) {
    let namespace = snapshot.namespaces.get(&pod.name.namespace);
    let labels = namespace.map(|namespace| &namespace.labels);
    let policies = snapshot.cluster_policies.iter();
    let selecting = policies.filter(|(_, policy)| policy.selects(labels, &pod.labels));
    selected.extend(selecting.map(|(name, _)| PolicyKey::Cluster(name.clone())));
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
