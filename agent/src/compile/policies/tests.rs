mod tiers;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use weir_common::abi::EndpointKey;

use super::super::testing::{
    PEERS, PORTS, edit, ip, labels, pod, policy, port, selector, snapshot, snapshots,
};
use super::super::{EndpointEntry, RowId, Verdict, judge};
use super::*;
use crate::model::{
    Action, ContainerPort, Direction, ObjectName, Peer, Pod, PodDevice, Policy, PolicyPort,
    PortMatch, Protocol, Rule, Selector, Tier,
};

const SUBJECT: &str = "10.0.0.1";

fn pods_of(namespaces: Option<Selector>, pods: Option<Selector>) -> Peer {
    Peer::Pods { namespaces, pods }
}

fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
    }
}

fn rule(peers: Vec<Peer>, ports: Vec<PolicyPort>) -> Rule {
    Rule { peers, ports }
}

fn tcp(number: u16) -> PolicyPort {
    port(Protocol::Tcp, PortMatch::Range(number, number))
}

fn named(name: &str) -> PolicyPort {
    port(Protocol::Tcp, PortMatch::Named(name.to_owned()))
}

fn container(name: &str, protocol: Protocol, port: u16) -> ContainerPort {
    ContainerPort {
        name: name.to_owned(),
        protocol,
        port,
    }
}

fn ingress(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        ingress: Some(rules),
        ..policy("a", name, Selector::default())
    }
}

fn egress(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        egress: Some(rules),
        ..policy("a", name, Selector::default())
    }
}

/// The pods of most tests: the subject, a neighbour of its namespace, one of another namespace.
fn three() -> Vec<Pod> {
    vec![
        pod("a", "subject", "db", SUBJECT),
        pod("a", "near", "web", "10.0.0.2"),
        pod("b", "far", "web", "10.0.0.3"),
    ]
}

fn at<'a>(tables: &'a PolicyTables, address: &str) -> &'a EndpointEntry {
    &tables.endpoints[&EndpointKey::address(ip(address).into())]
}

fn passes(
    tables: &PolicyTables,
    direction: Direction,
    peer: &str,
    protocol: u8,
    port: u16,
) -> bool {
    judge(
        tables,
        at(tables, SUBJECT),
        direction,
        ip(peer),
        protocol,
        port,
    )
    .passes()
}

/// Of a list of peers, those whose TCP connections to port 80 of the subject pass.
fn admitted<'a>(rules: Vec<Rule>, peers: &[&'a str]) -> Vec<&'a str> {
    let tables = policies(&snapshot(three(), vec![ingress("p", rules)]));
    let passes = |peer: &&&str| passes(&tables, Direction::Ingress, peer, 6, 80);
    peers.iter().filter(passes).copied().collect()
}

const ALL: [&str; 4] = ["10.0.0.2", "10.0.0.3", "10.0.1.1", "fd00::9"];

#[test]
fn a_namespace_that_is_not_known_is_selected_by_none_but_its_own_policies_hold() {
    let rules = |peer| vec![rule(vec![peer], vec![])];
    let passing = |peer| {
        let mut snapshot = snapshot(three(), vec![ingress("p", rules(peer))]);
        snapshot.namespaces.clear();
        let tables = policies(&snapshot);
        let passes = |peer: &&&str| passes(&tables, Direction::Ingress, peer, 6, 80);
        ALL.iter().filter(passes).copied().collect::<Vec<_>>()
    };
    let every = Some(Selector::default());
    assert_eq!(passing(pods_of(every.clone(), None)), [""; 0]);
    assert_eq!(passing(pods_of(None, every)), ["10.0.0.2"]);
}

#[test]
fn of_equally_new_pods_with_one_address_the_greater_uid_owns_it() {
    let owner = |uids: [&str; 2]| {
        let mut pods = vec![
            pod("a", "first", "db", SUBJECT),
            pod("a", "second", "web", SUBJECT),
        ];
        for (pod, uid) in pods.iter_mut().zip(uids) {
            uid.clone_into(&mut pod.uid);
        }
        let snapshot = snapshot(pods, vec![]);
        let owner = AddressOwners::of(&snapshot).all()[&ip(SUBJECT)].clone();
        assert_eq!(at(&policies(&snapshot), SUBJECT).pod, owner);
        owner.name.name.clone()
    };
    assert_eq!(owner(["x", "y"]), "second");
    assert_eq!(owner(["y", "x"]), "first");
}

