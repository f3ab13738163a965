use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use weir_common::abi::Address;

use super::*;
use crate::compile::policies;
use crate::compile::testing::{edit, ip, labels, pod, policy, selector, snapshot, snapshots};
use crate::model::{
    Attachment, ContainerPort, Direction, Peer, Pod, PolicyPort, PortMatch, Protocol, Rule,
    Sandbox, rule_id,
};

/// What one snapshot of a sequence takes from a random one; the rest stays as it was.
#[derive(Clone, Copy, Debug)]
enum Part {
    Pods,
    Policies,
    OtherRules,
    ClusterPolicies,
    Devices,
    Nodes,
    OtherLabels,
    NoNamespace,
    Sandboxes,
    NoSandbox,
    Everything,
}

fn parts() -> impl Strategy<Value = Part> {
    prop_oneof![
        Just(Part::Pods),
        Just(Part::Policies),
        Just(Part::OtherRules),
        Just(Part::ClusterPolicies),
        Just(Part::Devices),
        Just(Part::Nodes),
        Just(Part::OtherLabels),
        Just(Part::NoNamespace),
        Just(Part::Sandboxes),
        Just(Part::NoSandbox),
        Just(Part::Everything),
    ]
}

/// A sandbox at an address that pods of random snapshots have, of a pod that they may have.
fn sandbox(name: &str, address: &str) -> Arc<Sandbox> {
    Arc::new(Sandbox {
        attachment: Attachment {
            container: name.to_owned(),
            interface: "eth0".to_owned(),
        },
        network: "pods".to_owned(),
        pod: ObjectName::new("a", name),
        uid: format!("a/{name}"),
        addresses: vec![ip(address)],
        device: None,
    })
}

fn change(now: &mut Snapshot, part: Part, other: Snapshot) {
    match part {
        Part::Pods => now.pods = other.pods,
        Part::Policies => now.policies = other.policies,
        Part::OtherRules => edit(&mut now.policies, |policy| {
            std::mem::swap(&mut policy.ingress, &mut policy.egress);
        }),
        Part::ClusterPolicies => now.cluster_policies = other.cluster_policies,
        Part::Devices => now.devices = other.devices,
        Part::Nodes => edit(&mut now.nodes, |node| {
            node.labels.insert("app".to_owned(), "b".to_owned());
        }),
        Part::OtherLabels => edit(&mut now.namespaces, |namespace| {
            let other = if namespace.labels["name"] == "a" {
                "b"
            } else {
                "a"
            };
            namespace.labels = labels(&[("name", other)]);
        }),
        Part::NoNamespace => {
            now.namespaces.remove("a");
        }
        Part::Sandboxes => {
            for sandbox in [sandbox("n0", "10.0.0.1"), sandbox("n9", "10.0.0.2")] {
                now.sandboxes.insert(sandbox.attachment.clone(), sandbox);
            }
        }
        Part::NoSandbox => now.sandboxes.clear(),
        Part::Everything => *now = other,
    }
}

/// Owners of a snapshot by their definition.
fn defined(snapshot: &Snapshot) -> BTreeMap<IpAddr, Arc<Pod>> {
    let mut owners = BTreeMap::new();
    for pod in snapshot.pods.values().filter(|pod| pod.owns_addresses()) {
        for address in &pod.ips {
            let owner = owners.entry(*address).or_insert_with(|| Arc::clone(pod));
            if pod.precedence() > owner.precedence() {
                *owner = Arc::clone(pod);
            }
        }
    }
    for sandbox in snapshot.sandboxes.values() {
        for address in &sandbox.addresses {
            match snapshot.pod_in(sandbox) {
                Some(pod) if pod.owns_addresses() => {
                    owners.insert(*address, Arc::clone(pod));
                }
                Some(_) => {}
                None => {
                    owners.remove(address);
                }
            }
        }
    }
    owners
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn what_was_compiled_before_makes_no_difference(
        changes in vec((parts(), snapshots()), 1..8)
    ) {
        let mut compiler = PolicyCompiler::default();
        let mut owners = AddressOwners::default();
        let mut snapshot = Snapshot {
            node_name: crate::compile::testing::NODE.to_owned(),
            ..Snapshot::default()
        };
        for (part, other) in changes {
            change(&mut snapshot, part, other);
            owners.follow(&snapshot);
            let found: BTreeMap<_, _> = owners.all().clone().into_iter().collect();
            prop_assert_eq!(&found, &defined(&snapshot));
            let local = found.iter().filter(|(_, pod)| pod.node == snapshot.node_name);
            prop_assert!(local.eq(owners.local()));
            prop_assert_eq!(compiler.compile(&snapshot, &owners), &policies(&snapshot));
        }
    }
}

