//! sessionAffinity ClientIP.

use std::collections::BTreeSet;

use weir::model::{ObjectName, Service, Snapshot, TrafficPolicy};

use super::*;

const CLUSTER_IP: (&str, u16) = ("10.96.0.15", 80);
const EXTERNAL: (&str, u16) = ("192.0.2.15", 80);
const BALANCER: (&str, u16) = ("192.0.2.16", 80);
const NODE_PORT: (&str, u16) = (NODE, 30015);
/// Random numbers that lead to the first, second and third of three.
const CHOICES: [u32; 3] = [0, u32::MAX / 2, u32::MAX];

/// Clients that open one connection after the other.
struct Clients {
    node: Node,
    port: u16,
}

impl Clients {
    fn new() -> Self {
        Self {
            node: Node::new(vec![]),
            port: 20_000,
        }
    }

    /// Where a new connection goes if chance says so.
    fn open(&mut self, device: u32, udp: bool, to: (&str, u16), random: u32) -> IpAddr {
        self.port += 1;
        let client = (if device == A { POD_A } else { POD_B }, self.port);
        let packet = if udp {
            udp_packet(client, to)
        } else {
            tcp_packet(client, to, tcp::SYN)
        };
        let step = Step {
            hook: Hook::FromPod,
            ifindex: device,
            ingress_ifindex: device,
            clock: self.node.clock,
            random,
        };
        let (verdict, reason, sent) = self.node.simulator.run(step, &packet);
        assert_ne!(verdict, Verdict::Drop, "{:?}", Reason::from_u8(reason));
        ends(&sent)[1].0
    }

    fn wait(&mut self, seconds: u32) {
        self.node.clock += seconds * SECOND;
    }

    /// Where each choice leads.
    fn spread(&mut self, device: u32, udp: bool, to: (&str, u16)) -> BTreeSet<IpAddr> {
        CHOICES
            .map(|random| self.open(device, udp, to, random))
            .into()
    }

    fn change(&mut self, change: impl FnOnce(&mut Service), ready: impl Fn(IpAddr) -> bool) {
        self.node.apply(&changed(change, ready));
    }
}

fn changed(change: impl FnOnce(&mut Service), ready: impl Fn(IpAddr) -> bool) -> Snapshot {
    let mut snapshot = snapshot([A, B], vec![]);
    let name = ObjectName::new("shop", "open");
    let mut service = (*snapshot.services[&name]).clone();
    change(&mut service);
    snapshot.services.insert(name, service.into());
    edit(&mut snapshot.slices, |slice| {
        for endpoint in &mut slice.endpoints {
            endpoint.ready = ready(endpoint.address);
        }
    });
    snapshot
}

#[test]
fn a_client_is_led_to_the_same_endpoint_by_every_address() {
    let mut clients = Clients::new();
    let [_, _, last] = CHOICES;
    let first = clients.open(A, false, CLUSTER_IP, last);
    assert_eq!(first, address(REMOTE));
    for to in [CLUSTER_IP, EXTERNAL, BALANCER, NODE_PORT] {
        assert_eq!(clients.spread(A, false, to), [first].into(), "{to:?}");
    }
    // Another client is another client, and another port of the Service another one.
    assert_eq!(clients.open(B, false, CLUSTER_IP, 0), address(POD_A));
    assert_eq!(clients.spread(B, false, NODE_PORT), [address(POD_A)].into());
    assert_eq!(
        clients.open(A, true, CLUSTER_IP, CHOICES[1]),
        address(POD_B)
    );
    assert_eq!(clients.spread(A, true, BALANCER), [address(POD_B)].into());
    assert_eq!(clients.spread(A, false, BALANCER), [first].into());
}

#[test]
fn each_new_connection_extends_the_time() {
    let mut clients = Clients::new();
    assert_eq!(
        clients.open(A, false, CLUSTER_IP, u32::MAX),
        address(REMOTE)
    );
    for _ in 0..3 {
        clients.wait(59);
        assert_eq!(clients.open(A, false, EXTERNAL, 0), address(REMOTE));
    }
    clients.wait(61);
    assert_eq!(
        clients.open(A, false, CLUSTER_IP, CHOICES[1]),
        address(POD_B)
    );
    assert_eq!(clients.open(A, false, CLUSTER_IP, 0), address(POD_B));
}

/// What follows on a connection is not a new one.
#[test]
fn a_long_connection_does_not_extend_the_time() {
    let mut clients = Clients::new();
    assert_eq!(
        clients.open(A, false, CLUSTER_IP, u32::MAX),
        address(REMOTE)
    );
    let packet = tcp_packet((POD_A, clients.port), CLUSTER_IP, tcp::ACK);
    for _ in 0..2 {
        clients.wait(40);
        let (reason, sent) = clients.node.leave(A, &packet);
        assert_eq!(reason, Reason::Established);
        assert_eq!(ends(&sent)[1].0, address(REMOTE));
    }
    assert_eq!(
        clients.open(A, false, CLUSTER_IP, CHOICES[1]),
        address(POD_B)
    );
}

#[test]
fn a_client_leaves_an_endpoint_that_takes_no_connections() {
    let mut clients = Clients::new();
    assert_eq!(
        clients.open(A, false, CLUSTER_IP, u32::MAX),
        address(REMOTE)
    );
    clients.change(|_| {}, |endpoint| endpoint != address(REMOTE));
    assert_eq!(clients.open(A, false, CLUSTER_IP, u32::MAX), address(POD_B));
    // It does not go back when that one is ready again.
    clients.change(|_| {}, |_| true);
    assert_eq!(
        clients.spread(A, false, CLUSTER_IP),
        [address(POD_B)].into()
    );
}

#[test]
fn a_cluster_ip_that_stays_on_the_node_is_not_led_away_by_other_addresses() {
    let mut clients = Clients::new();
    let local = |service: &mut Service| service.internal_traffic_policy = TrafficPolicy::Local;
    clients.change(local, |_| true);
    assert_eq!(clients.open(A, false, NODE_PORT, u32::MAX), address(REMOTE));
    assert_eq!(clients.open(A, false, CLUSTER_IP, u32::MAX), address(POD_B));
    // Which serves at the other addresses, too.
    assert_eq!(clients.spread(A, false, NODE_PORT), [address(POD_B)].into());
}

/// externalTrafficPolicy is for clients outside: pods are led everywhere, and remembered there.
#[test]
fn a_pod_is_remembered_at_an_address_that_stays_on_the_node_for_others() {
    let mut clients = Clients::new();
    let local = |service: &mut Service| service.external_traffic_policy = TrafficPolicy::Local;
    clients.change(local, |_| true);
    for random in [u32::MAX, 0] {
        let endpoint = clients.open(A, false, BALANCER, random);
        assert_eq!(endpoint, address(REMOTE));
    }
}

#[test]
fn affinity_can_be_turned_off_and_on() {
    let mut clients = Clients::new();
    clients.change(|service| service.affinity_seconds = None, |_| true);
    let all: BTreeSet<_> = [POD_A, POD_B, REMOTE].map(address).into();
    assert_eq!(clients.spread(B, true, CLUSTER_IP).len(), all.len());
    assert!(clients.node.simulator.affinities().is_empty());
    // Nor does it count what was remembered before.
    clients.change(|_| {}, |_| true);
    clients.open(A, true, CLUSTER_IP, 0);
    clients.change(|service| service.affinity_seconds = None, |_| true);
    assert_eq!(clients.spread(A, true, CLUSTER_IP).len(), all.len());
    clients.change(|_| {}, |_| true);
    assert_eq!(clients.spread(B, true, CLUSTER_IP).len(), 1);
}
