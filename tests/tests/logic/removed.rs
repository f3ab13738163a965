//! Connections to a backend that is no endpoint of its Service any more: kept, or reset where the operator wants that.

use weir::model::{Endpoint, Snapshot};
use weir::plan::{Plan, Step};
use weir_common::abi::{Hook, Verdict, control};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, snapshot};
use weir_tests::packets::{answer, tcp};

use super::external::{CLIENT, depart, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, REMOTE, SERVICE_B, UPLINK, ends, tcp_packet, udp_packet,
};

const SERVICE_B_V6: &str = "fd96::11";
const POD_A_V6: &str = "fd00:1::1";
/// Where an IPv4 frame, or one of IPv6, has its TCP header.
const TCP: [usize; 2] = [34, 54];

/// The cluster after a change to the endpoints of Service `b`.
fn changed(change: impl Fn(&mut Endpoint)) -> Snapshot {
    let mut snapshot = snapshot([A, B], vec![]);
    edit(&mut snapshot.slices, |slice| {
        if slice.service.name == "b" {
            slice.endpoints.iter_mut().for_each(&change);
        }
    });
    snapshot
}

/// Its only endpoint is the pod on the other node now.
fn moved() -> Snapshot {
    changed(|endpoint| {
        let v4 = endpoint.address.is_ipv4();
        endpoint.address = address(if v4 { REMOTE } else { "fd00:2::1" });
    })
}

/// It is still an endpoint, and about to go.
fn terminating() -> Snapshot {
    changed(|endpoint| {
        endpoint.ready = false;
        endpoint.serving = false;
        endpoint.terminating = true;
    })
}

/// What `--removed-backends=reset` writes.
fn reset_gone(node: &mut Node) {
    let (index, value) = (control::RESET_GONE, 1);
    let steps = vec![Step::Control { index, value }];
    node.simulator
        .maps
        .execute(&Plan { steps })
        .expect("control");
}

/// A node on which a pod, or a client outside, has a connection to Service `b`, whose backend is pod b.
fn connected(client: &str, service: &str) -> Node {
    let node = outside(vec![]);
    let syn = tcp_packet((client, 4000), (service, 80), tcp::SYN);
    let ack = tcp_packet((client, 4000), (service, 80), tcp::ACK);
    let from = if client == CLIENT { UPLINK } else { A };
    for packet in [syn, ack] {
        let (_, sent) = send(&node, client, &packet);
        assert!(!node.enter(B, from, &sent).0.is_drop());
        let (_, answered) = node.leave(B, &answer(&sent).expect("answer"));
        let (reason, _) = match client {
            CLIENT => depart(&node, UPLINK, B, &answered),
            _ => node.enter(A, B, &answered),
        };
        assert_eq!(reason, Reason::Reply);
    }
    node
}

/// The client sends a packet.
fn send(node: &Node, client: &str, packet: &[u8]) -> (Reason, Vec<u8>) {
    match client {
        CLIENT => {
            let (_, reason, packet) = node.run(Hook::FromNet, UPLINK, UPLINK, packet);
            (reason, packet)
        }
        _ => node.leave(A, packet),
    }
}

#[test]
fn connections_are_kept_or_reset_as_the_operator_wants() {
    for (client, service) in [
        (POD_A, SERVICE_B),
        (POD_A_V6, SERVICE_B_V6),
        (CLIENT, SERVICE_B),
    ] {
        for (cluster, reset, expected) in [
            (moved as fn() -> Snapshot, false, Reason::Established),
            (moved, true, Reason::BackendGone),
            (terminating, true, Reason::Established),
        ] {
            let mut node = connected(client, service);
            if reset {
                reset_gone(&mut node);
            }
            node.apply(&cluster());
            let v6 = client.contains(':');
            let hook = if client == CLIENT {
                (Hook::FromNet, UPLINK)
            } else {
                (Hook::FromPod, A)
            };
            // Of a reset that is lost the next packet makes another.
            for flags in [tcp::ACK, tcp::ACK, tcp::FIN | tcp::ACK] {
                let data = tcp_packet((client, 4000), (service, 80), flags);
                let (verdict, reason, sent) = node.run(hook.0, hook.1, hook.1, &data);
                if expected == Reason::Established {
                    // What is not allowed anew goes on.
                    assert_eq!(verdict, Verdict::Pass, "{client} {flags}: {reason:?}");
                    continue;
                }
                assert_eq!((verdict, reason), (Verdict::Return, expected), "{client}");
                let header = &sent[TCP[usize::from(v6)]..];
                // From the Service, where the client is with its reading (packets::Packet), which it takes at once.
                assert_eq!(header[..4], [0, 80, 0x0f, 0xa0], "{client}");
                assert_eq!((&header[4..8], header[13]), (&[0, 0, 0, 9][..], tcp::RST));
            }
        }
    }
}

#[test]
fn a_reset_ends_both_sides_and_the_next_connection_goes_elsewhere() {
    let mut node = connected(POD_A, SERVICE_B);
    reset_gone(&mut node);
    node.apply(&moved());
    // The backend goes on, and hears from the client that it was reset.
    let data = tcp_packet((POD_B, 8080), (POD_A, 4000), tcp::ACK);
    let (reason, sent) = node.leave(B, &data);
    assert_eq!(reason, Reason::Reply);
    let (_, received) = node.enter(A, B, &sent);
    assert_eq!(ends(&received)[0], (address(SERVICE_B), 80));
    let reset = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::RST);
    let (reason, sent) = node.leave(A, &reset);
    assert_eq!(
        (reason, ends(&sent)[1]),
        (Reason::Established, (address(POD_B), 8080))
    );
    let syn = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN);
    let (_, sent) = node.leave(A, &syn);
    assert_eq!(ends(&sent)[1], (address(REMOTE), 8080));
}

#[test]
fn nothing_else_is_reset() {
    let mut node = connected(POD_A, SERVICE_B);
    let datagram = udp_packet((POD_A, 4000), (SERVICE_B, 80));
    node.leave(A, &datagram);
    let direct = tcp_packet((POD_A, 4001), (POD_B, 8080), tcp::SYN);
    node.leave(A, &direct);
    // By another Service, of which it is an endpoint still.
    let also = |flags| tcp_packet((POD_A, 4002), ("10.96.0.14", 80), flags);
    node.leave(A, &also(tcp::SYN));
    reset_gone(&mut node);
    node.apply(&moved());
    let (_, sent) = node.leave(A, &datagram);
    assert_eq!(ends(&sent)[1], (address(REMOTE), 8080));
    let direct = tcp_packet((POD_A, 4001), (POD_B, 8080), tcp::ACK);
    assert_eq!(node.leave(A, &direct).0, Reason::Established);
    assert_eq!(node.leave(A, &also(tcp::ACK)).0, Reason::Established);
    // One that nobody knows is for the present endpoint to refuse.
    let unknown = tcp_packet((POD_A, 4003), (SERVICE_B, 80), tcp::ACK);
    let (_, sent) = node.leave(A, &unknown);
    assert_eq!(ends(&sent)[1], (address(REMOTE), 8080));
}
