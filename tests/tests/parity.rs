//! The simulator and the loaded programs, given the same packets, agree on every verdict, byte and flow.
//!
//! Sequences of packets come from a seed; `WEIR_PARITY_SEQUENCES` sets how many per family of tables, `WEIR_PARITY_SEED` replays
//! one. Needs root and an agent built with the kernel programs; says SKIP otherwise.

// xtask: soak

#[path = "parity/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir::compile::compile;
use weir::datapath::{AttachMode, KernelDatapath, Options, TestRun};
use weir::model::{Policy, Protocol, Rule, Snapshot};
use weir::plan::{MemoryMaps, Plan, Planner, Step as PlanStep};
use weir_common::abi::{Counter, Event, Flow, FlowKey, Hook, Verdict, control};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, block, edit, policy, snapshot, to};
use weir_tests::kernel::{Place, veth};
use weir_tests::packets::{Content, Packet, answer, checksum_error, set_tcp_flags, tcp};
use weir_tests::random::Random;
use weir_tests::simulator::{Simulator, Step};
use weir_tests::soaks;
use zerocopy::IntoBytes;

/// The table families: sequences switch from one to the next in the middle.
fn families() -> Vec<Vec<Policy>> {
    let tcp = (Protocol::Tcp, 8080, 8080);
    let udp = (Protocol::Udp, 8080, 8090);
    vec![
        vec![],
        vec![policy("deny-a", "a", Some(vec![]), Some(vec![]))],
        vec![
            policy(
                "a",
                "a",
                None,
                Some(vec![
                    to("b", &[tcp, udp]),
                    block("10.0.2.0/24", &["10.0.2.128/25"]),
                ]),
            ),
            policy(
                "b",
                "b",
                Some(vec![to("a", &[tcp, (Protocol::Udp, 1, 1000), udp])]),
                None,
            ),
        ],
        vec![
            policy(
                "a",
                "a",
                Some(vec![Rule::default()]),
                Some(vec![to("c", &[tcp]), block("fd00:2::/64", &[])]),
            ),
            policy(
                "b",
                "b",
                Some(vec![block("0.0.0.0/0", &["10.0.1.0/24"])]),
                Some(vec![]),
            ),
        ],
    ]
}

/// The same with pod c in place of pod b in all Services.
fn without_b(mut snapshot: Snapshot) -> Snapshot {
    edit(&mut snapshot.slices, |slice| {
        for endpoint in &mut slice.endpoints {
            if endpoint.address == own_address(false, endpoint.address.is_ipv6()) {
                let v4 = endpoint.address.is_ipv4();
                endpoint.address = address(if v4 { "10.0.2.1" } else { "fd00:2::1" });
            }
        }
    });
    snapshot
}

/// The programs, loaded in namespaces of the test's own.
struct Kernel {
    datapath: KernelDatapath,
    devices: [u32; 2],
    nets: [u32; 2],
    _place: Place,
}

impl Kernel {
    fn new() -> Option<Self> {
        let place = Place::new()?;
        let devices = ["pod-a", "pod-b"].map(veth);
        let nets = ["uplink", "tunnel"].map(veth);
        network::connect();
        let options = Options {
            replay: true,
            xdp: true,
            ..place.options(AttachMode::Auto)
        };
        Some(Self {
            datapath: KernelDatapath::open(&options).expect("open"),
            devices,
            nets,
            _place: place,
        })
    }

    fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        let mut flows = BTreeMap::new();
        self.datapath
            .for_each_flow(|key, flow| {
                flows.insert(key, flow);
            })
            .expect("flows");
        flows
    }
}

/// A packet and the hook that it meets.
#[derive(Clone, Debug)]
struct Pass {
    step: Step,
    packet: Vec<u8>,
    /// Whether it meets the driver's program before.
    xdp: bool,
}

/// Makes up passes, many of them following from what became of earlier ones.
struct Traffic {
    random: Random,
    devices: [u32; 2],
    nets: [u32; 2],
    clock: u32,
    last: Option<(Pass, Verdict, Vec<u8>)>,
}

