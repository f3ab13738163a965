//! The harness itself: topologies reach what they should before any agent runs, and leave nothing behind.

#[path = "topology/agents.rs"]
mod agents;
#[path = "topology/cleanup.rs"]
mod cleanup;
#[path = "topology/overlay.rs"]
mod overlay;
#[path = "topology/probes.rs"]
mod probes;
#[path = "topology/wiring.rs"]
mod wiring;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weir_tests::probe::{EchoServer, Probe, Protocol};
use weir_tests::topology::{Shape, Topology, TopologySpec};

const PORT: u16 = 8080;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected];

/// Two nodes, three pods, one machine outside.
fn spec(shape: Shape) -> TopologySpec {
    TopologySpec::new(shape, 2)
        .pod("a", "node1", &[("app", "a")])
        .pod("b", "node1", &[])
        .pod("c", "node2", &[])
        .host("outside")
}

fn servers(topology: &Topology) -> Result<Vec<EchoServer>> {
    topology
        .pods()
        .map(|pod| EchoServer::start(pod, pod.name(), PORT))
        .collect()
}

/// Every pod reaches every pod, itself too, in every way, and keeps its own address.
fn everyone_reaches_everyone(topology: &Topology) -> Result<()> {
    let _servers = servers(topology)?;
    for client in topology.pods() {
        for server in topology.pods() {
            for address in server.addresses().both() {
                for protocol in PROTOCOLS {
                    let outcome = Probe::tcp(SocketAddr::new(address, PORT))
                        .protocol(protocol)
                        .run(client);
                    let pair = format!(
                        "{} -> {} {address} {protocol:?}",
                        client.name(),
                        server.name()
                    );
                    ensure!(
                        outcome.identity() == Some(server.name()),
                        "{pair}: {outcome:?}"
                    );
                    let source = outcome.source().map(|source| source.ip());
                    ensure!(
                        source == Some(client.addresses().like(address)),
                        "{pair}: {outcome:?}"
                    );
                }
            }
        }
    }
    Ok(())
}
