//! Tables that are outgrown are made anew, larger; those that are not stay, whatever comes and goes in them.

use ipnetwork::IpNetwork;

use super::super::{MemoryMaps, Planner, Step, Table, entries};
use super::planning::{allow, serve};
use crate::compile::testing::{edit, pod, policy, selector, snapshot};
use crate::compile::{Tables, compile};
use crate::model::{Peer, Pod, Policy, Rule, Selector, Service, ServicePort};

/// A Service with so many frontends: its ports, and one for all others.
fn frontends(first: u16, count: usize) -> Tables {
    let mut objects = snapshot(vec![], vec![]);
    serve(&mut objects, 1, 0..0);
    edit(&mut objects.services, |service: &mut Service| {
        let port = |port| ServicePort {
            port,
            ..ServicePort::default()
        };
        service.ports = (first..).map(port).take(count - 1).collect();
    });
    compile(&objects)
}

/// So many ranges of one load balancer.
fn sources(first: u16, count: usize) -> Tables {
    let mut objects = snapshot(vec![], vec![]);
    serve(&mut objects, 1, 0..0);
    edit(&mut objects.services, |service: &mut Service| {
        service.load_balancer_ips = vec![[192, 0, 2, 1].into()];
        service.source_ranges = (first..).map(block).take(count).collect();
    });
    compile(&objects)
}

fn block(number: u16) -> IpNetwork {
    let [high, low] = number.to_be_bytes();
    IpNetwork::new([10, high, low, 0].into(), 24).unwrap()
}

/// Pods with addresses of their own; those that are not on this node are peers.
fn pods(first: u16, count: usize, app: &str, node: &str) -> Vec<Pod> {
    let pod = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut pod = pod(
            "a",
            &format!("{app}-{number}"),
            app,
            &format!("10.0.{high}.{low}"),
        );
        pod.node = node.to_owned();
        pod
    };
    (first..).map(pod).take(count).collect()
}

fn endpoints(first: u16, count: usize) -> Tables {
    compile(&snapshot(pods(first, count, "web", "here"), vec![]))
}

fn classes(first: u16, count: usize) -> Tables {
    let mut all = pods(first, count, "web", "there");
    all.push(pod("a", "db", "db", "10.8.0.1"));
    let mut policy = allow("p", "web", 80);
    policy.pod_selector = selector(&[("app", "db")]);
    compile(&snapshot(all, vec![policy]))
}

fn prefixes(first: u16, count: usize) -> Tables {
    let block = |number| Peer::Block {
        cidr: block(number),
        except: vec![],
    };
    let policy = Policy {
        ingress: Some(vec![Rule {
            peers: (first..).map(block).take(count).collect(),
            ports: vec![],
        }]),
        ..policy("a", "blocks", Selector::default())
    };
    let pods = vec![pod("a", "db", "db", "10.8.0.1")];
    compile(&snapshot(pods, vec![policy]))
}

/// A row that tells as many classes apart: peers with the bits of their numbers as labels, of which the policy names each.
fn verdicts(first: u16, count: usize) -> Tables {
    const BITS: [&str; 14] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13",
    ];
    let mut all = vec![pod("a", "db", "db", "10.8.0.1")];
    for (number, mut peer) in (first..).zip(pods(first, count, "web", "there")) {
        let bits = BITS.iter().enumerate();
        let bits = bits.filter(|(bit, _)| number >> bit & 1 == 1);
        peer.labels = bits
            .map(|(_, name)| ((*name).to_owned(), "set".to_owned()))
            .collect();
        all.push(peer);
    }
    let peer = |name: &&str| Peer::Pods {
        namespaces: None,
        pods: Some(selector(&[(name, "set")])),
    };
    let policy = Policy {
        ingress: Some(vec![Rule {
            peers: BITS.iter().map(peer).collect(),
            ports: vec![],
        }]),
        ..policy("a", "bits", selector(&[("app", "db")]))
    };
    compile(&snapshot(all, vec![policy]))
}

#[test]
fn a_table_is_made_anew_when_it_is_outgrown() {
    type Case = (Table, usize, fn(u16, usize) -> Tables);
    let cases: [Case; 5] = [
        (Table::Frontend, 1 << 10, frontends),
        (Table::Source, 1 << 10, sources),
        (Table::Endpoint, 1 << 9, endpoints),
        (Table::Class, 1 << 12, classes),
        (Table::Prefix, 1 << 10, prefixes),
    ];
    for (table, size, tables) in cases {
        let mut planner = Planner::new();
        let mut maps = MemoryMaps::new();
        // What comes is there before what goes has gone.
        for (first, count, begun) in [
            (1, 2, Some(size)),
            (1, size, None),
            (1, size - 1, None),
            (2, size - 1, None),
            (2, size, None),
            (3, size, Some(2 * size)),
            (3, size + 1, None),
        ] {
            let desired = tables(first, count);
            let plan = planner.plan(&desired).unwrap();
            let sizes = plan.steps.iter().find_map(|step| match step {
                Step::Begin(sizes) => Some(sizes[&table] as usize),
                _ => None,
            });
            assert_eq!(sizes, begun, "{count} from {first} in {table:?}");
            // Maps that are full refuse.
            maps.execute(&plan).unwrap();
        }
    }
}

#[test]
fn what_goes_makes_room_in_the_table_of_verdicts() {
    let mut planner = Planner::new();
    for round in 0..12 {
        let desired = verdicts(1 + 1000 * round, 1000);
        assert_eq!(entries(&desired)[&Table::Verdict], 1000);
        let plan = planner.plan(&desired).unwrap();
        assert_eq!(plan.is_whole(), round == 0, "round {round}");
    }
}
