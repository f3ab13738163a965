//! What becomes of the addresses that processes name, one rule a test, on the simulator: no root, no kernel.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weir::compile::compile;
use weir::model::{ObjectName, Service, Snapshot, TrafficPolicy};
use weir::plan::{MemoryMaps, Planner};
use weir_common::logic::Answer::{self, Forbid, Refuse};
use weir_common::logic::protocol::{SCTP, TCP, UDP};
use weir_tests::fixture::{edit, snapshot};
use weir_tests::simulator::{SimulatedSocket, Simulator, mapped};

/// A node with the Services of the fixture, and its agent.
struct Node {
    simulator: Simulator,
    planner: Planner,
    snapshot: Snapshot,
}

impl Node {
    fn new() -> Self {
        let mut node = Self {
            simulator: Simulator::new(MemoryMaps::new(), 250),
            planner: Planner::new(),
            snapshot: snapshot([11, 12], Vec::new()),
        };
        node.sync();
        node
    }

    fn sync(&mut self) {
        let plan = self.planner.plan(&compile(&self.snapshot)).expect("plan");
        self.simulator.maps.execute(&plan).expect("execute");
    }

    /// Sets the readiness of a pod in the slices of a Service.
    fn set_ready(&mut self, service: &str, address: &str, ready: bool) {
        let address = weir_tests::fixture::address(address);
        let service = ObjectName::new("shop", service);
        edit(&mut self.snapshot.slices, |slice| {
            let endpoints = slice.endpoints.iter_mut();
            for endpoint in endpoints.filter(|endpoint| endpoint.address == address) {
                if slice.service == service {
                    endpoint.ready = ready;
                    endpoint.serving = ready;
                }
            }
        });
        self.sync();
    }