#[test]
fn peers_select_as_the_api_says() {
    let all = || Some(Selector::default());
    let web = || Some(selector(&[("app", "web")]));
    let b = || Some(selector(&[("name", "b")]));
    let cases: Vec<(&str, Vec<Peer>, &[&str])> = vec![
        ("no peers: everyone", vec![], &ALL),
        (
            "pods of the own namespace",
            vec![pods_of(None, web())],
            &["10.0.0.2"],
        ),
        (
            "every pod of matching namespaces",
            vec![pods_of(b(), None)],
            &["10.0.0.3"],
        ),
        (
            "both selectors: and",
            vec![pods_of(b(), Some(selector(&[("app", "db")])))],
            &[],
        ),
        (
            "two peers: or",
            vec![pods_of(b(), None), pods_of(None, web())],
            &["10.0.0.2", "10.0.0.3"],
        ),
        (
            "every pod, but not the world",
            vec![pods_of(all(), None)],
            &["10.0.0.2", "10.0.0.3"],
        ),
        (
            "blocks match pods too",
            vec![block("10.0.0.0/16", &["10.0.0.2/32"])],
            &["10.0.0.3", "10.0.1.1"],
        ),
        (
            "an exception is no denial",
            vec![block("10.0.0.0/16", &["10.0.0.2/32"]), pods_of(None, web())],
            &ALL[..3],
        ),
        (
            "families are independent",
            vec![block("0.0.0.0/0", &[])],
            &ALL[..3],
        ),
        (
            "families are independent",
            vec![block("::/0", &[])],
            &ALL[3..],
        ),
    ];
    for (what, peers, expected) in cases {
        assert_eq!(
            admitted(vec![rule(peers, vec![])], &ALL),
            expected,
            "{what}"
        );
    }
    assert!(admitted(vec![], &ALL).is_empty(), "no rule: nobody");
}

#[test]
fn blocks_within_blocks_have_the_ports_of_all_and_the_holes_of_none_but_their_own() {
    let rules = vec![
        rule(vec![block("0.0.0.0/0", &[])], vec![tcp(80)]),
        rule(
            vec![
                block("10.0.0.0/8", &["10.0.0.2/32"]),
                block("10.0.0.0/8", &["10.0.0.3/32"]),
            ],
            vec![tcp(81)],
        ),
        rule(
            vec![block("10.0.0.0/24", &["10.0.0.2/31"])],
            vec![tcp(8080)],
        ),
    ];
    let tables = policies(&snapshot(three(), vec![ingress("p", rules)]));
    for (peer, open) in [
        ("192.0.2.1", &[80][..]),
        ("10.0.1.1", &[80, 81]),
        ("10.0.0.2", &[80, 81]),
        ("10.0.0.3", &[80, 81]),
        ("10.0.0.1", &[80, 81, 8080]),
    ] {
        let passing = |port: &u16| passes(&tables, Direction::Ingress, peer, 6, *port);
        let ports: Vec<u16> = [80, 81, 8080].into_iter().filter(passing).collect();
        assert_eq!(ports, open, "{peer}");
    }
}

#[test]
fn a_pod_is_isolated_only_where_a_policy_selects_it_and_only_in_that_direction() {
    let mut elsewhere = ingress("elsewhere", vec![]);
    elsewhere.name.namespace = "b".to_owned();
    let tables = policies(&snapshot(three(), vec![elsewhere]));
    assert_eq!(at(&tables, SUBJECT).ingress, RowId::OPEN);
    assert_ne!(at(&tables, "10.0.0.3").ingress, RowId::OPEN);
    assert_eq!(at(&tables, "10.0.0.3").egress, RowId::OPEN);
    assert!(passes(&tables, Direction::Ingress, "10.0.0.2", 6, 80));
}