impl Traffic {
    fn next(&mut self) -> Pass {
        self.clock = self.clock.wrapping_add(match self.random.below(12) {
            0 => 11 * 250,
            1 => 70 * 250,
            2 => 200 * 250,
            _ => 3,
        });
        if let Some((pass, verdict, packet)) = self.last.clone()
            && let Some(packet) = self.follow(&pass, verdict, &packet)
        {
            return packet;
        }
        let v6 = self.random.one_in(2);
        let hook = match self.random.below(10) {
            0..4 => Hook::FromPod,
            4..6 => Hook::ToPod,
            6..9 => Hook::FromNet,
            _ => Hook::ToNet,
        };
        let devices = match hook {
            Hook::FromPod | Hook::ToPod => self.devices,
            Hook::FromNet | Hook::ToNet => self.nets,
        };
        let device = self.random.pick(&devices);
        let mut packet = match hook {
            Hook::FromNet if !self.random.one_in(4) => self.request(v6),
            _ => self.fresh(v6),
        };
        if !self.random.one_in(10) {
            let own = own_address(device == self.devices[0], v6);
            match hook {
                Hook::FromPod => packet.source = own,
                Hook::ToPod => packet.destination = own,
                Hook::FromNet => packet.source = self.client(v6),
                Hook::ToNet => packet.destination = self.client(v6),
            }
        }
        let mut bytes = packet.bytes();
        if self.random.one_in(20) {
            // The kernel refuses to test-run frames that end before a whole network header.
            let least = if bytes[12] == 0x86 { 54 } else { 34 };
            bytes.truncate(least + self.random.below(bytes.len() - least));
        }
        if self.random.one_in(30) {
            let at = 12 + self.random.below(bytes.len() - 12);
            bytes[at] ^= 1 << self.random.below(8);
        }
        if self.random.one_in(40) {
            bytes[12..14].copy_from_slice(&[0x08, 0x06]);
        }
        self.pass(hook, device, bytes)
    }

    fn pass(&mut self, hook: Hook, ifindex: u32, packet: Vec<u8>) -> Pass {
        let other = self
            .devices
            .into_iter()
            .find(|device| *device != ifindex)
            .unwrap_or(1);
        let ingress_ifindex = match hook {
            Hook::FromPod | Hook::FromNet => ifindex,
            Hook::ToPod => self.random.pick(&[0, 1, other, other, other, ifindex]),
            Hook::ToNet => {
                let [uplink, tunnel] = self.nets;
                self.random.pick(&[0, uplink, tunnel, other])
            }
        };
        let random = self.random.any() as u32;
        Pass {
            step: Step {
                hook,
                ifindex,
                ingress_ifindex,
                clock: self.clock,
                random,
            },
            packet,
            xdp: hook == Hook::FromNet && ifindex == self.nets[0] && self.random.one_in(2),
        }
    }

    /// A packet of a connection to a Service whose only endpoint is pod b, from pod a or from outside.
    fn connection(&mut self, seed: u64) -> Pass {
        let outside = (seed / 100).is_multiple_of(2);
        let v6 = (seed / 200).is_multiple_of(2);
        let (hook, device, client) = if outside {
            let client = address(if v6 { "fd30::7" } else { "172.30.0.7" });
            (Hook::FromNet, self.nets[0], client)
        } else {
            (Hook::FromPod, self.devices[0], own_address(true, v6))
        };
        let content = Content::Tcp {
            source: 40_002,
            destination: 80,
            flags: tcp::ACK,
            payload: 8,
        };
        let service = address(if v6 { "fd96::11" } else { "10.96.0.11" });
        let packet = Packet::new(client, service, content);
        self.pass(hook, device, packet.bytes())
    }