    fn change_service(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let name = ObjectName::new("shop", name);
        let mut service = (*self.snapshot.services[&name]).clone();
        change(&mut service);
        self.snapshot.services.insert(name, service.into());
        self.sync();
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// Where each random number leads.
fn spread(mut call: impl FnMut(u32) -> Result<SocketAddr, Answer>) -> BTreeSet<SocketAddr> {
    (0..64_u32)
        .map(|step| call(step << 26).expect("a backend"))
        .collect()
}

#[test]
fn calls_go_to_backends_and_answers_come_from_services() {
    let node = Node::new();
    for (to, backends) in [
        (
            "10.96.0.10:80",
            ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.2.1:8080"],
        ),
        (
            "[fd96::10]:80",
            ["[fd00:1::1]:8080", "[fd00:1::2]:8080", "[fd00:2::1]:8080"],
        ),
    ] {
        let (to, backends) = (at(to), backends.map(at));
        for protocol in [TCP, UDP] {
            let seen = spread(|random| {
                let mut socket = SimulatedSocket::of_node(&node.simulator, protocol);
                socket.random = random;
                let backend = socket.connect(to)?;
                assert_eq!(socket.told(backend), to);
                // TCP notices by itself when a backend goes.
                let noted = socket.noted().map(|pair| pair.backend.into());
                assert_eq!(noted, (protocol == UDP).then_some(backend.ip()));
                Ok(backend)
            });
            assert_eq!(seen, backends.into(), "{to}, {protocol}");
        }
        let seen = spread(|random| {
            let mut socket = SimulatedSocket::of_node(&node.simulator, UDP);
            socket.random = random;
            let backend = socket.send(to)?;
            assert_eq!(socket.told(backend), to);
            assert_eq!(socket.noted(), None);
            Ok(backend)
        });
        assert_eq!(seen, backends.into(), "{to}");
    }
}

#[test]
fn ipv6_sockets_may_name_ipv4_services() {
    let node = Node::new();
    let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
    assert_eq!(
        socket.connect(mapped(at("10.96.0.11:80"))),
        Ok(at("10.0.1.2:8080"))
    );
    assert_eq!(
        socket.told(mapped(at("10.0.1.2:8080"))),
        at("10.96.0.11:80")
    );
}

#[test]
fn other_addresses_and_protocols_are_left_alone() {
    let node = Node::new();
    for to in [
        "10.0.1.2:8080",
        "10.96.1.1:80",
        "[fd00:1::2]:8080",
        "0.0.0.0:80",
        "[::]:0",
    ]
    .map(at)
    {
        for protocol in [TCP, UDP] {
            let mut socket = SimulatedSocket::of_node(&node.simulator, protocol);
            assert_eq!(socket.connect(to), Ok(to));
            assert_eq!(socket.send(to), Ok(to));
            assert_eq!(socket.told(to), to);
        }
    }
    let to = at("10.96.0.11:80");
    let mut socket = SimulatedSocket::of_node(&node.simulator, SCTP);
    assert_eq!(socket.connect(to), Ok(to));
}

#[test]
fn refusals_say_why() {
    let mut node = Node::new();
    let service = at("10.96.0.13:80");
    let no_port = at("10.96.0.11:81");
    let call = |node: &Node, protocol, to, datagram| {
        let mut socket = SimulatedSocket::of_node(&node.simulator, protocol);
        if datagram {
            socket.send(to)
        } else {
            socket.connect(to)
        }
    };
    for to in [service, at("[fd96::13]:80")] {
        assert_eq!(call(&node, TCP, to, false), Err(Refuse));
        assert_eq!(call(&node, UDP, to, false), Err(Refuse));
        assert_eq!(call(&node, UDP, to, true), Err(Refuse));
    }
    assert_eq!(call(&node, TCP, no_port, false), Err(Refuse));
    assert_eq!(call(&node, UDP, no_port, true), Err(Refuse));
    // Resolvers ask for their source address so.
    assert_eq!(call(&node, UDP, no_port, false), Ok(no_port));
    assert_eq!(
        call(&node, UDP, at("10.96.0.11:0"), false),
        Ok(at("10.96.0.11:0"))
    );

    // Nobody's address of the Services' range, and one next to the range.
    let nobodys = at("10.96.0.99:80");
    assert_eq!(call(&node, TCP, nobodys, false), Err(Forbid));
    assert_eq!(call(&node, UDP, at("[fd96::99]:80"), true), Err(Forbid));
    assert_eq!(call(&node, UDP, nobodys, false), Ok(nobodys));
    let next = at("10.96.1.0:80");
    assert_eq!(call(&node, TCP, next, false), Ok(next));
    let mut of_pod = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_eq!(
        of_pod.connect(nobodys),
        Ok(nobodys),
        "its packets are counted"
    );

    // Its only backend is on this node, then there is none on this node, then none at all.
    let local = at("10.96.0.10:80");
    node.change_service("all", |service| {
        service.internal_traffic_policy = TrafficPolicy::Local;
    });
    assert!(call(&node, TCP, local, false).is_ok());
    for pod in ["10.0.1.1", "10.0.1.2"] {
        node.set_ready("all", pod, false);
    }
    assert_eq!(call(&node, TCP, local, false), Err(Forbid));
    assert_eq!(call(&node, UDP, local, true), Err(Forbid));
    node.set_ready("all", "10.0.2.1", false);
    assert_eq!(call(&node, TCP, local, false), Err(Refuse));
}

#[test]
fn datagrams_leave_a_backend_that_takes_none() {
    let mut node = Node::new();
    let to = at("10.96.0.10:80");
    let mut socket = SimulatedSocket::of_node(&node.simulator, UDP);
    let first = socket.send(to).expect("a backend");
    socket.random = u32::MAX;
    assert_eq!(socket.send(to), Ok(first), "a socket keeps its backend");
    assert_eq!(first, at("10.0.1.1:8080"));
    let remembered = socket.close();
    node.set_ready("all", "10.0.1.1", false);
    let mut socket = SimulatedSocket::of_node(&node.simulator, UDP).remembering(remembered);
    socket.random = u32::MAX;
    let second = socket.send(to).expect("a backend");
    assert_eq!(second, at("10.0.2.1:8080"));
    // Late answers of the first one, too.
    assert_eq!(socket.told(first), to);
    assert_eq!(socket.told(second), to);
}

#[test]
fn who_is_called_by_another_name_later_has_that_name() {
    let node = Node::new();
    let [b, also_b, direct] = ["10.96.0.11:80", "10.96.0.14:80", "10.0.1.2:8080"].map(at);
    let mut socket = SimulatedSocket::of_node(&node.simulator, UDP);
    for to in [b, also_b, direct, b] {
        assert_eq!(socket.send(to), Ok(direct));
        assert_eq!(socket.told(direct), to);
    }
    for to in [b, also_b, direct, b] {
        assert_eq!(socket.connect(to), Ok(direct));
        assert_eq!(socket.told(direct), to);
        // The kernel does so itself where an IPv6 socket's peer has an IPv4 address.
        assert_eq!(socket.send(direct), Ok(direct));
        assert_eq!(socket.told(direct), to);
    }
}

#[test]
fn four_services_at_a_time_are_told_apart() {
    let node = Node::new();
    let mut socket = SimulatedSocket::of_node(&node.simulator, UDP);
    let services = [
        "10.96.0.11:80",
        "10.96.0.12:80",
        "[fd96::11]:80",
        "[fd96::12]:80",
    ]
    .map(at);
    let backends = services.map(|to| socket.send(to).expect("a backend"));
    for (backend, service) in backends.into_iter().zip(services) {
        assert_eq!(socket.told(backend), service);
    }
    // A fifth takes the place of the first.
    let fifth = socket.send(at("10.96.0.10:80")).expect("a backend");
    assert_eq!(socket.told(fifth), at("10.96.0.10:80"));
    assert_eq!(socket.told(backends[0]), backends[0]);
    assert_eq!(socket.told(backends[3]), services[3]);
}

#[test]
fn pods_are_served_where_that_is_right() {
    let mut node = Node::new();
    let [b, none] = ["10.96.0.11:80", "10.96.0.13:80"].map(at);
    for protocol in [TCP, UDP] {
        let mut socket = SimulatedSocket::of_pod(&node.simulator, protocol, false);
        assert_eq!(socket.connect(b), Ok(b));
        assert_eq!(socket.send(b), Ok(b));
    }
    let mut tcp = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_eq!(tcp.connect(b), Ok(at("10.0.1.2:8080")));
    assert_eq!(tcp.told(at("10.0.1.2:8080")), b);
    // The packet path counts and reports refusals, and moves datagrams on when their backend goes.
    for to in [none, at("10.96.0.11:81")] {
        assert_eq!(tcp.connect(to), Ok(to));
    }
    let mut udp = SimulatedSocket::of_pod(&node.simulator, UDP, true);
    assert_eq!(udp.connect(b), Ok(b));
    assert_eq!(udp.send(b), Ok(b));
    node.change_service("b", |service| {
        service.internal_traffic_policy = TrafficPolicy::Local;
    });
    node.set_ready("b", "10.0.1.2", false);
    let mut tcp = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_eq!(tcp.connect(b), Ok(b));
}

#[test]
fn without_cookies_nobody_is_taken_for_the_node() {
    let node = Node::new();
    let b = at("10.96.0.11:80");
    let mut socket = SimulatedSocket::of_node(&node.simulator, TCP).without_cookie();
    assert_eq!(socket.connect(b), Ok(b));
}

#[test]
fn without_memory_connections_work_all_the_same() {
    let node = Node::new();
    let backend = at("10.0.1.2:8080");
    let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
    socket.memory = false;
    assert_eq!(socket.connect(at("10.96.0.11:80")), Ok(backend));
    assert_eq!(socket.told(backend), backend);
}

#[test]
fn services_are_met_at_all_of_their_addresses() {
    let mut node = Node::new();
    node.change_service("open", |service| service.affinity_seconds = None);
    let backends: BTreeSet<_> = ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.2.1:8080"]
        .map(at)
        .into();
    for to in ["192.0.2.15:80", "192.0.2.16:80", "172.30.0.1:30015"].map(at) {
        let seen = spread(|random| {
            let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
            socket.random = random;
            let backend = socket.connect(to)?;
            assert_eq!(socket.told(backend), to);
            Ok(backend)
        });
        assert_eq!(seen, backends, "{to}");
    }
    for to in [
        "192.0.2.15:81",
        "172.30.0.1:22",
        "172.30.0.2:30015",
        "127.0.0.1:30015",
    ]
    .map(at)
    {
        let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
        assert_eq!(socket.connect(to), Ok(to));
    }
}

/// On request a node port is at 127.0.0.1, too: at that of the node, which pods' is not.
#[test]
fn loopback_is_each_pods_own() {
    let mut node = Node::new();
    node.snapshot.devices.addresses = ["172.30.0.1", "127.0.0.1", "::1"]
        .map(weir_tests::fixture::address)
        .into();
    node.snapshot.node_ports = ["primary", "127.0.0.0/8", "::1/128"]
        .map(|rule| rule.parse().expect("a rule"))
        .to_vec();
    node.sync();
    for to in ["127.0.0.1:30015", "[::1]:30015"].map(at) {
        let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
        assert_ne!(socket.connect(to), Ok(to));
        let mut socket = SimulatedSocket::of_pod(&node.simulator, TCP, true);
        assert_eq!(socket.connect(to), Ok(to));
    }
    node.change_service("open", |service| service.affinity_seconds = None);
    let to = at("172.30.0.1:30015");
    let mut socket = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_ne!(socket.connect(to), Ok(to));
}

/// The node's own sockets are one client, beside its pods.
#[test]
fn affinity_binds_the_nodes_sockets() {
    let mut node = Node::new();
    let minute = 60_000_000_000;
    let call = |node: &Node, protocol, to, random, time| {
        let mut socket = SimulatedSocket::of_node(&node.simulator, protocol);
        socket.random = random;
        socket.time = time;
        let backend = if protocol == TCP {
            socket.connect(to)
        } else {
            socket.send(to)
        };
        backend.expect("a backend")
    };
    let all = ["10.96.0.15:80", "192.0.2.15:80", "172.30.0.1:30015"].map(at);
    let [first, second, third] = ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.2.1:8080"].map(at);
    assert_eq!(call(&node, TCP, all[0], u32::MAX, 5), third);
    for to in all {
        for to in [to, mapped(to)] {
            assert_eq!(call(&node, TCP, to, 0, minute), third, "{to}");
        }
        assert_eq!(call(&node, UDP, to, 0, minute), first, "{to}");
    }
    // The other family has other endpoints.
    let v6 = call(&node, TCP, at("[fd96::15]:80"), 0, minute);
    assert_eq!(v6, at("[fd00:1::1]:8080"));
    assert_eq!(call(&node, TCP, all[0], 0, 2 * minute), third);
    assert_eq!(call(&node, TCP, all[0], 0, 3 * minute + 1), first);
    node.set_ready("open", "10.0.1.1", false);
    assert_eq!(call(&node, TCP, all[0], 0, 3 * minute + 1), second);
    // What a pod does is the packet path's to remember.
    let mut pod = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_eq!(pod.connect(all[0]), Ok(all[0]));
}

/// The node is 172.30.0.1, outside of the ranges at first; a pod's connection is the packet path's to judge.
#[test]
fn load_balancers_ask_for_the_nodes_address() {
    let mut node = Node::new();
    let to = at("192.0.2.17:80");
    let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
    assert_eq!(socket.connect(to), Err(Forbid));
    assert_eq!(socket.connect(at("10.96.0.16:80")), Ok(at("10.0.1.2:8080")));
    let mut pod = SimulatedSocket::of_pod(&node.simulator, TCP, true);
    assert_eq!(pod.connect(to), Ok(to));
    node.change_service("narrow", |service| {
        service
            .source_ranges
            .push("172.30.0.0/16".parse().expect("a range"));
    });
    let mut socket = SimulatedSocket::of_node(&node.simulator, TCP);
    assert_eq!(socket.connect(to), Ok(at("10.0.1.2:8080")));
}