#[test]
fn ports_and_protocols() {
    let cases = [
        (vec![], &PORTS[..]),
        (vec![tcp(80)], &[(6, 80)][..]),
        (vec![port(Protocol::Tcp, PortMatch::All)], &PORTS[..4]),
        (
            vec![port(Protocol::Tcp, PortMatch::Range(80, 8080))],
            &PORTS[1..4],
        ),
        (
            vec![
                port(Protocol::Sctp, PortMatch::All),
                port(Protocol::Udp, PortMatch::Range(53, 53)),
            ],
            &[(17, 53), (132, 80)][..],
        ),
    ];
    for (ports, expected) in cases {
        let tables = policies(&snapshot(
            three(),
            vec![ingress("p", vec![rule(vec![], ports.clone())])],
        ));
        let open: Vec<_> = PORTS
            .into_iter()
            .filter(|(protocol, port)| {
                passes(&tables, Direction::Ingress, "10.0.0.2", *protocol, *port)
            })
            .collect();
        assert_eq!(open, expected, "{ports:?}");
    }
}

#[test]
fn ingress_port_names_are_the_subjects() {
    let mut pods = three();
    pods[0].ports = vec![
        container("http", Protocol::Tcp, 80),
        container("http", Protocol::Udp, 53),
    ];
    pods[1].ports = vec![container("http", Protocol::Tcp, 81)];
    let tables = policies(&snapshot(
        pods,
        vec![ingress("p", vec![rule(vec![], vec![named("http")])])],
    ));
    assert!(passes(&tables, Direction::Ingress, "10.0.0.2", 6, 80));
    assert!(!passes(&tables, Direction::Ingress, "10.0.0.2", 6, 81));
    assert!(
        !passes(&tables, Direction::Ingress, "10.0.0.2", 17, 53),
        "protocols differ"
    );
    assert_ne!(
        at(&tables, SUBJECT).ingress,
        at(&tables, "10.0.0.2").ingress,
        "pods that resolve differently"
    );
}

#[test]
fn of_ports_that_share_a_name_the_first_of_a_protocol_counts() {
    let mut pods = three();
    for pod in &mut pods {
        pod.ports = vec![
            container("http", Protocol::Udp, 53),
            container("http", Protocol::Tcp, 80),
            container("http", Protocol::Tcp, 81),
        ];
    }
    let rules = || vec![rule(vec![], vec![named("http")])];
    let tables = policies(&snapshot(
        pods,
        vec![ingress("in", rules()), egress("out", rules())],
    ));
    for direction in [Direction::Ingress, Direction::Egress] {
        let open = |protocol, port| passes(&tables, direction, "10.0.0.2", protocol, port);
        assert!(open(6, 80) && !open(6, 81) && !open(6, 53), "{direction:?}");
        assert!(!open(17, 53), "{direction:?}");
    }
}

#[test]
fn egress_port_names_are_the_peers() {
    let mut pods = three();
    pods[1].ports = vec![container("http", Protocol::Tcp, 80)];
    pods[2].ports = vec![container("http", Protocol::Tcp, 8080)];
    let tables = policies(&snapshot(
        pods,
        vec![egress("p", vec![rule(vec![], vec![named("http")])])],
    ));
    let open = |peer, port| passes(&tables, Direction::Egress, peer, 6, port);
    assert!(open("10.0.0.2", 80) && !open("10.0.0.2", 8080));
    assert!(open("10.0.0.3", 8080) && !open("10.0.0.3", 80));
    assert!(
        !open("192.0.2.1", 80),
        "names say nothing about what is no pod"
    );
}

#[test]
fn a_port_name_is_no_other_name_and_of_no_other_protocol() {
    let [tcp, udp] = [Protocol::Tcp, Protocol::Udp];
    let name = |protocol, name: &str| port(protocol, PortMatch::Named(name.to_owned()));
    let mut pods = three();
    pods[1].ports = vec![
        container("http", tcp, 80),
        container("http", udp, 81),
        container("dns", tcp, 54),
        container("dns", udp, 53),
    ];
    // The other names are asked about, too, but for somebody else.
    let others = vec![name(udp, "http"), name(tcp, "dns"), name(udp, "dns")];
    let rules = vec![
        rule(vec![], vec![name(tcp, "http")]),
        rule(vec![block("192.0.2.0/24", &[])], others),
    ];
    let tables = policies(&snapshot(pods, vec![egress("p", rules)]));
    for (protocol, port, open) in [
        (6, 80, true),
        (17, 81, false),
        (6, 54, false),
        (17, 53, false),
    ] {
        let passes = passes(&tables, Direction::Egress, "10.0.0.2", protocol, port);
        assert_eq!(passes, open, "{protocol} {port}");
    }
}