    /// A pass that the last one leads to: delivered to the other pod, answered, retransmitted, complained about.
    fn follow(&mut self, pass: &Pass, verdict: Verdict, packet: &[u8]) -> Option<Pass> {
        if let Some(next) = self.follow_network(pass, verdict, packet) {
            return Some(next);
        }
        let [a, b] = self.devices;
        let other = if pass.step.ifindex == a { b } else { a };
        let here = pass.step.ifindex;
        // 0 begins something new.
        match (self.random.below(8), pass.step.hook, verdict) {
            (1, hook, _) => Some(self.pass(hook, here, pass.packet.clone())),
            (2 | 3, Hook::FromPod, Verdict::Pass) => {
                Some(self.pass(Hook::ToPod, other, packet.to_vec()))
            }
            (4, Hook::FromPod, Verdict::Pass) => {
                Some(self.pass(Hook::ToPod, here, answer(packet)?))
            }
            (4.., Hook::FromPod | Hook::ToPod, Verdict::Return)
            | (2 | 3, Hook::ToPod, Verdict::Pass) => {
                Some(self.pass(Hook::FromPod, here, answer(packet)?))
            }
            (4 | 5, Hook::ToPod, Verdict::Pass) => {
                let complaint = self.complaint(packet)?;
                Some(self.pass(Hook::FromPod, here, complaint))
            }
            (6, Hook::FromPod, Verdict::Pass) => {
                let complaint = self.complaint(packet)?;
                Some(self.pass(Hook::ToPod, here, complaint))
            }
            (7, hook, _) if packet.get(12..14)? == [8, 0] && packet.get(23)? == &6 => {
                let mut packet = pass.packet.clone();
                let flags = self
                    .random
                    .pick(&[tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, tcp::SYN]);
                set_tcp_flags(&mut packet, 34, flags);
                Some(self.pass(hook, here, packet))
            }
            _ => None,
        }
    }

    /// An ICMP error about a packet, to its sender, from its destination or a router.
    fn complaint(&mut self, about: &[u8]) -> Option<Vec<u8>> {
        let quoted = about.get(14..(14 + 60).min(about.len()))?.to_vec();
        let v6 = about.get(12..14)? == [0x86, 0xdd];
        let (source, destination) = if v6 {
            let at = |from: usize| {
                about
                    .get(from..from + 16)
                    .and_then(|b| <[u8; 16]>::try_from(b).ok())
                    .map(IpAddr::from)
            };
            (at(22)?, at(38)?)
        } else {
            let at = |from: usize| {
                about
                    .get(from..from + 4)
                    .and_then(|b| <[u8; 4]>::try_from(b).ok())
                    .map(IpAddr::from)
            };
            (at(26)?, at(30)?)
        };
        let router = address(if v6 { "fd30::1" } else { "172.30.0.1" });
        let from = if self.random.one_in(2) {
            destination
        } else {
            router
        };
        let (kind, code) = if v6 {
            self.random.pick(&[(1, 4), (2, 0), (3, 0)])
        } else {
            self.random.pick(&[(3, 3), (3, 4), (11, 0)])
        };
        Some(
            Packet::new(
                from,
                source,
                Content::Icmp {
                    kind,
                    code,
                    rest: 1300,
                    payload: quoted,
                },
            )
            .bytes(),
        )
    }

