//! A pod that others send through, as a machine's host or a router does: with addresses that are not its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Result, ensure};

use crate::fixture::{ALL, DENY, Fixture, PATIENCE, each};

/// Addresses behind pod `client` that no API object knows.
const BEHIND: [&str; 2] = ["10.77.0.1", "fd77::1"];

/// Gives the addresses to pod `client`, and node1 the routes.
fn connect(fixture: &Fixture) -> Result<()> {
    let topology = fixture.cluster.topology();
    let client = topology.pod("client");
    for (address, gateway) in BEHIND.iter().zip(client.addresses().both()) {
        let (bits, family) = if gateway.is_ipv4() {
            (32, "-4")
        } else {
            (128, "-6")
        };
        let add = ["addr", "add", &format!("{address}/{bits}"), "dev", "lo"];
        client.namespace().ip_output(&add)?;
        let gateway = gateway.to_string();
        let route = [
            family,
            "route",
            "add",
            address,
            "via",
            &gateway,
            "dev",
            client.veth(),
        ];
        topology.node("node1").namespace().ip_output(&route)?;
    }
    Ok(())
}

/// Whether `near` answers a datagram from an address behind `client`.
fn is_answered(fixture: &Fixture, from: IpAddr, to: SocketAddr, silent: bool) -> Result<bool> {
    fixture.place("client").run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        let patience = if silent { PATIENCE / 10 } else { PATIENCE };
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(br#"{"number":0}"#, to)?;
        Ok(socket.recv(&mut [0; 512]).is_ok())
    })
}

fn ensure_answers(fixture: &Fixture, answers: bool) -> Result<()> {
    for (from, to) in BEHIND.iter().zip(fixture.server("near")) {
        let answered = is_answered(fixture, from.parse()?, to, !answers)?;
        ensure!(answered == answers, "{from} to {to}: answered {answered}");
    }
    Ok(())
}

#[test]
fn a_pod_sends_with_its_own_addresses_unless_it_may_answer_for_others() -> Result<()> {
    each(&[ALL[0], ALL[1]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        connect(&fixture)?;
        ensure_answers(&fixture, false)?;
        fixture
            .cluster
            .replace_agent("node1", &["--foreign-sources=judge"])?;
        ensure_answers(&fixture, true)?;
        // What the pod may not do, those behind it may not either.
        let egress = DENY
            .replace("tier: back", "app: client")
            .replace("[Ingress]", "[Egress]");
        fixture.apply("egress.yaml", &egress)?;
        ensure_answers(&fixture, false)?;
        fixture.cluster.delete("egress.yaml")?;
        fixture.apply("deny.yaml", DENY)?;
        ensure_answers(&fixture, false)
    })
}
