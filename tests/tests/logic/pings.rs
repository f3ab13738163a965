//! Pings of isolated pods, and errors about them.

use std::net::IpAddr;

use weir_common::reason::Reason;
use weir_tests::fixture::{address, policy, to};
use weir_tests::packets::{Content, Packet};

use crate::node::{A, Node, UPLINK};
use crate::policies::FAMILIES;

/// Who speaks in an exchange of echo messages.
#[derive(Clone, Copy)]
pub(crate) enum Echo {
    Request,
    Reply,
}

/// An ICMP or ICMPv6 echo message.
pub(crate) fn echo(which: Echo, source: &str, destination: &str, id: u16) -> Vec<u8> {
    let source: IpAddr = address(source);
    let kind = match (which, source) {
        (Echo::Request, IpAddr::V4(_)) => 8,
        (Echo::Reply, IpAddr::V4(_)) => 0,
        (Echo::Request, IpAddr::V6(_)) => 128,
        (Echo::Reply, IpAddr::V6(_)) => 129,
    };
    let content = Content::Icmp {
        kind,
        code: 0,
        rest: u32::from(id) << 16 | 1,
        payload: vec![0; 8],
    };
    Packet::new(source, address(destination), content).bytes()
}

/// An ICMP error ("too big": it is what path MTU discovery lives on) from a router about a packet.
fn too_big(about: &[u8], back_to: &str) -> Vec<u8> {
    let (router, kind, code, header) = if back_to.contains(':') {
        ("fd30::99", 2, 0, 40)
    } else {
        ("172.30.0.99", 3, 4, 20)
    };
    let content = Content::Icmp {
        kind,
        code,
        rest: 1300,
        payload: about[14..14 + header + 8].to_vec(),
    };
    Packet::new(address(router), address(back_to), content).bytes()
}

fn closed() -> Vec<weir::model::Policy> {
    vec![policy("in", "a", Some(vec![]), None)]
}

#[test]
fn a_ping_is_no_answer_to_a_ping() {
    for (pod, peer) in FAMILIES {
        // The last identifier has no successor.
        for id in [1, 7, 0xffff] {
            let node = Node::new(closed());
            let asked = echo(Echo::Request, pod, peer, id);
            assert_eq!(node.leave(A, &asked).0, Reason::NotIsolated);
            let answered = echo(Echo::Reply, peer, pod, id);
            assert_eq!(node.enter(A, UPLINK, &answered).0, Reason::Reply);
            for id in [id.wrapping_sub(1), id, id.wrapping_add(1)] {
                let request = echo(Echo::Request, peer, pod, id);
                assert_eq!(node.enter(A, UPLINK, &request).0, Reason::PolicyDenied);
            }
            // Nor is an answer to somebody else's question one to the pod's.
            for other in [id.wrapping_sub(1), id.wrapping_add(1)] {
                let reply = echo(Echo::Reply, peer, pod, other);
                assert_eq!(node.enter(A, UPLINK, &reply).0, Reason::PolicyDenied);
            }
            assert_eq!(node.enter(A, UPLINK, &answered).0, Reason::Reply);
        }
    }
}

#[test]
fn errors_about_a_ping_go_to_who_asked() {
    for (pod, peer) in FAMILIES {
        let node = Node::new(closed());
        let asked = echo(Echo::Request, pod, peer, 7);
        let error = too_big(&asked, pod);
        assert_eq!(node.enter(A, UPLINK, &error).0, Reason::PolicyDenied);
        node.leave(A, &asked);
        assert_eq!(node.enter(A, UPLINK, &error).0, Reason::Related);
        // The pod's own complaint about the answer.
        let answered = echo(Echo::Reply, peer, pod, 7);
        node.enter(A, UPLINK, &answered);
        let content = Content::Icmp {
            kind: if pod.contains(':') { 1 } else { 3 },
            code: 1,
            rest: 0,
            payload: answered[14..answered.len().min(14 + 48)].to_vec(),
        };
        let complaint = Packet::new(address(pod), address(peer), content).bytes();
        assert_eq!(node.leave(A, &complaint).0, Reason::Related);
        // Errors about a request of the peer are about nothing that the pod sent.
        let forged = too_big(&echo(Echo::Request, pod, peer, 8), pod);
        assert_eq!(node.enter(A, UPLINK, &forged).0, Reason::PolicyDenied);
    }
}

#[test]
fn pings_are_judged_like_any_protocol() {
    for (pod, peer) in FAMILIES {
        let allowed = policy("in", "a", Some(vec![to("c", &[])]), None);
        for (policies, expected) in [
            (vec![], Reason::NotIsolated),
            (closed(), Reason::PolicyDenied),
            (vec![allowed], Reason::PolicyAllowed),
        ] {
            let node = Node::new(policies);
            let request = echo(Echo::Request, peer, pod, 7);
            assert_eq!(node.enter(A, UPLINK, &request).0, expected);
            let reply = echo(Echo::Reply, pod, peer, 7);
            let answered = node.leave(A, &reply).0 == Reason::Reply;
            assert_eq!(answered, expected != Reason::PolicyDenied);
        }
    }
}
