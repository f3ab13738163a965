//! Passes at the devices that lead out of the node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_common::abi::{Device, Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, answer, tcp};

use super::{Pass, Traffic, own_address};

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
                checksum: true,
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
        .chain([(Hook::ToNet, Reason::NoSourcePort)])
}
