//! Passes at the devices that lead out of the node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use weir::datapath::TestRun;
use weir_common::abi::{Address, Device, Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, answer, checksum_error, tcp};
use weir_tests::simulator::{NextHop, Simulator};

use super::{Kernel, Pass, Traffic, own_address};

/// The node's devices: one port for clients, so that there is none left, one of the traffic's own is the kernel's, and no IPv6
/// address in the tunnel.
pub(super) fn devices(nets: [u32; 2]) -> BTreeMap<u32, Device> {
    let [uplink, tunnel] = nets;
    [
        (uplink, "172.30.0.1", "fd30::1"),
        (tunnel, "10.0.1.0", "::"),
    ]
    .into_iter()
    .map(|(ifindex, v4, v6)| {
        let device = Device {
            v4: address(v4).into(),
            v6: address(v6).into(),
            ports: [61000, 61000],
            local_ports: [40_000, 40_000],
        };
        (ifindex, device)
    })
    .collect()
}

/// Where the test's packets are sent to.
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Neighbours: clients of both families at the uplink, one of them behind the tunnel, and the next node.
const NEIGHBORS: [(&str, [u8; 6]); 8] = [
    ("172.30.0.2", [2, 0, 0, 0, 2, 1]),
    ("fd30::2", [2, 0, 0, 0, 2, 1]),
    ("172.30.0.7", [2, 0, 0, 0, 2, 7]),
    ("fd30::7", [2, 0, 0, 0, 2, 7]),
    ("172.30.0.8", [2, 0, 0, 0, 2, 8]),
    ("fd30::8", [2, 0, 0, 0, 2, 8]),
    ("172.30.0.9", [2, 0, 0, 0, 2, 9]),
    ("fd30::9", [2, 0, 0, 0, 2, 9]),
];
/// The one behind the tunnel, whose packets come in by the uplink all the same.
const ASTRAY: [&str; 2] = ["172.30.0.9", "fd30::9"];
/// The pod on the next node.
const REMOTE: [(&str, &str); 2] = [("10.0.2.1", "172.30.0.2"), ("fd00:2::1", "fd30::2")];

/// Gives the kernel the routes that the simulator has by [`routes`].
pub(super) fn connect() {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
        std::fs::write(path, "1").expect("forwarding");
    }
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let ip = |line: &str| {
        let status = Command::new("ip").args(line.split_whitespace()).status();
        assert!(status.expect("ip").success(), "ip {line}");
    };
    ip(&format!("link set uplink address {}", mac(UPLINK_MAC)));
    ip("link set uplinkp up");
    ip("link set tunnelp up");
    ip("addr add 172.30.0.1/24 dev uplink");
    ip("addr add fd30::1/64 dev uplink nodad");
    for (neighbor, address) in NEIGHBORS {
        let device = if ASTRAY.contains(&neighbor) {
            ip(&format!("route add {neighbor} dev tunnel"));
            "tunnel"
        } else {
            "uplink"
        };
        let address = mac(address);
        ip(&format!(
            "neigh add {neighbor} dev {device} lladdr {address}"
        ));
    }
    for (pod, node) in REMOTE {
        ip(&format!("route add {pod} via {node}"));
    }
}

/// The same for the simulator.
pub(super) fn routes([uplink, tunnel]: [u32; 2]) -> BTreeMap<Address, NextHop> {
    let hop = |name: &str, to| NextHop {
        ifindex: if ASTRAY.contains(&name) {
            tunnel
        } else {
            uplink
        },
        mtu: 1500,
        from: UPLINK_MAC,
        to,
    };
    let neighbors = NEIGHBORS.map(|(name, mac)| (Address::from(address(name)), hop(name, mac)));
    let remote = REMOTE.map(|(pod, node)| {
        let (_, mac) = NEIGHBORS
            .into_iter()
            .find(|(name, _)| *name == node)
            .expect("a neighbour");
        (Address::from(address(pod)), hop(node, mac))
    });
    neighbors.into_iter().chain(remote).collect()
}

/// Has the driver's program decide in both worlds; gives a packet that it sent on, as one that left by the uplink.
pub(super) fn at_xdp(
    kernel: &Kernel,
    simulator: &Simulator,
    pass: &Pass,
    run: &TestRun<'_>,
    seed: u64,
) -> Option<(Pass, Verdict, Vec<u8>)> {
    let (verdict, _, packet) = simulator.run_xdp(pass.step, &pass.packet);
    let output = kernel.datapath.test_run_xdp(run).expect("test run");
    let output = output.expect("a program at XDP");
    let action = match verdict {
        Verdict::Drop => 1,
        Verdict::Pass => 2,
        Verdict::Return => 3,
    };
    assert_eq!(
        output.action, action,
        "verdict at XDP; seed {seed}, {pass:x?}"
    );
    assert_eq!(
        output.packet, packet,
        "bytes at XDP; seed {seed}, {pass:x?}"
    );
    if verdict == Verdict::Pass {
        assert_eq!(packet, pass.packet, "left, but not as it was; seed {seed}");
        return None;
    }
    if checksum_error(&pass.packet).is_none() {
        assert_eq!(checksum_error(&packet), None, "seed {seed}, {pass:x?}");
    }
    let mut departed = pass.clone();
    departed.step.hook = Hook::ToNet;
    Some((departed, Verdict::Pass, packet))
}

impl Traffic {
    /// A machine outside.
    pub(super) fn client(&mut self, v6: bool) -> IpAddr {
        let clients = if v6 {
            ["fd30::7", "fd30::8", "fd30::9"]
        } else {
            ["172.30.0.7", "172.30.0.8", "172.30.0.9"]
        };
        address(self.random.pick(&clients))
    }