    fn fresh(&mut self, v6: bool) -> Packet {
        let hosts: &[&str] = if v6 {
            &[
                "fd00:1::1",
                "fd00:1::1",
                "fd00:1::2",
                "fd00:2::1",
                "fd30::7",
                "fe80::1",
                "::",
                "ff02::1",
            ]
        } else {
            &[
                "10.0.1.1",
                "10.0.1.1",
                "10.0.1.2",
                "10.0.2.1",
                "10.0.2.200",
                "172.30.0.7",
                "0.0.0.0",
                "224.0.0.1",
            ]
        };
        let services: &[&str] = if v6 {
            &[
                "fd96::10",
                "fd96::11",
                "fd96::12",
                "fd96::13",
                "fd96::14",
                "fd96::15",
                "fd96::99",
                "2001:db8::15",
                "2001:db8::16",
                "2001:db8::17",
                "fd30::1",
            ]
        } else {
            &[
                "10.96.0.10",
                "10.96.0.11",
                "10.96.0.12",
                "10.96.0.13",
                "10.96.0.14",
                "10.96.0.15",
                "10.96.0.99",
                "192.0.2.15",
                "192.0.2.16",
                "192.0.2.17",
                "172.30.0.1",
            ]
        };
        let source = address(self.random.pick(hosts));
        let destination = if self.random.one_in(2) {
            self.random.pick(services)
        } else {
            self.random.pick(hosts)
        };
        let destination = address(destination);
        let from = self.random.pick(&[40_000, 40_000, 40_001, 8080, 68]);
        let port = self
            .random
            .pick(&[80, 80, 80, 8080, 8080, 8085, 30015, 53, 67, 999]);
        let payload = self.random.below(40);
        let content = match self.random.below(12) {
            0..=4 => {
                let flags = self.random.pick(&[
                    tcp::SYN,
                    tcp::SYN,
                    tcp::SYN,
                    tcp::ACK,
                    tcp::RST,
                    tcp::FIN | tcp::ACK,
                ]);
                Content::Tcp {
                    source: from,
                    destination: port,
                    flags,
                    payload,
                }
            }
            5..=8 => Content::Udp {
                source: from,
                destination: port,
                payload,
                checksum: v6 || !self.random.one_in(4),
            },
            9 => Content::Sctp {
                source: from,
                destination: port,
                payload,
            },
            10 => {
                let kinds: &[u8] = if v6 {
                    &[128, 129, 135, 136, 133, 143, 1, 2]
                } else {
                    &[8, 0, 3, 11, 13]
                };
                Content::Icmp {
                    kind: self.random.pick(kinds),
                    code: 0,
                    rest: 7 << 16 | 1,
                    payload: vec![1; payload],
                }
            }
            _ => Content::Other {
                protocol: self.random.pick(&[47, 50, 59]),
                payload: payload + 8,
            },
        };
        let mut packet = Packet::new(source, destination, content);
        packet.hops = self.random.pick(&[64, 64, 255, 1]);
        if self.random.one_in(8) {
            packet.options = self.random.pick(&[8, 16, 40]);
        }
        if self.random.one_in(8) {
            let id = self.random.pick(&[1, 2]);
            packet.fragment = Some(self.random.pick(&[
                (id, 0, true),
                (id, 10, true),
                (id, 20, false),
                (id, 1, false),
            ]));
        }
        packet
    }
}

/// Address of the pod behind the first or the second device.
fn own_address(first: bool, v6: bool) -> IpAddr {
    address(match (first, v6) {
        (true, false) => "10.0.1.1",
        (true, true) => "fd00:1::1",
        (false, false) => "10.0.1.2",
        (false, true) => "fd00:1::2",
    })
}

fn bytes_of(events: Vec<Event>) -> Vec<Vec<u8>> {
    let events = events.iter();
    events.map(|event| event.as_bytes().to_vec()).collect()
}

fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => -1,
        Verdict::Drop => 2,
        Verdict::Return => 7,
    }
}