#[test]
fn the_first_rule_by_policy_and_position_gets_the_attribution() {
    let tables = policies(&snapshot(
        three(),
        vec![
            ingress("q", vec![rule(vec![], vec![])]),
            ingress(
                "p",
                vec![
                    rule(vec![], vec![tcp(81)]),
                    rule(vec![], vec![tcp(80), tcp(81)]),
                ],
            ),
        ],
    ));
    let origin = |port| match judge(
        &tables,
        at(&tables, SUBJECT),
        Direction::Ingress,
        ip("10.0.0.2"),
        6,
        port,
    ) {
        Verdict::Allowed(rule) => (
            tables.rules[&rule].policy.name.as_str(),
            tables.rules[&rule].index,
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(origin(80), ("p", 1));
    assert_eq!(origin(81), ("p", 0));
    assert_eq!(origin(82), ("q", 0));
    let row = &tables.rows[&at(&tables, SUBJECT).ingress];
    assert_eq!(
        *row.policies,
        [ObjectName::new("a", "p"), ObjectName::new("a", "q")]
    );
}

#[test]
fn host_network_and_ended_pods_are_neither_subjects_nor_peers() {
    for change in [
        |pod: &mut Pod| pod.host_network = true,
        |pod: &mut Pod| pod.terminal = true,
    ] {
        let mut pods = three();
        change(&mut pods[1]);
        let rules = vec![rule(vec![pods_of(Some(Selector::default()), None)], vec![])];
        let tables = policies(&snapshot(pods, vec![ingress("p", rules)]));
        assert!(
            !tables
                .endpoints
                .contains_key(&EndpointKey::address(ip("10.0.0.2").into()))
        );
        assert!(!passes(&tables, Direction::Ingress, "10.0.0.2", 6, 80));
        assert!(passes(&tables, Direction::Ingress, "10.0.0.3", 6, 80));
    }
}

#[test]
fn the_newer_of_two_pods_owns_an_address() {
    for (older, newer) in [("x", "y"), ("y", "x")] {
        let mut old = pod("a", older, "db", SUBJECT);
        old.terminal = false;
        old.created = 1;
        let mut new = pod("a", newer, "web", SUBJECT);
        new.created = 2;
        let tables = policies(&snapshot(vec![old, new], vec![]));
        assert_eq!(at(&tables, SUBJECT).pod.name.name, newer);
    }
    let twins = vec![pod("a", "x", "db", SUBJECT), pod("a", "y", "db", SUBJECT)];
    assert_eq!(
        at(&policies(&snapshot(twins, vec![])), SUBJECT)
            .pod
            .name
            .name,
        "y"
    );
}

#[test]
fn pods_of_other_nodes_are_peers_only_and_policies_for_them_cost_nothing() {
    let mut pods = three();
    pods[0].node = "there".to_owned();
    let peers = vec![pods_of(None, Some(selector(&[("app", "web")])))];
    let only_subject = Policy {
        pod_selector: selector(&[("app", "db")]),
        ..ingress("p", vec![rule(peers, vec![])])
    };
    let tables = policies(&snapshot(pods, vec![only_subject]));
    assert_eq!(tables.endpoints.len(), 2);
    assert!(tables.rows.is_empty() && tables.addresses.is_empty() && tables.rules.is_empty());
}

#[test]
fn devices_lead_to_pods() {
    let mut facts = snapshot(three(), vec![]);
    let device = |ifindex| PodDevice {
        ifindex,
        name: String::new(),
    };
    facts.devices.devices = [(ip(SUBJECT), device(7)), (ip("10.0.0.9"), device(8))].into();
    let tables = policies(&facts);
    assert_eq!(at(&tables, SUBJECT).ifindex, 7);
    assert_eq!(at(&tables, "10.0.0.2").ifindex, 0);
    let by_device = &tables.endpoints[&EndpointKey::device(7)];
    assert_eq!(by_device.pod.name.name, "subject");
    assert!(!tables.endpoints.contains_key(&EndpointKey::device(8)));
}

#[test]
fn only_what_a_selector_names_gets_an_address_of_its_own() {
    let peers = vec![
        pods_of(None, Some(selector(&[("app", "web")]))),
        block("10.0.0.0/24", &[]),
    ];
    let tables = policies(&snapshot(
        three(),
        vec![ingress("p", vec![rule(peers, vec![])])],
    ));
    let addresses: Vec<String> = tables.addresses.keys().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.2"]);
    assert_eq!(tables.prefixes.len(), 1);
}

#[test]
fn replicas_share_a_row_and_peers_that_come_do_not_change_it() {
    let rules = vec![rule(
        vec![pods_of(None, Some(selector(&[("app", "web")])))],
        vec![tcp(80)],
    )];
    let mut few = snapshot(three(), vec![ingress("p", rules)]);
    let before = policies(&few);
    assert_eq!(
        at(&before, SUBJECT).ingress,
        at(&before, "10.0.0.2").ingress
    );
    let more = pod("a", "more", "web", "10.0.0.4");
    few.pods.insert(more.name.clone(), Arc::new(more));
    let after = policies(&few);
    assert_eq!(before.rows, after.rows);
    assert_eq!(after.addresses.len(), before.addresses.len() + 1);
}

/// What a verdict must say, with the rule that it must name.
#[derive(Debug, PartialEq)]
enum Literal {
    Open,
    Allowed(ObjectName, usize),
    Denied(Option<(ObjectName, usize)>),
}

/// The policies of all tiers as their texts read, flow by flow.
fn literal(
    snapshot: &Snapshot,
    subject: &Pod,
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    number: u16,
) -> Literal {
    let claims = |pod: &&Arc<Pod>| pod.owns_addresses() && pod.ips.contains(&peer);
    let peer_pod = snapshot
        .pods
        .values()
        .filter(claims)
        .max_by_key(|pod| (pod.created, pod.name.clone()));
    let named_at = match direction {
        Direction::Ingress => Some(subject),
        Direction::Egress => peer_pod.map(|pod| &**pod),
    };
    let port_matches = |port: &PolicyPort| {
        port.protocol.number() == protocol
            && match &port.port {
                PortMatch::All => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&number),
                PortMatch::Named(name) => named_at.is_some_and(|pod| {
                    let declared = pod
                        .ports
                        .iter()
                        .find(|port| port.name == *name && port.protocol.number() == protocol);
                    declared.is_some_and(|port| port.port == number)
                }),
            }
    };
    let peer_matches = |namespace: &str, wanted: &Peer| match wanted {
        Peer::Block { cidr, except } => {
            cidr.contains(peer) && !except.iter().any(|hole| hole.contains(peer))
        }
        Peer::Pods { namespaces, pods } => peer_pod.is_some_and(|pod| {
            let in_namespace = match namespaces {
                None => pod.name.namespace == namespace,
                Some(selector) => {
                    selector.matches(&snapshot.namespaces[&pod.name.namespace].labels)
                }
            };
            in_namespace
                && pods
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&pod.labels))
        }),
        Peer::Nodes(selector) => snapshot
            .nodes
            .values()
            .any(|node| selector.matches(&node.labels) && node.addresses.contains(&peer)),
    };
    let rule_matches = |namespace: &str, rule: &Rule| {
        let mut peers = rule.peers.iter();
        let peer = rule.peers.is_empty() || peers.any(|peer| peer_matches(namespace, peer));
        peer && (rule.ports.is_empty() || rule.ports.iter().any(port_matches))
    };
    let tier = |tier| {
        let mut policies: Vec<_> = snapshot.cluster_policies.values().collect();
        policies.sort_by_key(|policy| (policy.priority, &policy.name));
        let namespace = &snapshot.namespaces[&subject.name.namespace].labels;
        for policy in policies {
            let selected =
                policy.namespaces.matches(namespace) && policy.pods.matches(&subject.labels);
            if policy.tier != tier || !selected {
                continue;
            }
            let mut rules = policy.rules(direction).iter().enumerate();
            if let Some((index, rule)) = rules.find(|(_, rule)| rule_matches("", &rule.matches)) {
                let name = policy.name.clone();
                return match rule.action {
                    Action::Accept => Some(Literal::Allowed(name, index)),
                    Action::Deny => Some(Literal::Denied(Some((name, index)))),
                    Action::Pass => None,
                };
            }
        }
        None
    };
    if let Some(decided) = tier(Tier::Admin) {
        return decided;
    }
    let mut isolated = false;
    for policy in snapshot.policies.values() {
        if policy.name.namespace != subject.name.namespace
            || !policy.pod_selector.matches(&subject.labels)
        {
            continue;
        }
        let Some(rules) = policy.rules(direction) else {
            continue;
        };
        isolated = true;
        for (index, rule) in rules.iter().enumerate() {
            if rule_matches(&policy.name.namespace, rule) {
                return Literal::Allowed(policy.name.clone(), index);
            }
        }
    }
    if isolated {
        return Literal::Denied(None);
    }
    tier(Tier::Baseline).unwrap_or(Literal::Open)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn tables_answer_as_the_text_reads(snapshot in snapshots()) {
        let tables = policies(&snapshot);
        for entry in tables.endpoints.values() {
            for direction in [Direction::Ingress, Direction::Egress] {
                for (peer, (protocol, port)) in PEERS.iter().flat_map(|peer| PORTS.map(|port| (ip(peer), port))) {
                    let expected = literal(&snapshot, &entry.pod, direction, peer, protocol, port);
                    let named = |rule: u32| {
                        let origin = &tables.rules[&rule];
                        assert_eq!(origin.direction, direction);
                        (origin.policy.clone(), origin.index)
                    };
                    let actual = match judge(&tables, entry, direction, peer, protocol, port) {
                        Verdict::Open => Literal::Open,
                        Verdict::Denied(rule) => Literal::Denied(rule.map(named)),
                        Verdict::Allowed(rule) => {
                            let (policy, index) = named(rule);
                            Literal::Allowed(policy, index)
                        }
                    };
                    prop_assert_eq!(actual, expected, "{} {:?} {} {} {}", entry.pod.name, direction, peer, protocol, port);
                }
            }
        }
    }

    #[test]
    fn the_order_of_peers_ports_and_requirements_does_not_matter(snapshot in snapshots()) {
        let mut turned = snapshot.clone();
        edit(&mut turned.policies, |policy| {
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
                rule.peers.reverse();
                rule.ports.reverse();
                for peer in &mut rule.peers {
                    if let Peer::Block { except, .. } = peer {
                        except.reverse();
                    }
                }
            }
        });
        edit(&mut turned.cluster_policies, |policy| {
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress) {
                rule.matches.peers.reverse();
                rule.matches.ports.reverse();
            }
        });
        edit(&mut turned.pods, |pod| pod.ips.reverse());
        let (one, other) = (policies(&snapshot), policies(&turned));
        prop_assert_eq!(one.rows, other.rows);
        prop_assert_eq!(one.addresses, other.addresses);
        prop_assert_eq!(one.prefixes, other.prefixes);
    }
}

