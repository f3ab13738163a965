use super::*;
use crate::netlink::table::{Link, Mac};
use ipnetwork::IpNetwork;

const UPLINK: u32 = 2;
const PTP: u32 = 5;
const BRIDGE: u32 = 7;
const PORT: u32 = 8;
const FOREIGN: u32 = 9;
const MAC: Mac = [2, 0, 0, 0, 0, 8];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A node whose uplink is a veth, with one routed pod, one pod on a bridge, and a container of another runtime.
fn table() -> LinkTable {
    let link = |name: &str, kind, controller| Link {
        name: name.to_owned(),
        kind,
        ethernet: true,
        controller,
    };
    let network = |text: &str| text.parse::<IpNetwork>().expect("network");
    LinkTable {
        links: [
            (1, link("lo", LinkKind::Other, None)),
            (UPLINK, link("eth0", LinkKind::Veth, None)),
            (PTP, link("vethptp", LinkKind::Veth, None)),
            (BRIDGE, link("cni0", LinkKind::Bridge, None)),
            (PORT, link("vethport", LinkKind::Veth, Some(BRIDGE))),
            (FOREIGN, link("vethdocker", LinkKind::Veth, None)),
        ]
        .into(),
        host_routes: [
            (ip("10.1.0.5"), [PTP].into()),
            (ip("fd00::5"), [PTP].into()),
            (ip("172.17.0.2"), [FOREIGN].into()),
            (ip("10.1.0.66"), [UPLINK].into()),
        ]
        .into(),
        default_routes: [UPLINK].into(),
        gateways: [UPLINK].into(),
        sources: BTreeMap::new(),
        addresses: [
            (UPLINK, network("192.168.0.2/24")),
            (PTP, network("10.1.0.1/32")),
            (BRIDGE, network("10.2.0.1/24")),
        ]
        .into(),
        neighbours: [((BRIDGE, ip("10.2.0.8")), neighbour(MAC))].into(),
        forwarding: [((BRIDGE, MAC), PORT)].into(),
    }
}

const fn neighbour(mac: Mac) -> Neighbour {
    Neighbour {
        mac: Some(mac),
        learned: true,
    }
}

/// Pods with one address each, which is their UID too.
fn local(pods: &[&str]) -> Local {
    let pods: Vec<_> = pods.iter().map(|pod| (*pod, *pod)).collect();
    local_with(&pods)
}

fn local_with(pods: &[(&str, &str)]) -> Local {
    let pods = pods.iter();
    Local {
        pods: pods
            .map(|(address, pod)| (ip(address), (*pod).to_owned()))
            .collect(),
        node: [ip("192.168.0.2")].into(),
    }
}

fn find(table: &LinkTable, pod: &str) -> Option<u32> {
    let resolution = resolve(table, &local(&[pod]), &Owners::default());
    device(&resolution, pod)
}

fn device(resolution: &Resolution, pod: &str) -> Option<u32> {
    let device = resolution.facts.devices.get(&ip(pod));
    device.map(|device| device.ifindex)
}

#[test]
fn pods_are_found_by_route_and_by_bridge() {
    for (pod, expected) in [
        ("10.1.0.5", Some(PTP)),
        ("fd00::5", Some(PTP)),
        ("10.2.0.8", Some(PORT)),
        ("10.2.0.9", None),
        ("10.1.0.6", None),
        // A route over the uplink leads to another node.
        ("10.1.0.66", None),
        // A pod in the node's network namespace.
        ("192.168.0.2", None),
    ] {
        assert_eq!(find(&table(), pod), expected, "{pod}");
    }
}

#[test]
fn of_bridges_whose_subnets_have_an_address_the_narrowest_counts() {
    const WIDE: u32 = 6;
    let mut table = table();
    let wide = Link {
        name: "br0".to_owned(),
        ..table.links[&BRIDGE].clone()
    };
    table.links.insert(WIDE, wide);
    for wider in ["10.2.0.2/16", "10.0.0.1/8"] {
        table
            .addresses
            .insert((WIDE, wider.parse().expect("network")));
        assert_eq!(find(&table, "10.2.0.8"), Some(PORT), "{wider}");
    }
}

#[test]
fn devices_of_other_runtimes_are_left_alone() {
    let all = ["10.1.0.5", "fd00::5", "10.2.0.8"];
    let resolution = resolve(&table(), &local(&all), &Owners::default());
    let found: BTreeSet<u32> = resolution
        .facts
        .devices
        .values()
        .map(|device| device.ifindex)
        .collect();
    assert_eq!(found, [PTP, PORT].into());
}