#[test]
fn the_simulator_and_the_loaded_programs_agree() {
    let Some(mut kernel) = Kernel::new() else {
        return;
    };
    println!("attaches by {}", kernel.datapath.attach_mode());
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let usual = if soaks() { 100_000 } else { 10_000 };
    let sequences = number("WEIR_PARITY_SEQUENCES").unwrap_or(usual);
    let seeds: Vec<u64> =
        number("WEIR_PARITY_SEED").map_or_else(|| (0..sequences).collect(), |seed| vec![seed]);

    let mut families: Vec<Snapshot> = families()
        .into_iter()
        .map(|policies| snapshot(kernel.devices, policies))
        .collect();
    families.insert(1, without_b(snapshot(kernel.devices, vec![])));
    let mut planner = Planner::new();
    let mut simulator = Simulator::new(MemoryMaps::new(), kernel.datapath.ticks_per_second());
    simulator.devices = network::devices(kernel.nets);
    simulator.routes = network::routes(kernel.nets);
    kernel.datapath.set_nets(&simulator.devices).expect("nets");
    let mut events = kernel.datapath.events().expect("events");
    let mut current = usize::MAX;
    let sample = Plan {
        steps: vec![PlanStep::Control {
            index: control::SAMPLE,
            value: 1,
        }],
    };
    kernel.datapath.execute(&sample).expect("sample");
    simulator.maps.execute(&sample).expect("sample");

    let mut affinity_seen = false;
    for seed in seeds {
        let mut traffic = Traffic {
            random: Random::new(seed),
            devices: kernel.devices,
            nets: kernel.nets,
            clock: seed as u32,
            last: None,
        };
        for index in 0..12 {
            // Every tenth sequence changes the tables in its middle, with flows alive.
            let wanted = if index == 6 && seed % 10 == 0 {
                (seed as usize / 10) % families.len()
            } else {
                current
            };
            let wanted = if wanted == usize::MAX { 0 } else { wanted };
            if wanted != current {
                let mut plan = planner.plan(&compile(&families[wanted])).expect("plan");
                // Connections to backends that are gone are reset at every second turn, pods may send for others at every third and fourth.
                let turn = seed / 10 / families.len() as u64;
                for (index, value) in [
                    (control::RESET_GONE, turn % 2),
                    (control::FOREIGN_SOURCES, turn / 2 % 2),
                ] {
                    plan.steps.push(PlanStep::Control { index, value });
                }
                kernel.datapath.execute(&plan).expect("execute");
                simulator.maps.execute(&plan).expect("execute");
                current = wanted;
            }
            // Of a connection that is there before and after.
            let pass = match index {
                5 | 6 if seed % 10 == 0 => traffic.connection(seed),
                _ => traffic.next(),
            };
            let run = TestRun {
                clock: pass.step.clock,
                random: pass.step.random,
                ..TestRun::new(&pass.packet, pass.step.ifindex, pass.step.ingress_ifindex)
            };
            if pass.xdp
                && let Some(departed) = network::at_xdp(&kernel, &simulator, &pass, &run, seed)
            {
                let reported: Vec<_> =
                    std::iter::from_fn(|| events.next().map(|event| event.to_vec())).collect();
                assert_eq!(reported, bytes_of(simulator.take_events()), "seed {seed}");
                traffic.last = Some(departed);
                continue;
            }
            let (verdict, reason, packet) = simulator.run(pass.step, &pass.packet);
            let Ok(output) = kernel.datapath.test_run(pass.step.hook, &run) else {
                panic!("test run of {pass:x?}");
            };
            let context = format!(
                "seed {seed}, packet {index}: {pass:x?}, reason {:?}",
                Reason::from_u8(reason)
            );
            assert_eq!(output.action, action(verdict), "verdict; {context}");
            if verdict != Verdict::Drop {
                assert_eq!(output.packet, packet, "bytes; {context}");
                if checksum_error(&pass.packet).is_none() {
                    assert_eq!(
                        checksum_error(&packet),
                        None,
                        "checksum; {context}\nout {packet:x?}"
                    );
                }
            }
            let reported: Vec<_> =
                std::iter::from_fn(|| events.next().map(|event| event.to_vec())).collect();
            let expected = bytes_of(simulator.take_events());
            assert_eq!(reported, expected, "events; {context}");
            traffic.last = Some((pass, verdict, packet));
        }
        let (flows, expected) = (kernel.flows(), simulator.flows());
        assert_eq!(flows, expected, "flows; seed {seed}");
        for key in flows.keys() {
            kernel.datapath.delete_flow(key).expect("delete");
        }
        let affinities = kernel.datapath.affinities().expect("affinities");
        assert_eq!(
            affinities,
            simulator.affinities(),
            "affinities; seed {seed}"
        );
        affinity_seen |= !affinities.is_empty();
        for key in affinities.keys() {
            kernel.datapath.forget_affinity(key).expect("forget");
        }
        simulator.forget_flows();
    }
    let counted: BTreeMap<u32, Counter> = kernel
        .datapath
        .counters()
        .expect("counters")
        .into_iter()
        .filter(|(_, _, counter)| counter.packets > 0)
        .map(|(hook, reason, counter)| (hook.counter(reason), counter))
        .collect();
    assert_eq!(counted, simulator.counters(), "counters");
    if sequences >= 10_000 {
        assert!(affinity_seen);
        assert_rich(&counted);
    }
}

