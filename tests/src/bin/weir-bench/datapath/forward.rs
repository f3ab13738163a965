//! Packets per second that a node forwards from a client outside to a backend on another node: with Weir through its network stack and
//! past it, and without Weir by rules like kube-proxy's.
//!
//! A client's datagrams come by a veth, go back by the same veth, and are dropped there by a driver's program. What sending alone takes is
//! measured with a veth whose node drops all.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use weir::datapath::{KernelDatapath, XdpState};
use weir_common::abi::{Device, Hook};
use weir_common::reason::Reason;
use weir_tests::kernel::Place;
use weir_tests::netns::{Namespace, Place as Inside, feed, run as output_of};
use weir_tests::topology::finish_frames;
use weir_tests::xdp::Constant;

use super::Series;
use super::world::{LANES, World, lane_backend, lane_service};

/// What `weir-bench forward` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which every way is measured
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// How long packets are sent one way in one round
    #[arg(long, default_value_t = 300)]
    milliseconds: u64,
}

/// The lane of a node of its own, which knows nothing of Weir.
const RULES: u8 = LANES + 1;
const NAMES: [&str; RULES as usize + 1] = [
    "dropped by the driver",
    "network stack",
    "XDP",
    "nftables, as kube-proxy writes them",
];
const PORTS: [u16; 2] = [61000, 65535];
const LOCAL_PORTS: [u16; 2] = [32768, 60999];

/// A client and the device by which it comes.
struct Lane {
    number: u8,
    client: Namespace,
    /// Where it is not the calling thread's network.
    node: Option<Namespace>,
    ifindex: u32,
    _programs: Vec<Constant>,
}

impl Lane {
    /// In the calling thread's network, which is that of the node with Weir; or with a node of its own.
    fn new(number: u8) -> Result<Self> {
        let (device, near, far) = (format!("lane{number}"), node(number), client(number));
        let client = Namespace::new("client")?;
        let own_node = (number == RULES).then(with_rules).transpose()?;
        let ip = |line: &str| {
            if let Some(node) = &own_node {
                return node.ip(&format!("{line}\n"));
            }
            let status = Command::new("ip").args(line.split_whitespace()).status()?;
            ensure!(status.success(), "ip {line}");
            Ok(())
        };
        let macs = ["02:00:00:00:0a:01", "02:00:00:00:0a:02"];
        ip(&format!(
            "link add {device} address {} type veth peer name eth0 address {} netns {}",
            macs[0],
            macs[1],
            client.name()
        ))?;
        ip(&format!("addr add {near}/24 dev {device}"))?;
        ip(&format!("link set {device} up"))?;
        ip(&format!("neigh add {far} dev {device} lladdr {}", macs[1]))?;
        client.ip(&format!(
            "addr add {far}/24 dev eth0\nlink set eth0 up\nneigh add {near} dev eth0 lladdr {}\n\
             route add default via {near}\n",
            macs[0]
        ))?;
        if number > 0 {
            ip(&format!("route add {} via {far}", lane_backend(number)))?;
        }
        let place: &Inside = client.as_ref();
        finish_frames(place, "eth0")?;
        let index = || if_nametoindex(device.as_str());
        let ifindex = match &own_node {
            None => index()?,
            Some(node) => AsRef::<Inside>::as_ref(node).run(index)?,
        };
        let absorber = || Ok::<_, anyhow::Error>(Constant::dropping(if_nametoindex("eth0")?)?);
        let mut programs = vec![place.run(absorber)?];
        if number == 0 {
            programs.push(Constant::dropping(ifindex)?);
        }
        Ok(Self {
            number,
            client,
            node: own_node,
            ifindex,
            _programs: programs,
        })
    }

    /// Packets that left by the device of a node of its own.
    fn left(&self) -> Result<u64> {
        let Some(node) = &self.node else {
            return Ok(0);
        };
        let device = format!("lane{}", self.number);
        let place: &Inside = node.as_ref();
        let shown = output_of(
            place
                .command("ip")
                .args(["-s", "-j", "link", "show", &device]),
        )?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let packets = shown[0]["stats64"]["tx"]["packets"].as_u64();
        packets.with_context(|| format!("no counter of packets: {shown}"))
    }

