//! Packets per second that a node forwards from a client outside to a backend on another node, through its network stack and past it.
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
use weir_tests::netns::{Namespace, Place as Inside};
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

const NAMES: [&str; LANES as usize + 1] = ["dropped by the driver", "network stack", "XDP"];
const PORTS: [u16; 2] = [61000, 65535];
const LOCAL_PORTS: [u16; 2] = [32768, 60999];

/// A client and the device by which it comes.
struct Lane {
    number: u8,
    client: Namespace,
    ifindex: u32,
    _programs: Vec<Constant>,
}

impl Lane {
    /// In the calling thread's network, which is the node's.
    fn new(number: u8) -> Result<Self> {
        let (device, near, far) = (format!("lane{number}"), node(number), client(number));
        let client = Namespace::new("client")?;
        let ip = |line: &str| {
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
        let ifindex = if_nametoindex(device.as_str())?;
        let absorber = || Ok::<_, anyhow::Error>(Constant::dropping(if_nametoindex("eth0")?)?);
        let mut programs = vec![place.run(absorber)?];
        if number == 0 {
            programs.push(Constant::dropping(ifindex)?);
        }
        Ok(Self {
            number,
            client,
            ifindex,
            _programs: programs,
        })
    }

    /// Sends for a while; gives packets per second that were forwarded, or sent where none are.
    fn send(&self, datapath: &KernelDatapath, time: Duration) -> Result<f64> {
        let before = forwarded(datapath)?;
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
        let after = forwarded(datapath)?;
        let [stack, xdp] = [after[0] - before[0], after[1] - before[1]];
        let (wanted, other) = match self.number {
            0 => (sent, stack + xdp),
            1 => (stack, xdp),
            _ => (xdp, stack),
        };
        ensure!(
            wanted > sent / 2 && other < sent / 100,
            "of {sent} packets the stack forwarded {stack}, XDP {xdp}, for `{}`",
            NAMES[usize::from(self.number)]
        );
        Ok(wanted as f64 / elapsed.as_secs_f64())
    }
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
    let lanes: Vec<Lane> = (0..=LANES).map(Lane::new).collect::<Result<_>>()?;
    let device = |lane: &Lane| Device {
        v4: IpAddr::from(node(lane.number)).into(),
        ports: PORTS,
        local_ports: LOCAL_PORTS,
        ..Device::default()
    };
    let served = || lanes.iter().filter(|lane| lane.number > 0);
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
    let ratios = series[2].0.iter().zip(&series[1].0);
    let ratio = Series(ratios.map(|(xdp, stack)| xdp / stack).collect());
    println!(
        "\nXDP / network stack, round by round: {:.2}",
        ratio.median()
    );
    Ok(())
}