/// One packet in 65536 gets a checksum of zero, which UDP has another meaning for (RFC 768): too few for chance.
#[test]
fn a_checksum_that_comes_out_as_zero_is_written_as_ones() {
    let Some(mut kernel) = Kernel::new() else {
        return;
    };
    let device = kernel.devices[0];
    let plan = Planner::new()
        .plan(&compile(&snapshot(kernel.devices, vec![])))
        .expect("plan");
    let mut simulator = Simulator::new(MemoryMaps::new(), kernel.datapath.ticks_per_second());
    kernel.datapath.execute(&plan).expect("execute");
    simulator.maps.execute(&plan).expect("execute");
    let step = Step {
        hook: Hook::FromPod,
        ifindex: device,
        ingress_ifindex: device,
        clock: 0,
        random: 0,
    };
    for (v6, service, checksum_at) in [(false, "10.96.0.11", 40), (true, "fd96::11", 60)] {
        let translate = |source| {
            let content = Content::Udp {
                source,
                destination: 80,
                payload: 8,
                checksum: true,
            };
            let packet = Packet::new(own_address(true, v6), address(service), content).bytes();
            let (verdict, _, translated) = simulator.run(step, &packet);
            assert_eq!(verdict, Verdict::Pass);
            let bytes = [translated[checksum_at], translated[checksum_at + 1]];
            (packet, translated, u16::from_be_bytes(bytes))
        };
        // What the checksum lacks to zero is added to the port.
        let (port, carry) = {
            let (_, _, checksum) = translate(10_000);
            10_000_u16.overflowing_add(checksum)
        };
        let (packet, translated, checksum) = translate(port + u16::from(carry));
        assert_eq!(checksum, 0xffff);
        let run = TestRun::new(&packet, device, device);
        let output = kernel
            .datapath
            .test_run(Hook::FromPod, &run)
            .expect("test run");
        assert_eq!(output.packet, translated);
        assert_eq!(checksum_error(&output.packet), None);
    }
}

/// Insists that the traffic is rich enough to mean something: every way through the logic was taken.
fn assert_rich(counted: &BTreeMap<u32, Counter>) {
    let everywhere = [
        Reason::PolicyAllowed,
        Reason::NotIsolated,
        Reason::Established,
        Reason::Reply,
        Reason::Related,
        Reason::Hairpin,
        Reason::NotIp,
        Reason::Neighbor,
        Reason::PolicyDenied,
        Reason::Truncated,
        Reason::BadHeader,
        Reason::UnknownFragment,
    ];
    let from_pod = [
        Reason::Dhcp,
        Reason::SpoofedSource,
        Reason::NoEndpoint,
        Reason::NoServicePort,
        Reason::TupleClash,
        Reason::BackendGone,
        Reason::SourceRange,
        Reason::NoService,
    ];
    let expected = everywhere
        .into_iter()
        .flat_map(|reason| [(Hook::FromPod, reason), (Hook::ToPod, reason)])
        .chain(from_pod.map(|reason| (Hook::FromPod, reason)))
        .chain([(Hook::ToPod, Reason::Node)])
        .chain(network::expected());
    for (hook, reason) in expected {
        let packets = counted
            .get(&hook.counter(reason))
            .map_or(0, |counter| counter.packets);
        println!("{:>12} {:>20} {packets}", hook.direction(), reason.name());
        assert!(
            packets > 0,
            "no packet was {} at {}",
            reason.name(),
            hook.direction()
        );
    }
}
