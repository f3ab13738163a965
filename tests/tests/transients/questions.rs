//! Packets that ask what a node thinks of connections.

use weir_common::abi::Hook;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, tcp};

/// A packet, and the hook that it meets.
pub(crate) struct Question {
    pub(crate) hook: Hook,
    pub(crate) ifindex: u32,
    pub(crate) from: u32,
    pub(crate) packet: Vec<u8>,
}

/// No pod is behind it, and every namespace has it.
const UPLINK: u32 = 1;
const POD_A: &str = "10.0.1.1";
const POD_B: &str = "10.0.1.2";

/// First packets of connections between pods, to Services, and with others, at both hooks of both pods.
pub(crate) fn questions([a, b]: [u32; 2]) -> Vec<Question> {
    let others = [POD_B, "10.0.2.1", "192.0.2.200", "10.0.2.77"];
    let services = [
        "10.96.0.10",
        "10.96.0.11",
        "10.96.0.13",
        "10.96.0.15",
        "192.0.2.15",
        "192.0.2.16",
        "192.0.2.17",
        "10.96.0.99",
    ];
    let mut questions = Vec::new();
    let mut ask = |hook, ifindex, from, source: &str, destination: &str, port| {
        for udp in [false, true] {
            let packet = packet(source, destination, port, udp);
            questions.push(Question {
                hook,
                ifindex,
                from,
                packet,
            });
        }
    };
    for destination in others {
        for port in [8080, 53] {
            ask(Hook::FromPod, a, a, POD_A, destination, port);
        }
    }
    for destination in services {
        ask(Hook::FromPod, a, a, POD_A, destination, 80);
    }
    ask(Hook::FromPod, a, a, POD_A, "10.96.0.10", 81);
    ask(Hook::FromPod, b, b, POD_B, POD_A, 8080);
    for source in [POD_A, "10.0.2.1", "192.0.2.200"] {
        let from = if source == POD_A { a } else { UPLINK };
        for port in [8080, 99] {
            ask(Hook::ToPod, b, from, source, POD_B, port);
        }
    }
    ask(Hook::ToPod, b, 0, "172.30.0.1", POD_B, 8080);
    questions
}

fn packet(source: &str, destination: &str, port: u16, udp: bool) -> Vec<u8> {
    let content = if udp {
        Content::Udp {
            source: 4000,
            destination: port,
            payload: 10,
            checksum: true,
        }
    } else {
        Content::Tcp {
            source: 4000,
            destination: port,
            flags: tcp::SYN,
            payload: 0,
        }
    };
    Packet::new(address(source), address(destination), content).bytes()
}