#[test]
fn an_uplink_is_never_a_pod_device() {
    let mut by_route = table();
    by_route.default_routes.insert(PTP);
    assert_eq!(find(&by_route, "10.1.0.5"), None);
    let mut by_address = table();
    by_address
        .addresses
        .insert((PORT, "192.168.0.2/24".parse().expect("network")));
    assert_eq!(find(&by_address, "10.2.0.8"), None);
}

#[test]
fn only_veths_are_pod_devices() {
    let mut table = table();
    for ifindex in [PTP, PORT] {
        table.links.get_mut(&ifindex).expect("link").kind = LinkKind::Other;
    }
    assert_eq!(find(&table, "10.1.0.5"), None);
    assert_eq!(find(&table, "10.2.0.8"), None);
}

#[test]
fn a_lingering_route_gives_way_to_the_younger_device() {
    let mut table = table();
    table
        .host_routes
        .entry(ip("10.1.0.5"))
        .or_default()
        .insert(FOREIGN);
    assert_eq!(find(&table, "10.1.0.5"), Some(FOREIGN));
}

/// A second port of the bridge.
const NEXT: u32 = 10;
const NEXT_MAC: Mac = [2, 0, 0, 0, 0, 10];

/// The bridge with both ports, and nothing in its tables.
fn two_ports() -> LinkTable {
    let mut table = table();
    table.neighbours.clear();
    table.forwarding.clear();
    let mut link = table.links[&PORT].clone();
    link.name = "vethnext".to_owned();
    table.links.insert(NEXT, link);
    table
}

#[test]
fn what_is_asked_depends_on_the_neighbour() {
    let pods = local(&["10.1.0.5", "10.2.0.8", "10.3.0.1"]);
    let unresolved = Neighbour {
        mac: None,
        learned: true,
    };
    let configured = |mac| Neighbour {
        mac,
        learned: false,
    };
    let mac = neighbour(MAC);
    for (neighbour, port, question) in [
        (None, None, Some(false)),
        (Some(unresolved), None, Some(false)),
        // The answer of a pod that ended, or one that the bridge has forgotten.
        (Some(mac), None, Some(true)),
        // It moved here from another node.
        (Some(mac), Some(UPLINK), Some(true)),
        (Some(mac), Some(PORT), None),
        // What somebody configured is never touched.
        (Some(configured(Some(MAC))), None, None),
        (Some(configured(None)), None, None),
        (Some(configured(Some(MAC))), Some(PORT), None),
    ] {
        let mut table = two_ports();
        table
            .neighbours
            .extend(neighbour.map(|neighbour| ((BRIDGE, ip("10.2.0.8")), neighbour)));
        table
            .forwarding
            .extend(port.map(|port| ((BRIDGE, MAC), port)));
        let resolution = resolve(&table, &pods, &Owners::default());
        let outdated = resolution.ask.get(&ip("10.2.0.8")).map(|question| {
            assert_eq!(question.bridge, BRIDGE);
            assert_eq!(question.free, [PORT, NEXT].into());
            question.outdated
        });
        assert_eq!(outdated, question, "{neighbour:?} {port:?}");
        assert_eq!(resolution.ask.len(), usize::from(question.is_some()));
        let found = port.filter(|port| *port == PORT);
        assert_eq!(device(&resolution, "10.2.0.8"), found, "{neighbour:?}");
    }
}

#[test]
fn nobody_is_asked_where_every_port_has_its_pod() {
    let pods = local(&["10.2.0.8", "10.2.0.9"]);
    let resolution = resolve(&table(), &pods, &Owners::default());
    assert_eq!(device(&resolution, "10.2.0.8"), Some(PORT));
    assert!(resolution.ask.is_empty());
    // A port comes.
    let table = two_ports();
    let resolution = resolve(&table, &pods, &resolution.owners);
    let asked = &resolution.ask[&ip("10.2.0.9")];
    assert_eq!(asked.free, [NEXT].into());
    assert!(!resolution.ask.contains_key(&ip("10.2.0.8")));
}

#[test]
fn one_address_locates_the_others_of_its_pod() {
    let mut table = table();
    table
        .addresses
        .insert((BRIDGE, "fd02::1/64".parse().expect("network")));
    let pods = local_with(&[("10.2.0.8", "pod"), ("fd02::8", "pod")]);
    let resolution = resolve(&table, &pods, &Owners::default());
    assert_eq!(device(&resolution, "fd02::8"), Some(PORT));
    assert!(resolution.ask.is_empty());
}