/// Many pods elsewhere, of many workloads, that a local pod lets in.
fn large() -> Snapshot {
    let mut pods = vec![pod("a", "db", "db", "10.0.0.1")];
    for number in 0..2_000_u16 {
        let [high, low] = number.to_be_bytes();
        let app = format!("app{}", number / 10);
        let mut pod = pod(
            "b",
            &format!("p{number}"),
            &app,
            &format!("10.1.{high}.{low}"),
        );
        pod.node = "there".to_owned();
        pods.push(pod);
    }
    let mut allow = policy("a", "allow", selector(&[("app", "db")]));
    let peer = |number| Peer::Pods {
        namespaces: Some(selector(&[("name", "b")])),
        pods: Some(selector(&[("app", &format!("app{number}"))])),
    };
    allow.ingress = Some(vec![Rule {
        peers: (0..200).map(peer).collect(),
        ports: Vec::new(),
    }]);
    snapshot(pods, vec![allow])
}

#[test]
fn a_change_leaves_what_it_is_not_about_shared() {
    let mut snapshot = large();
    let mut owners = AddressOwners::of(&snapshot);
    let mut compiler = PolicyCompiler::default();
    let before = compiler.compile(&snapshot, &owners).clone();
    assert_eq!(before.addresses.len(), 2_000);
    assert_eq!(before.classes.len(), 200);

    let name = ObjectName::new("b", "p7");
    let mut pod = Pod::clone(&snapshot.pods[&name]);
    pod.labels = labels(&[("app", "app9")]);
    snapshot.pods.insert(name, Arc::new(pod));
    owners.follow(&snapshot);
    let after = compiler.compile(&snapshot, &owners).clone();
    assert_eq!(before.addresses.diff(&after.addresses).count(), 1);
    assert_eq!(
        before.classes.diff(&after.classes).count(),
        2,
        "one more, one less"
    );
    assert!(before.rows.ptr_eq(&after.rows));
    assert!(before.endpoints.ptr_eq(&after.endpoints));
    assert!(before.rules.ptr_eq(&after.rules));
}

#[test]
fn a_port_name_tells_pods_apart_as_long_as_a_rule_uses_it() {
    let serving = |name: &str, address: &str, port| {
        let mut pod = pod("a", name, "web", address);
        pod.ports = vec![ContainerPort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port,
        }];
        pod
    };
    let pods = || {
        vec![
            pod("a", "db", "db", "10.0.0.1"),
            serving("one", "10.0.0.2", 80),
            serving("other", "10.0.0.3", 81),
        ]
    };
    let mut to_http = policy("a", "to-http", selector(&[("app", "db")]));
    to_http.egress = Some(vec![Rule {
        peers: Vec::new(),
        ports: vec![PolicyPort {
            protocol: Protocol::Tcp,
            port: PortMatch::Named("http".to_owned()),
        }],
    }]);
    let mut compiler = PolicyCompiler::default();
    for (policies_of, classes) in [(vec![], 0), (vec![to_http], 2), (vec![], 0)] {
        let snapshot = snapshot(pods(), policies_of);
        let owners = AddressOwners::of(&snapshot);
        let tables = compiler.compile(&snapshot, &owners);
        assert_eq!(tables.classes.len(), classes);
        assert_eq!(tables, &policies(&snapshot));
    }
}

#[test]
fn a_block_that_comes_later_holds_the_pods_that_are_known() {
    let allow = |name: &str, peer| {
        let mut policy = policy("a", name, selector(&[("app", "db")]));
        policy.ingress = Some(vec![Rule {
            peers: vec![peer],
            ports: Vec::new(),
        }]);
        policy
    };
    let web = Peer::Pods {
        namespaces: None,
        pods: Some(selector(&[("app", "web")])),
    };
    let block = Peer::Block {
        cidr: "10.0.0.2/31".parse().unwrap(),
        except: Vec::new(),
    };
    let web = allow("web", web);
    let both = vec![web.clone(), allow("block", block)];
    let mut compiler = PolicyCompiler::default();
    for policies_of in [vec![web.clone()], both, vec![web]] {
        let pods = vec![
            pod("a", "db", "db", "10.0.0.1"),
            pod("a", "inside", "web", "10.0.0.2"),
            pod("a", "outside", "web", "10.0.0.4"),
        ];
        let snapshot = snapshot(pods, policies_of);
        let owners = AddressOwners::of(&snapshot);
        assert_eq!(compiler.compile(&snapshot, &owners), &policies(&snapshot));
    }
}

#[test]
fn of_rules_with_one_id_each_gets_its_own_whichever_policy_came_first() {
    let id = |name: &str| rule_id(&ObjectName::new("a", name), "", Direction::Ingress, 0, 0);
    let mut known = BTreeMap::new();
    let (one, other) = (0..)
        .map(|number| format!("p{number}"))
        .find_map(|name| {
            let former = known.insert(id(&name), name.clone());
            former.map(|former| (former, name))
        })
        .expect("there are more names than ids");
    let isolating = |name: &str| {
        let mut policy = policy("a", name, selector(&[]));
        policy.ingress = Some(vec![Rule::default()]);
        policy
    };
    let pods = || vec![pod("a", "db", "db", "10.0.0.1")];
    let both = || vec![isolating(&one), isolating(&other)];
    let wanted = policies(&snapshot(pods(), both()));
    assert_eq!(wanted.rules.len(), 2);
    for first in both() {
        let mut compiler = PolicyCompiler::default();
        let mut compiled = |policies| {
            let snapshot = snapshot(pods(), policies);
            let owners = AddressOwners::of(&snapshot);
            compiler.compile(&snapshot, &owners).clone()
        };
        let name = first.name.clone();
        compiled(vec![first]);
        assert_eq!(compiled(both()), wanted, "{name} first");
        assert_eq!(compiled(both()), wanted, "{name} first, and again");
    }
}

