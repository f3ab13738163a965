//! A Service with servers on both nodes, clients that it is for, and one that it is not.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::lab::{Lab, pod};
use weir_tests::netns::Place;
use weir_tests::probe::{EchoServer, Load, Outcome, Probe};

use crate::fixture::eventually;

/// The port of the servers.
const PORT: u16 = 8080;

/// A Service of one server on each node, and a policy that lets in whom it is for.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: stable}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports:
    - {name: tcp, protocol: TCP, port: 80, targetPort: 8080}
    - {name: udp, protocol: UDP, port: 80, targetPort: 8080}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [client-node1, client-node2]}]}}]
---
";

/// Servers and clients; the servers' threads end before the cluster does.
pub(crate) struct Traffic {
    _servers: Vec<EchoServer>,
    targets: [(&'static str, Probe); 4],
    clients: Vec<Place>,
    intruder: Place,
}

impl Traffic {
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let nodes = ["node1", "node2"];
        let mut objects = OBJECTS.to_owned();
        for node in nodes {
            let server = pod(&format!("server-{node}"), node, "");
            objects += &server.replace(&format!("app: server-{node}"), "app: server");
            objects += &pod(&format!("client-{node}"), node, "");
        }
        objects += &pod("intruder", "node1", "");
        let pods = [
            "server-node1",
            "server-node2",
            "client-node1",
            "client-node2",
            "intruder",
        ];
        lab.start_pods(&objects, &pods)?;
        let place = |name: &str| lab.place("default", name);
        let server =
            |node: &&str| EchoServer::start(&place(&format!("server-{node}"))?, node, PORT);
        let client = |node: &&str| place(&format!("client-{node}"));
        let addresses = lab.kubectl(&[
            "get",
            "service",
            "stable",
            "-o=jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}",
        ])?;
        let (v4, v6) = addresses.split_once(' ').context("two addresses")?;
        let (v4, v6) = (
            (v4.parse::<Ipv4Addr>()?, 80).into(),
            (v6.parse::<Ipv6Addr>()?, 80).into(),
        );
        let traffic = Self {
            _servers: nodes.iter().map(server).collect::<Result<_>>()?,
            targets: [
                ("TCP over IPv4", Probe::tcp(v4)),
                ("TCP over IPv6", Probe::tcp(v6)),
                ("UDP over IPv4", Probe::udp(v4)),
                ("UDP over IPv6", Probe::udp(v6)),
            ],
            clients: nodes.iter().map(client).collect::<Result<_>>()?,
            intruder: place("intruder")?,
        };
        traffic.settle()?;
        Ok(traffic)
    }

    /// Waits until both servers answer everywhere: what was just made takes a moment to arrive.
    fn settle(&self) -> Result<()> {
        for client in &self.clients {
            for (name, probe) in &self.targets {
                for server in ["node1", "node2"] {
                    eventually(|| {
                        let outcome = probe.run(client);
                        ensure!(outcome.identity() == Some(server), "{name}: {outcome:?}");
                        Ok(())
                    })?;
                }
            }
        }
        eventually(|| self.refused())
    }

    /// Whom the policy does not let in gets no answer.
    fn refused(&self) -> Result<()> {
        for (name, probe) in &self.targets {
            let outcome = probe
                .timeout(Duration::from_millis(300))
                .run(&self.intruder);
            ensure!(
                outcome == Outcome::Timeout,
                "the intruder by {name}: {outcome:?}"
            );
        }
        Ok(())
    }

    /// Nobody serves the Service any more.
    pub(crate) fn is_unserved(&self) -> Result<()> {
        for client in &self.clients {
            for (name, probe) in &self.targets {
                let outcome = probe.run(client);
                ensure!(
                    outcome.identity().is_none(),
                    "{name} is still served: {outcome:?}"
                );
            }
        }
        Ok(())
    }

    /// New connections and long-lived ones from clients on both nodes while something happens; none may be hurt.
    pub(crate) fn unharmed_by<T>(
        &self,
        what: &str,
        event: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let [first, rest @ ..] = self.clients.as_slice() else {
            anyhow::bail!("no clients");
        };
        let mut load = Load::start(first, &self.targets)?;
        for client in rest {
            load.add(client, &self.targets)?;
        }
        let done = event().with_context(|| what.to_owned())?;
        self.refused().with_context(|| what.to_owned())?;
        let report = load.finish()?;
        let made: u64 = report.connections.iter().map(|(_, it)| it.made()).sum();
        println!("{what}: {made} connections made meanwhile");
        report.ensure_unharmed().with_context(|| what.to_owned())?;
        Ok(done)
    }
}