    /// Sends for a while; gives packets per second that were forwarded, or sent where none are.
    fn send(&self, datapath: &KernelDatapath, time: Duration) -> Result<f64> {
        let forwarded = || -> Result<[u64; RULES as usize]> {
            let [stack, xdp] = forwarded(datapath)?;
            Ok([stack, xdp, self.left()?])
        };
        let before = forwarded()?;
        let place: &Inside = self.client.as_ref();
        let (sent, elapsed) = place.run(|| -> Result<(u64, Duration)> {
            let socket = UdpSocket::bind((client(self.number), 4000))?;
            socket.connect((lane_service(self.number), 80))?;
            let (start, mut sent) = (Instant::now(), 0);
            while start.elapsed() < time {
                for _ in 0..64 {
                    socket.send(&[0; 22])?;
                }
                sent += 64;
            }
            Ok((sent, start.elapsed()))
        })?;
        let after = forwarded()?;
        let [stack, xdp, rules] = std::array::from_fn(|way| after[way] - before[way]);
        let all = [sent, stack, xdp, rules];
        let wanted = all[usize::from(self.number)];
        let others = stack + xdp + rules - if self.number == 0 { 0 } else { wanted };
        ensure!(
            wanted > sent / 2 && others < sent / 100,
            "of {sent} packets the stack forwarded {stack}, XDP {xdp}, rules {rules}, for `{}`",
            NAMES[usize::from(self.number)]
        );
        Ok(wanted as f64 / elapsed.as_secs_f64())
    }
}

/// A node with rules of the form that kube-proxy gives a load balancer's address in mode nftables.
fn with_rules() -> Result<Namespace> {
    let node = Namespace::new("node")?;
    node.sysctl("net/ipv4/ip_forward", 1)?;
    let (service, backend) = (lane_service(RULES), lane_backend(RULES));
    let rules = format!(
        "table ip services {{
            chain endpoint {{
                meta l4proto udp dnat to {backend}:8080
            }}
            chain service {{
                numgen random mod 1 vmap {{ 0 : goto endpoint }}
            }}
            chain external {{
                meta mark set mark or 0x4000
                goto service
            }}
            map addresses {{
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = {{ {service} . udp . 80 : goto external }}
            }}
            chain services {{
                ip daddr . meta l4proto . th dport vmap @addresses
            }}
            chain prerouting {{
                type nat hook prerouting priority dstnat
                jump services
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                meta mark and 0x4000 == 0 return
                meta mark set mark xor 0x4000
                masquerade fully-random
            }}
        }}"
    );
    let place: &Inside = node.as_ref();
    feed(place.command("nft").args(["-f", "-"]), &rules)?;
    Ok(node)
}

const fn node(lane: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, lane, 1)
}

const fn client(lane: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, lane, 7)
}

/// Packets that left by the stack, and by XDP.
fn forwarded(datapath: &KernelDatapath) -> Result<[u64; 2]> {
    let mut counts = [0; 2];
    for (hook, reason, counter) in datapath.counters()? {
        match (hook, reason) {
            (Hook::ToNet, Reason::Established | Reason::Translated) => counts[0] += counter.packets,
            (Hook::FromNet, Reason::FastPath) => counts[1] += counter.packets,
            _ => {}
        }
    }
    Ok(counts)
}

/// Measures all ways in turn, round after round, and prints them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let place = Place::new().context("measuring needs root and an agent with kernel programs")?;
    let datapath = &mut World::new(&place)?.datapath;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("have the node forward")?;
    let lanes: Vec<Lane> = (0..=RULES).map(Lane::new).collect::<Result<_>>()?;
    let device = |lane: &Lane| Device {
        v4: IpAddr::from(node(lane.number)).into(),
        ports: PORTS,
        local_ports: LOCAL_PORTS,
        ..Device::default()
    };
    let served = || {
        lanes
            .iter()
            .filter(|lane| (1..=LANES).contains(&lane.number))
    };
    datapath.set_nets(&served().map(|lane| (lane.ifindex, device(lane))).collect())?;
    for lane in served() {
        datapath.attach_net(lane.ifindex)?;
    }
    let state = datapath.attach_xdp(lanes[2].ifindex)?;
    ensure!(state == Some(XdpState::Attached), "XDP is {state:?}");
    for lane in &lanes {
        lane.client.wait_for_carrier(&["eth0"])?;
    }
    let mut series: Vec<Series> = lanes.iter().map(|_| Series(Vec::new())).collect();
    let time = Duration::from_millis(args.milliseconds);
    for _ in 0..args.rounds {
        for (lane, series) in lanes.iter().zip(&mut series) {
            series.0.push(lane.send(datapath, time)?);
        }
    }
    println!("| forwarded by | packets/s | min | max | ns more than sending |");
    println!("|---|---:|---:|---:|---:|");
    for (name, one) in NAMES.iter().zip(&series) {
        let sorted = one.sorted();
        let more = 1e9 / one.median() - 1e9 / series[0].median();
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {more:.0} |",
            one.median(),
            sorted[0],
            sorted[sorted.len() - 1],
        );
    }
    println!();
    for (one, other) in [(2, 1), (1, 3), (2, 3)] {
        let pairs = series[one].0.iter().zip(&series[other].0);
        let ratio = Series(pairs.map(|(one, other)| one / other).collect());
        let (one, other) = (NAMES[one], NAMES[other]);
        println!("{one} / {other}, round by round: {:.2}", ratio.median());
    }
    Ok(())
}
