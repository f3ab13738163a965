//! The machines and programs of the shop.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_tests::cluster::{Cluster, documents};
use weir_tests::probe::{DnsServer, EchoServer, Records};
use weir_tests::topology::{Pod, Shape, TopologySpec};

use crate::screen::Cell;

/// What exists from the start. What pods lack in these files (a status, an uid), their node adds.
const FILES: [(&str, &str); 3] = [
    ("shop.yaml", include_str!("../../../data/demo/shop.yaml")),
    ("dns.yaml", include_str!("../../../data/demo/dns.yaml")),
    (
        "others.yaml",
        include_str!("../../../data/demo/others.yaml"),
    ),
];

/// The name that clients look up.
pub(crate) const NAME: &str = "backend.shop.svc.cluster.local";

/// A cluster with servers in its pods.
pub(crate) struct Shop {
    // Servers' threads are in the cluster's namespaces, so they end first.
    _servers: Vec<EchoServer>,
    _dns: DnsServer,
    pub(crate) cluster: Cluster,
}

impl Shop {
    /// Builds it all, without agents.
    pub(crate) fn open(shape: Shape, attach: &str) -> Result<Self> {
        let mut pods = Vec::new();
        let mut files = Vec::new();
        for (file, text) in FILES {
            let (of_pods, rest): (Vec<_>, Vec<_>) = text
                .split("\n---\n")
                .partition(|part| part.starts_with("apiVersion: v1\nkind: Pod\n"));
            for part in of_pods {
                pods.extend(
                    documents(part)?
                        .into_iter()
                        .map(serde_json::from_value)
                        .collect::<Result<Vec<_>, _>>()?,
                );
            }
            files.push((file, rest.join("\n---\n")));
        }
        let spec = TopologySpec::new(shape, 2).drop_invalid();
        let mut cluster = Cluster::with_pods(&spec, attach, pods)?;
        for (file, text) in files {
            cluster.apply(file, &text)?;
        }
        let servers = cluster
            .topology()
            .pods()
            .filter(|pod| pod.name() != "coredns");
        let servers = servers
            .map(|pod| {
                let port = if pod.name() == "database" { 5432 } else { 8080 };
                EchoServer::start(pod, pod.name(), port)
            })
            .collect::<Result<_>>()?;
        let records = Records::from([(
            NAME.to_owned(),
            service("backend", 80)?.iter().map(SocketAddr::ip).collect(),
        )]);
        let dns = DnsServer::start(cluster.topology().pod("coredns"), 53, records)?;
        Ok(Self {
            _servers: servers,
            _dns: dns,
            cluster,
        })
    }

    /// A pod of that name.
    pub(crate) fn pod(&self, name: &str) -> &Pod {
        self.cluster.topology().pod(name)
    }

    /// A table of all pods.
    pub(crate) fn pods(&self) -> Vec<Vec<Cell>> {
        let row = |pod: &Pod| {
            let addresses = pod.addresses();
            vec![
                pod.name().into(),
                pod.spec().namespace.as_str().into(),
                pod.node().into(),
                addresses.v4.to_string().into(),
                addresses.v6.to_string().into(),
            ]
        };
        self.cluster.topology().pods().map(row).collect()
    }
}

/// The addresses of a Service of the files, IPv4 first, with that port.
pub(crate) fn service(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let all = FILES
        .iter()
        .map(|(_, text)| documents(text))
        .collect::<Result<Vec<_>>>()?;
    let found = all
        .iter()
        .flatten()
        .find(|object| object["kind"] == "Service" && object["metadata"]["name"] == name)
        .with_context(|| format!("the shop's files have no Service {name}"))?;
    addresses(found, port)
}

/// The addresses of a Service object with that port.
pub(crate) fn addresses(service: &Value, port: u16) -> Result<Vec<SocketAddr>> {
    let ips = service["spec"]["clusterIPs"]
        .as_array()
        .context("a Service without clusterIPs")?;
    let ips = ips
        .iter()
        .filter_map(Value::as_str)
        .map(str::parse::<IpAddr>);
    Ok(ips
        .map(|ip| Ok(SocketAddr::new(ip?, port)))
        .collect::<Result<_, std::net::AddrParseError>>()?)
}