#[test]
fn a_port_stays_its_pods() {
    let [first, second] = ["10.2.0.8", "10.2.0.9"].map(ip);
    let pods = local(&["10.2.0.8", "10.2.0.9"]);
    let mut table = two_ports();
    table.forwarding = [((BRIDGE, MAC), PORT), ((BRIDGE, NEXT_MAC), NEXT)].into();
    let mut lead = |address, mac| {
        table.neighbours.insert((BRIDGE, address), neighbour(mac));
        table.clone()
    };
    let before = resolve(&lead(first, MAC), &pods, &Owners::default());
    assert_eq!(device(&before, "10.2.0.8"), Some(PORT));

    // The address of the second is that of the first's device: a stale entry, or a pod that claims it.
    let wrong = resolve(&lead(second, MAC), &pods, &before.owners);
    assert_eq!(wrong.facts, before.facts);
    assert_eq!(wrong.owners, before.owners);
    assert!(wrong.ask[&second].outdated);
    // The answer.
    let right = resolve(&lead(second, NEXT_MAC), &pods, &wrong.owners);
    assert_eq!(device(&right, "10.2.0.9"), Some(NEXT));
    // A pod that is found is not moved by anything of that kind.
    let claimed = resolve(&lead(first, NEXT_MAC), &pods, &right.owners);
    assert_eq!(claimed, right);
    // What was seen of a pod that ended is not the next pod's, but what is seen after asking is.
    lead(first, MAC);
    let next = local_with(&[("10.2.0.8", "next"), ("10.2.0.9", "10.2.0.9")]);
    let ended = resolve(&table, &next, &right.owners);
    assert_eq!(device(&ended, "10.2.0.8"), None);
    assert_eq!(device(&ended, "10.2.0.9"), Some(NEXT));
    assert_eq!(ended.ask[&first].free, [PORT].into());
    assert!(ended.ask[&first].outdated);
    let answered = resolve(&table, &next, &ended.owners);
    assert_eq!(answered.facts, right.facts);
    assert!(answered.ask.is_empty());
}

#[test]
fn two_pods_behind_a_new_port_are_both_asked() {
    let pods = local(&["10.2.0.8", "10.2.0.9"]);
    let mut table = two_ports();
    table.forwarding = [((BRIDGE, MAC), PORT), ((BRIDGE, NEXT_MAC), NEXT)].into();
    for pod in pods.pods.keys() {
        table.neighbours.insert((BRIDGE, *pod), neighbour(MAC));
    }
    let doubt = resolve(&table, &pods, &Owners::default());
    assert_eq!(doubt.owners, Owners::default());
    assert_eq!(doubt.facts.devices.len(), 2);
    assert!(doubt.ask.values().all(|question| question.outdated));
    assert_eq!(doubt.ask.len(), 2);

    let answer = neighbour(NEXT_MAC);
    table.neighbours.insert((BRIDGE, ip("10.2.0.9")), answer);
    let certain = resolve(&table, &pods, &doubt.owners);
    assert_eq!(device(&certain, "10.2.0.8"), Some(PORT));
    assert_eq!(device(&certain, "10.2.0.9"), Some(NEXT));
    assert!(certain.ask.is_empty());
}

#[test]
fn what_was_found_before_ends_with_the_device() {
    let pods = local(&["10.1.0.5", "10.2.0.8"]);
    let before = resolve(&table(), &pods, &Owners::default()).owners;
    let forget = |change: &dyn Fn(&mut LinkTable)| {
        let mut table = table();
        table.forwarding.clear();
        table.host_routes.clear();
        change(&mut table);
        resolve(&table, &pods, &before).facts.devices.len()
    };
    // The bridge port stands, a route that is gone does not.
    assert_eq!(forget(&|_| {}), 1);
    assert_eq!(forget(&|table| drop(table.links.remove(&PORT))), 0);
    // The index came back with another device, or the device left the bridge.
    let rename = |table: &mut LinkTable| {
        table.links.get_mut(&PORT).expect("link").name = "other".to_owned();
    };
    assert_eq!(forget(&rename), 0);
    let leave = |table: &mut LinkTable| {
        table.links.get_mut(&PORT).expect("link").controller = None;
    };
    assert_eq!(forget(&leave), 0);
    let none = resolve(&table(), &local(&[]), &before);
    assert!(none.facts.devices.is_empty());
    assert!(none.ask.is_empty());
}
