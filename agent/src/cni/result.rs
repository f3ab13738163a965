//! What the plugins before this one made. Versions 0.3 to 1.1 agree in these fields.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::error::{Code, Failure};

/// A result, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Previous {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    /// Path of a network namespace; empty for an interface of the node.
    #[serde(default)]
    sandbox: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Ip {
    address: String,
    /// Index of the interface that has it.
    interface: Option<usize>,
}

impl Previous {
    /// The addresses of the interface with this name in the sandbox. One of which the result does not say whose it is is taken to
    /// be the container's: the node's own are not part of results.
    ///
    /// # Errors
    /// When one cannot be read: it would be left open.
    pub fn addresses(&self, interface: &str) -> Result<Vec<IpAddr>, Failure> {
        let is_others = |ip: &&Ip| {
            let of = ip.interface.and_then(|index| self.interfaces.get(index));
            of.is_some_and(|of| !of.sandbox.is_empty() && of.name != interface)
        };
        let ips = self.ips.iter().filter(|ip| !is_others(ip));
        let addresses: Result<BTreeSet<IpAddr>, Failure> = ips.map(Ip::parse).collect();
        Ok(addresses?.into_iter().collect())
    }

    /// Names of the interfaces on the node, in their order: the container's veth is among them, and perhaps the bridge it is in.
    #[must_use]
    pub fn host_interfaces(&self) -> Vec<String> {
        let interfaces = self.interfaces.iter();
        interfaces
            .filter(|interface| interface.sandbox.is_empty() && !interface.name.is_empty())
            .map(|interface| interface.name.clone())
            .collect()
    }
}

impl Ip {
    fn parse(&self) -> Result<IpAddr, Failure> {
        let network: Result<IpNetwork, _> = self.address.parse();
        match network {
            Ok(network) => Ok(network.ip().to_canonical()),
            Err(error) => Err(Failure::new(
                Code::Decode,
                "prevResult has an address that cannot be read",
                format!("{:?}: {error}", self.address),
            )),
        }
    }
}