    /// A packet to a port that some Service has, or should have.
    pub(super) fn request(&mut self, v6: bool) -> Packet {
        let (source, destination) = (self.client(v6), self.random.below(7));
        let ([v4_address, v6_address], port) = [
            (["10.96.0.10", "fd96::10"], 80),
            (["10.96.0.11", "fd96::11"], 80),
            (["10.96.0.13", "fd96::13"], 80),
            (["10.96.0.99", "fd96::99"], 80),
            (["192.0.2.15", "2001:db8::15"], 80),
            (["172.30.0.1", "fd30::1"], 30015),
            // A backend, past its Services.
            (["10.0.1.2", "fd00:1::2"], 8080),
        ][destination];
        let destination = address(if v6 { v6_address } else { v4_address });
        let from = self.random.pick(&[40_000, 40_001, 8080]);
        let content = if self.random.one_in(2) {
            let flags = self.random.pick(&[tcp::SYN, tcp::SYN, tcp::ACK, tcp::RST]);
            Content::Tcp {
                source: from,
                destination: port,
                flags,
                payload: 8,
            }
        } else {
            Content::Udp {
                source: from,
                destination: port,
                payload: 8,
                checksum: v6 || !self.random.one_in(4),
            }
        };
        let mut packet = Packet::new(source, destination, content);
        if self.random.one_in(8) {
            packet.fragment = Some(self.random.pick(&[(3, 0, true), (3, 10, false)]));
        }
        packet
    }

    /// A pass at a device of the node, or after one, that the last one leads to.
    pub(super) fn follow_network(
        &mut self,
        pass: &Pass,
        verdict: Verdict,
        packet: &[u8],
    ) -> Option<Pass> {
        let here = pass.step.ifindex;
        let net = self.random.pick(&self.nets);
        match (pass.step.hook, verdict, self.random.below(8)) {
            // Somebody else with the same port, or the same again.
            (Hook::FromNet, _, 0) => self.by_another(packet, &pass.packet, here),
            (Hook::FromNet, Verdict::Pass, 1..=4) => Some(match self.pod_of(packet) {
                Some(device) => self.pass(Hook::ToPod, device, packet.to_vec()),
                None => self.pass(Hook::ToNet, net, packet.to_vec()),
            }),
            (Hook::FromNet, Verdict::Pass, 5) => {
                let complaint = self.complaint(packet)?;
                Some(self.pass(Hook::ToNet, here, complaint))
            }
            // Past the Service.
            (Hook::FromNet, Verdict::Pass, 6) => {
                Some(self.pass(Hook::FromNet, here, packet.to_vec()))
            }
            (Hook::FromNet, Verdict::Return, 1..=4) => {
                Some(self.pass(Hook::ToNet, here, packet.to_vec()))
            }
            (Hook::ToNet, Verdict::Pass, 1..=4) => {
                Some(self.pass(Hook::FromNet, here, answer(packet)?))
            }
            (Hook::ToNet, Verdict::Pass, 5) => {
                let complaint = self.complaint(packet)?;
                Some(self.pass(Hook::FromNet, here, complaint))
            }
            (Hook::ToPod, Verdict::Pass, 1) => {
                let device = here;
                Some(self.pass(Hook::FromPod, device, answer(packet)?))
            }
            (Hook::FromPod, Verdict::Pass, 1 | 2) => {
                Some(self.pass(Hook::ToNet, net, packet.to_vec()))
            }
            _ => None,
        }
    }

    /// The packet that came in, from another client.
    fn by_another(&mut self, after: &[u8], before: &[u8], here: u32) -> Option<Pass> {
        let mut packet = before.to_vec();
        let last = match before.get(12..14)? {
            [0x08, 0x00] => 29,
            [0x86, 0xdd] => 37,
            _ => return None,
        };
        if after.len() != before.len() || before.len() < 64 {
            return None;
        }
        packet[last] = self.random.pick(&[7, 8, 9]);
        // Checksums are wrong now, as sums on the way may be: both sides must do the same with them.
        Some(self.pass(Hook::FromNet, here, packet))
    }

    /// Device of the pod that a packet is addressed to.
    fn pod_of(&self, packet: &[u8]) -> Option<u32> {
        let v6 = packet.get(12..14)? == [0x86, 0xdd];
        let destination: IpAddr = if v6 {
            <[u8; 16]>::try_from(packet.get(38..54)?).ok()?.into()
        } else {
            <[u8; 4]>::try_from(packet.get(30..34)?).ok()?.into()
        };
        let mut pods = [true, false].into_iter().zip(self.devices);
        pods.find(|(first, _)| own_address(*first, v6) == destination)
            .map(|(_, device)| device)
    }
}

/// What must have happened at these hooks for the traffic to mean something.
pub(super) fn expected() -> impl Iterator<Item = (Hook, Reason)> {
    let everywhere = [
        Reason::NotService,
        Reason::Translated,
        Reason::Established,
        Reason::Reply,
        Reason::Related,
        Reason::NotIp,
        Reason::Neighbor,
    ];
    let from_net = [
        Reason::NoEndpoint,
        Reason::NoServicePort,
        Reason::NoService,
        Reason::TupleClash,
        Reason::BackendGone,
        Reason::UnknownFragment,
    ];
    everywhere
        .into_iter()
        .flat_map(|reason| [(Hook::FromNet, reason), (Hook::ToNet, reason)])
        .chain(from_net.map(|reason| (Hook::FromNet, reason)))
        .chain([
            (Hook::ToNet, Reason::NoSourcePort),
            (Hook::FromNet, Reason::FastPath),
        ])
}
