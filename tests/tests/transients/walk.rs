//! A cluster that changes at random, one edit after the other.

use weir::model::{Endpoint, Namespace, ObjectName, Peer, Policy, Protocol, Rule, Snapshot};
use weir_tests::fixture::{address, block, edit, policy, selector, snapshot, to};
use weir_tests::random::Random;

/// Values of label `app` on pods.
const APPS: [&str; 3] = ["a", "b", "c"];

/// The cluster as it is at first, and after each edit.
pub(crate) fn walk(seed: u64, edits: usize, devices: [u32; 2]) -> Vec<Snapshot> {
    let mut random = Random::new(seed);
    let mut current = snapshot(devices, vec![]);
    let base = current.clone();
    let mut states = vec![current.clone()];
    for _ in 0..edits {
        match random.below(5) {
            0 => set_endpoints(&mut current, &base, &mut random),
            1 => set_service(&mut current, &base, &mut random),
            // What policies rest on changes as one, whatever comes together. Services do so one by one, and by themselves: an old
            // policy may meet a new endpoint.
            _ => (0..=random.below(2)).for_each(|_| change(&mut current, &base, &mut random)),
        }
        states.push(current.clone());
    }
    states
}

fn change(cluster: &mut Snapshot, base: &Snapshot, random: &mut Random) {
    match random.below(6) {
        0..=2 => set_policy(cluster, random),
        3 => {
            let pod = ObjectName::new("shop", random.pick(&APPS));
            let app = random.pick(&APPS).to_owned();
            edit(&mut cluster.pods, |it| {
                if it.name == pod {
                    it.labels = [("app".to_owned(), app.clone())].into();
                }
            });
        }
        4 => {
            let mut namespace = Namespace {
                name: "shop".to_owned(),
                ..Namespace::default()
            };
            if random.one_in(2) {
                namespace.labels.insert("team".to_owned(), "web".to_owned());
            }
            cluster
                .namespaces
                .insert("shop".to_owned(), namespace.into());
        }
        _ => {
            let pod = ObjectName::new("shop", "c");
            if cluster.pods.remove(&pod).is_none() {
                cluster.pods.insert(pod.clone(), base.pods[&pod].clone());
            }
        }
    }
}

/// A policy comes, goes or is another one.
fn set_policy(cluster: &mut Snapshot, random: &mut Random) {
    let name = random.pick(&["p", "q", "r"]);
    let key = ObjectName::new("shop", name);
    if random.one_in(3) {
        cluster.policies.remove(&key);
        return;
    }
    let pod = random.pick(&["a", "b"]);
    let mut side = || (!random.one_in(3)).then(|| rules(random));
    let (ingress, egress) = (side(), side());
    let policy: Policy = policy(name, pod, ingress, egress);
    cluster.policies.insert(key, policy.into());
}

fn rules(random: &mut Random) -> Vec<Rule> {
    let ports: [&[_]; 3] = [
        &[],
        &[(Protocol::Tcp, 8080, 8080)],
        &[(Protocol::Udp, 53, 8080), (Protocol::Tcp, 1, 100)],
    ];
    (0..random.below(3))
        .map(|_| match random.below(4) {
            0 => block(
                "10.0.0.0/8",
                random.pick(&[&["10.0.1.0/24"], &["10.0.2.1/32"]]),
            ),
            1 => block("0.0.0.0/0", &[]),
            2 => Rule {
                peers: vec![Peer::Pods {
                    namespaces: Some(team()),
                    pods: None,
                }],
                ports: vec![],
            },
            _ => to(random.pick(&APPS), random.pick(&ports)),
        })
        .collect()
}

/// Namespaces with `team: web`.
fn team() -> weir::model::Selector {
    let mut team = selector("web");
    for requirement in &mut team.requirements {
        requirement.key = "team".to_owned();
    }
    team
}

/// A Service has other endpoints.
fn set_endpoints(cluster: &mut Snapshot, base: &Snapshot, random: &mut Random) {
    let service = random.pick(&["all", "open", "narrow", "none", "b"]);
    let chosen = random.below(8);
    for (name, slice) in &base.slices {
        if slice.service.name != service {
            continue;
        }
        let mut slice = (**slice).clone();
        let v6 = name.name.ends_with("-1");
        let pods = [
            ("10.0.1.1", "fd00:1::1"),
            ("10.0.1.2", "fd00:1::2"),
            ("10.0.2.1", "fd00:2::1"),
        ];
        slice.endpoints = pods
            .iter()
            .enumerate()
            .filter(|(index, _)| chosen >> index & 1 == 1)
            .map(|(_, (v4, six))| Endpoint::new(address(if v6 { six } else { v4 })))
            .collect();
        cluster.slices.insert(name.clone(), slice.into());
    }
}

/// A Service comes, goes, or is open to others.
fn set_service(cluster: &mut Snapshot, base: &Snapshot, random: &mut Random) {
    let name = ObjectName::new("shop", random.pick(&["all", "narrow", "open"]));
    if cluster.services.contains_key(&name) && random.one_in(2) {
        cluster.services.remove(&name);
        return;
    }
    let mut service = (*base.services[&name]).clone();
    if name.name != "all" {
        let ranges = [
            vec![],
            vec!["10.0.1.0/31"],
            vec!["10.0.1.2/32", "10.0.2.0/24"],
        ];
        service.source_ranges = random
            .pick(&ranges)
            .into_iter()
            .map(|range| range.parse().expect("a range"))
            .collect();
    }
    if random.one_in(3) {
        service.ports.pop();
    }
    cluster.services.insert(name, service.into());
}