/// What a compiler says after a change is what one says that has seen nothing before.
fn follow(compiler: &mut PolicyCompiler, owners: &mut AddressOwners, snapshot: &Snapshot) {
    owners.follow(snapshot);
    assert_eq!(compiler.compile(snapshot, owners), &policies(snapshot));
}

#[test]
fn a_pod_that_is_changed_has_its_new_ports() {
    let mut allow = policy("a", "allow", selector(&[("app", "db")]));
    allow.ingress = Some(vec![Rule {
        peers: Vec::new(),
        ports: vec![PolicyPort {
            protocol: Protocol::Tcp,
            port: PortMatch::Named("http".to_owned()),
        }],
    }]);
    let serving = |port| {
        let mut pod = pod("a", "db", "db", "10.0.0.1");
        pod.ports = vec![ContainerPort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port,
        }];
        pod
    };
    let (mut compiler, mut owners) = (PolicyCompiler::default(), AddressOwners::default());
    let mut snapshot = snapshot(vec![serving(80)], vec![allow]);
    follow(&mut compiler, &mut owners, &snapshot);
    let changed = Arc::new(serving(82));
    snapshot.pods.insert(changed.name.clone(), changed);
    follow(&mut compiler, &mut owners, &snapshot);
}

#[test]
fn a_row_that_pods_share_stays_until_the_last_of_them_is_gone() {
    let mut deny = policy("a", "deny", selector(&[("app", "web")]));
    deny.ingress = Some(Vec::new());
    let pods = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| pod("a", ip, "web", ip));
    let mut snapshot = snapshot(pods.to_vec(), vec![deny]);
    let (mut compiler, mut owners) = (PolicyCompiler::default(), AddressOwners::default());
    follow(&mut compiler, &mut owners, &snapshot);
    for pod in pods {
        assert_eq!(compiler.tables.rows.len(), 1);
        snapshot.pods.remove(&pod.name);
        follow(&mut compiler, &mut owners, &snapshot);
    }
    assert!(compiler.tables.rows.is_empty());
}

#[test]
fn an_address_that_goes_to_another_namespace_is_that_ones_peer() {
    let mut allow = policy("a", "allow", selector(&[("app", "db")]));
    allow.ingress = Some(vec![Rule {
        peers: vec![Peer::Pods {
            namespaces: Some(selector(&[("name", "b")])),
            pods: None,
        }],
        ports: Vec::new(),
    }]);
    let db = || pod("a", "db", "db", "10.0.0.1");
    let (mut compiler, mut owners) = (PolicyCompiler::default(), AddressOwners::default());
    for (namespace, is_peer) in [("a", false), ("b", true), ("a", false)] {
        let other = pod(namespace, "web", "web", "10.0.0.2");
        let snapshot = snapshot(vec![db(), other], vec![allow.clone()]);
        follow(&mut compiler, &mut owners, &snapshot);
        let known = &compiler.tables.addresses;
        assert_eq!(known.contains_key(&Address::from(ip("10.0.0.2"))), is_peer);
    }
}

#[test]
fn nodes_are_peers_whatever_comes_later() {
    let mut allow = policy("a", "allow", selector(&[("app", "db")]));
    allow.ingress = Some(vec![Rule {
        peers: vec![Peer::Nodes(selector(&[("role", "gate")]))],
        ports: Vec::new(),
    }]);
    let node = |role: &str| Node {
        name: "gate".to_owned(),
        addresses: vec![ip("192.0.2.10")],
        labels: labels(&[("role", role)]),
        ..Node::default()
    };
    let (mut compiler, mut owners) = (PolicyCompiler::default(), AddressOwners::default());
    for (role, policies, is_peer) in [
        ("gate", vec![], false),
        ("gate", vec![allow.clone()], true),
        ("other", vec![allow.clone()], false),
        ("gate", vec![allow], true),
        ("gate", vec![], false),
    ] {
        let mut snapshot = snapshot(vec![pod("a", "db", "db", "10.0.0.1")], policies);
        snapshot
            .nodes
            .insert("gate".to_owned(), Arc::new(node(role)));
        follow(&mut compiler, &mut owners, &snapshot);
        let known = &compiler.tables.addresses;
        assert_eq!(
            known.contains_key(&Address::from(ip("192.0.2.10"))),
            is_peer
        );
    }
}
