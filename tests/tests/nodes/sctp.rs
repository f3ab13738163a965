//! SCTP through Services, by packets: its checksum covers the ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use weir_tests::netns::Place;
use weir_tests::packets::set_sctp_checksum;

use crate::fixture::{FEW, Fixture, PATIENCE, PORT, cluster_ips, each};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// What the client wants to read in the header of answers.
const TAG: u32 = 0x5eed;
const CLIENT_PORT: u16 = 40_000;
const SERVICE_PORT: u16 = 2905;
const NODE_PORT: u16 = 32_905;
const PAUSE: Duration = Duration::from_millis(100);

/// An INIT or INIT ACK chunk in a packet of its own (RFC 9260 section 3.3.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    ports: [u16; 2],
    /// In the header.
    tag: u32,
    kind: u8,
    /// For the header of what the other sends.
    own_tag: u32,
}

impl Handshake {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.ports.map(u16::to_be_bytes).concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind, 0, 0, 20]);
        bytes.extend(self.own_tag.to_be_bytes());
        // Window, streams, first number.
        bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        set_sctp_checksum(&mut bytes);
        bytes
    }

    /// Fails if a byte is not what it was when the packet was made.
    fn read(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() == 32, "{} bytes", bytes.len());
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |at| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let read = Self {
            ports: [short(0), short(2)],
            tag: long(4),
            kind: bytes[12],
            own_tag: long(16),
        };
        ensure!(read.bytes() == bytes, "altered: {bytes:x?}");
        Ok(read)
    }
}

/// A socket that reads and writes whole SCTP packets.
fn raw(v4: bool, patience: Duration) -> Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_SCTP)))?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// The next packet, without its IP header.
fn receive(socket: &Socket, v4: bool) -> Result<(Handshake, IpAddr)> {
    let mut buffer = [0; 2048];
    let (length, _, from) = recvfrom(socket, &mut buffer[..], RecvFlags::empty())?;
    let from = SocketAddr::try_from(from.context("an address")?)?.ip();
    // IPv4 gives the header, too.
    let header = if v4 {
        usize::from(buffer[0] & 0xf) * 4
    } else {
        0
    };
    Ok((Handshake::read(&buffer[header..length])?, from))
}

/// Answers what opens an association with one's own tag.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    pub(crate) fn start(place: &Place, own_tag: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [true, false].map(|v4| {
            let stop = Arc::clone(&stop);
            let socket = place.run(|| raw(v4, PAUSE))?;
            place.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((asked, from)) = receive(&socket, v4) else {
                        continue;
                    };
                    // This place may have asked somebody itself.
                    if asked.kind != INIT {
                        continue;
                    }
                    let answer = Handshake {
                        ports: [asked.ports[1], asked.ports[0]],
                        tag: asked.own_tag,
                        kind: INIT_ACK,
                        own_tag,
                    };
                    socket.send_to(&answer.bytes(), &SocketAddr::new(from, 0).into())?;
                }
                Ok(())
            })
        });
        let threads = threads.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { stop, threads })
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a server's thread")?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The test has failed for another reason.
            let _ = thread.join();
        }
    }
}

/// Opens an association with a Service; only what comes from there counts.
pub(crate) fn open(place: &Place, to: IpAddr, port: u16, patience: Duration) -> Result<Handshake> {
    let socket = place.run(|| raw(to.is_ipv4(), patience))?;
    place.run(|| socket.connect(&SocketAddr::new(to, 0).into()))?;
    let asked = Handshake {
        ports: [CLIENT_PORT, port],
        tag: 0,
        kind: INIT,
        own_tag: TAG,
    };
    socket.send(&asked.bytes())?;
    let (answer, _) = receive(&socket, to.is_ipv4()).with_context(|| format!("answer of {to}"))?;
    Ok(answer)
}

#[test]
fn associations_are_opened_through_services() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let pods = [("near", 50), ("far", 51)];
        let node_port = |end: u8| NODE_PORT + u16::from(end);
        let services = pods.map(|(pod, end)| {
            let ([v4, v6], node_port) = (cluster_ips(end), node_port(end));
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {pod}-sctp, namespace: default}}\n\
                 spec:\n  type: NodePort\n  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]\n  ipFamilyPolicy: RequireDualStack\n  selector: {{app: {pod}}}\n\
                 \x20 ports:\n  - {{name: sctp, port: {SERVICE_PORT}, targetPort: {PORT}, nodePort: {node_port}, protocol: SCTP}}\n"
            )
        });
        fixture.apply("sctp.yaml", &services.concat())?;
        let servers = pods.map(|(pod, end)| Server::start(&fixture.place(pod), u32::from(end)));
        let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
        for (_, end) in pods {
            let node = fixture.cluster.topology().node("node1").addresses();
            let inside = cluster_ips(end).map(|to| ("client", to, SERVICE_PORT));
            let outside = node.both().map(|to| ("outside", to, node_port(end)));
            for (client, to, port) in inside.into_iter().chain(outside) {
                let expected = Handshake {
                    ports: [port, CLIENT_PORT],
                    tag: TAG,
                    kind: INIT_ACK,
                    own_tag: u32::from(end),
                };
                let answer = open(&fixture.place(client), to, port, PATIENCE)?;
                ensure!(answer == expected, "{client} to {to}: {answer:?}");
            }
        }
        servers.into_iter().try_for_each(Server::finish)?;
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}
