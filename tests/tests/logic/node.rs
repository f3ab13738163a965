//! A node in the simulator, and packets for it.

use std::net::IpAddr;

use weir::compile::{Tables, compile};
use weir::model::{Policy, Protocol, Snapshot};
use weir::plan::{MemoryMaps, Plan, Planner};
use weir_common::abi::{Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, policy, snapshot, to};
use weir_tests::packets::{Content, Packet, checksum_error};
use weir_tests::simulator::{Simulator, Step};

pub(crate) const POD_A: &str = "10.0.1.1";
pub(crate) const POD_B: &str = "10.0.1.2";
pub(crate) const REMOTE: &str = "10.0.2.1";
pub(crate) const NODE: &str = "172.30.0.1";
pub(crate) const SERVICE_B: &str = "10.96.0.11";
pub(crate) const SERVICE_SELF: &str = "10.96.0.12";
pub(crate) const SERVICE_NONE: &str = "10.96.0.13";
/// Devices of the pods, and of the uplink.
pub(crate) const A: u32 = 11;
pub(crate) const B: u32 = 12;
pub(crate) const UPLINK: u32 = 2;
pub(crate) const SECOND: u32 = 250;

/// A node with a clock.
pub(crate) struct Node {
    pub(crate) simulator: Simulator,
    planner: Planner,
    pub(crate) clock: u32,
}

impl Node {
    pub(crate) fn new(policies: Vec<Policy>) -> Self {
        let mut node = Self {
            simulator: Simulator::new(MemoryMaps::new(), SECOND),
            planner: Planner::new(),
            clock: 1000,
        };
        node.apply(&snapshot([A, B], policies));
        node
    }

    pub(crate) fn apply(&mut self, snapshot: &Snapshot) {
        self.apply_tables(&compile(snapshot));
    }

    pub(crate) fn apply_tables(&mut self, tables: &Tables) {
        let plan = self.plan(tables);
        self.simulator.maps.execute(&plan).expect("execute");
    }

    /// What is to be written for these tables.
    pub(crate) fn plan(&mut self, tables: &Tables) -> Plan {
        self.planner.plan(tables).expect("plan")
    }

    pub(crate) fn enforce(&mut self, policies: Vec<Policy>) {
        self.apply(&snapshot([A, B], policies));
    }

    pub(crate) fn run(
        &self,
        hook: Hook,
        ifindex: u32,
        ingress_ifindex: u32,
        packet: &[u8],
    ) -> (Verdict, Reason, Vec<u8>) {
        let step = Step {
            hook,
            ifindex,
            ingress_ifindex,
            clock: self.clock,
            random: 0,
        };
        let (verdict, reason, packet) = self.simulator.run(step, packet);
        assert_eq!(checksum_error(&packet), None);
        (verdict, Reason::from_u8(reason).expect("reason"), packet)
    }

    /// A packet leaves a pod.
    pub(crate) fn leave(&self, device: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
        let (verdict, reason, packet) = self.run(Hook::FromPod, device, device, packet);
        assert_eq!(
            verdict != Verdict::Pass,
            reason.is_drop() || verdict == Verdict::Return
        );
        (reason, packet)
    }

    /// A packet that came in by `from` enters a pod.
    pub(crate) fn enter(&self, device: u32, from: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
        let (_, reason, packet) = self.run(Hook::ToPod, device, from, packet);
        (reason, packet)
    }
}

pub(crate) fn tcp_packet(source: (&str, u16), destination: (&str, u16), flags: u8) -> Vec<u8> {
    let content = Content::Tcp {
        source: source.1,
        destination: destination.1,
        flags,
        payload: 0,
    };
    Packet::new(address(source.0), address(destination.0), content).bytes()
}

pub(crate) fn udp_packet(source: (&str, u16), destination: (&str, u16)) -> Vec<u8> {
    let content = Content::Udp {
        source: source.1,
        destination: destination.1,
        payload: 10,
        checksum: true,
    };
    Packet::new(address(source.0), address(destination.0), content).bytes()
}

pub(crate) fn sctp_packet(source: (&str, u16), destination: (&str, u16), payload: usize) -> Packet {
    let content = Content::Sctp {
        source: source.1,
        destination: destination.1,
        payload,
    };
    Packet::new(address(source.0), address(destination.0), content)
}

/// A cluster with SCTP in the place of UDP.
pub(crate) fn over_sctp(mut cluster: Snapshot) -> Snapshot {
    let change = |protocol: &mut Protocol| {
        if *protocol == Protocol::Udp {
            *protocol = Protocol::Sctp;
        }
    };
    edit(&mut cluster.services, |service| {
        service
            .ports
            .iter_mut()
            .for_each(|port| change(&mut port.protocol));
    });
    edit(&mut cluster.slices, |slice| {
        slice
            .ports
            .iter_mut()
            .for_each(|port| change(&mut port.protocol));
    });
    cluster
}

pub(crate) fn deny_all(pod: &str) -> Policy {
    policy(&format!("deny-{pod}"), pod, Some(vec![]), Some(vec![]))
}

pub(crate) fn allow_egress_to_b() -> Policy {
    policy(
        "a",
        "a",
        None,
        Some(vec![to(
            "b",
            &[(Protocol::Tcp, 8080, 8080), (Protocol::Udp, 8080, 8080)],
        )]),
    )
}

/// Source and destination address and port of an IPv4 frame without options.
pub(crate) fn ends(frame: &[u8]) -> [(IpAddr, u16); 2] {
    let at = |ip: usize, port: usize| {
        let octets: [u8; 4] = frame[ip..ip + 4].try_into().expect("four bytes");
        (
            IpAddr::from(octets),
            u16::from_be_bytes([frame[port], frame[port + 1]]),
        )
    };
    [at(26, 34), at(30, 36)]
}
