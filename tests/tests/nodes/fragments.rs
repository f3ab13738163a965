//! Datagrams in pieces that the network has mixed up.
//!
//! Only the first piece has ports. What comes behind it finds its way in any order; what comes before it is lost.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use weir_tests::packets::{Content, Packet};
use weir_tests::probe::Mirror;

use crate::fixture::{
    ALL, Fixture, MIRROR, OVERLAYS, PATIENCE, cluster_ips, each, service, to_mirror, with_node_port,
};

const NODE_PORT: u16 = 30025;

/// Bytes in a datagram, and in each of its pieces but the last: three pieces.
const LENGTH: usize = 3000;
const PIECE: usize = 1200;

const SILENCE: Duration = Duration::from_millis(300);

const ETHERNET: usize = 14;

/// A client outside that cuts datagrams itself.
struct Cutter<'a> {
    fixture: &'a Fixture,
    socket: UdpSocket,
    raw: Socket,
    from: SocketAddr,
    to: SocketAddr,
    id: u32,
}

impl<'a> Cutter<'a> {
    fn new(fixture: &'a Fixture, to: SocketAddr) -> Result<Self> {
        let outside = fixture.cluster.topology().host("outside");
        let address = outside.addresses().like(to.ip());
        let (socket, raw) = fixture.place("outside").run(|| -> Result<_> {
            let socket = UdpSocket::bind((address, 0))?;
            socket.connect(to)?;
            let raw = Protocol::from(libc::IPPROTO_RAW);
            let raw = Socket::new(Domain::for_address(to), Type::RAW, Some(raw))?;
            if to.is_ipv6() {
                raw.set_header_included_v6(true)?;
            }
            Ok((socket, raw))
        })?;
        let from = socket.local_addr()?;
        Ok(Self {
            fixture,
            socket,
            raw,
            from,
            to,
            id: 1,
        })
    }

    /// Sends a datagram whose pieces go in that order; says whether it came back.
    fn ask(&mut self, order: [usize; 3], patience: Duration) -> Result<bool> {
        self.id += 1;
        let content = Content::Udp {
            source: self.from.port(),
            destination: self.to.port(),
            payload: LENGTH,
            checksum: true,
        };
        let packet = Packet::new(self.from.ip(), self.to.ip(), content).bytes();
        let pieces = cut(&packet[ETHERNET..], self.id);
        // Raw sockets of IPv6 take no port.
        let to = SocketAddr::new(self.to.ip(), 0);
        for piece in order {
            self.raw.send_to(&pieces[piece], &to.into())?;
        }
        self.socket.set_read_timeout(Some(patience))?;
        let mut answer = [0; 2 * LENGTH];
        let sent = &packet[packet.len() - LENGTH..];
        match self.socket.recv(&mut answer) {
            Ok(length) if answer[..length] == *sent => Ok(true),
            Ok(length) => anyhow::bail!("{length} other bytes came back from {}", self.to),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).with_context(|| format!("ask {}", self.to)),
        }
    }

    fn ensure_first_counts(&mut self, is_counted: bool) -> Result<()> {
        for (order, arrives) in [
            ([0, 1, 2], true),
            ([0, 2, 1], true),
            ([1, 0, 2], false),
            ([2, 1, 0], false),
            // Whoever asks again is answered.
            ([0, 1, 2], true),
        ] {
            let before = lost(self.fixture)?;
            let patience = if arrives { PATIENCE } else { SILENCE };
            let arrived = self.ask(order, patience)?;
            ensure!(arrived == arrives, "{order:?} to {}: {arrived}", self.to);
            let before_first = order.iter().take_while(|piece| **piece != 0).count();
            let expected = if is_counted { before_first } else { 0 } as u64;
            let lost = lost(self.fixture)? - before;
            ensure!(lost == expected, "{order:?} to {}: {lost} lost", self.to);
        }
        Ok(())
    }
}

/// The fragments of an IP packet without options.
fn cut(packet: &[u8], id: u32) -> [Vec<u8>; 3] {
    let v6 = packet[0] >> 4 == 6;
    let (header, transport) = packet.split_at(if v6 { 40 } else { 20 });
    let piece = |n: usize| {
        let bytes = &transport[n * PIECE..transport.len().min((n + 1) * PIECE)];
        let (offset, more) = ((n * PIECE / 8) as u16, n < 2);
        let mut piece = header.to_vec();
        if v6 {
            piece[4..6].copy_from_slice(&(bytes.len() as u16 + 8).to_be_bytes());
            let next = std::mem::replace(&mut piece[6], 44);
            piece.extend([next, 0]);
            piece.extend((offset << 3 | u16::from(more)).to_be_bytes());
            piece.extend(id.to_be_bytes());
        } else {
            // The kernel fills in length and checksum.
            piece[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            piece[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        }
        piece.extend(bytes);
        piece
    };
    [0, 1, 2].map(piece)
}

/// How many fragments node1 has dropped because it did not know whose they are.
fn lost(fixture: &Fixture) -> Result<u64> {
    let metrics = fixture.cluster.metrics("node1")?;
    let counts = metrics.lines().filter(|line| {
        line.starts_with("weir_packets_total") && line.contains("reason=\"unknown_fragment\"")
    });
    counts
        .map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?))
        .sum()
}

#[test]
fn pieces_find_their_way_behind_their_first() -> Result<()> {
    each(&[ALL[0], ALL[3], OVERLAYS[0]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        let _mirrors = ["near", "far"].map(|pod| Mirror::start(&fixture.place(pod), MIRROR));
        let node1 = fixture.cluster.topology().node("node1").addresses();
        let outside = fixture.cluster.topology().host("outside");
        outside.namespace().ip(&format!(
            "route add 10.96.0.0/16 via {}\nroute add fd10:96::/112 via {}\n",
            node1.v4, node1.v6
        ))?;
        let mirror = service("mirror", "pair", "both", 62);
        let mirror = to_mirror(&with_node_port(&mirror, NODE_PORT));
        fixture.apply("mirror.yaml", &mirror)?;
        let all = |ips: [IpAddr; 2], port| ips.map(|ip| SocketAddr::new(ip, port));
        // At an address of Services only, pieces that nobody knows are lost; at the node's own they may be anybody's.
        for to in all(cluster_ips(62), 80) {
            Cutter::new(&fixture, to)?.ensure_first_counts(true)?;
        }
        for to in all(node1.both(), NODE_PORT) {
            Cutter::new(&fixture, to)?.ensure_first_counts(false)?;
        }
        Ok(())
    })
}