#[test]
fn many_pods_and_policies_compile_in_time() {
    let pods = (0..10_000_u32)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
            let mut pod = pod(
                "a",
                &format!("p{number}"),
                &format!("app{}", number % 300),
                &address,
            );
            pod.labels
                .extend(labels(&[("statefulset", &format!("p{number}"))]));
            if number % 40 != 0 {
                pod.node = "there".to_owned();
            }
            pod
        })
        .collect();
    let policies_of = (0..300)
        .map(|number| {
            let app = |number: u32| Some(selector(&[("app", &format!("app{}", number % 300))]));
            let peers = vec![
                pods_of(None, app(number + 1)),
                pods_of(Some(Selector::default()), app(number + 2)),
                block("10.0.0.0/8", &[]),
            ];
            Policy {
                pod_selector: app(number).unwrap(),
                ..ingress(&format!("policy{number}"), vec![rule(peers, vec![tcp(80)])])
            }
        })
        .collect();
    let snapshot = snapshot(pods, policies_of);
    let started = std::time::Instant::now();
    let tables = policies(&snapshot);
    let spent = started.elapsed();
    assert_eq!(tables.endpoints.len(), 250);
    // Some hundredths of a second when optimized; comparing every pod with every other would take minutes.
    assert!(spent < std::time::Duration::from_secs(5), "{spent:?}");
}
