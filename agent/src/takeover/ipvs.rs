//! What kube-proxy's mode `ipvs` leaves beside rules: a device with the addresses of Services, and virtual servers.

use std::collections::BTreeSet;
use std::fs;

use crate::netlink::{self, LinkTable};

/// The device (Kubernetes 1.36 `pkg/proxy/ipvs`).
const DEVICE: &str = "kube-ipvs0";
/// Where the kernel lists virtual servers of this network namespace, once the module is loaded.
const SERVERS: &str = "/proc/thread-self/net/ip_vs";
/// What lines of virtual servers begin with.
const KINDS: [&str; 4] = ["TCP ", "UDP ", "SCTP ", "FWM "];

/// What there is of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipvs {
    /// The device; with it the node takes packets to these addresses for its own.
    pub device: Option<IpvsDevice>,
    /// Virtual servers, of whomever: they do not say whose they are.
    pub servers: usize,
}

/// The device that keeps Services' addresses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpvsDevice {
    /// Name.
    pub name: &'static str,
    /// Its number.
    #[serde(skip)]
    ifindex: u32,
    /// How many addresses it has.
    pub addresses: usize,
}

impl Ipvs {
    /// Finds it.
    #[must_use]
    pub fn of(table: &LinkTable) -> Self {
        let listed = fs::read_to_string(SERVERS).unwrap_or_default();
        Self {
            device: device(table),
            servers: servers(&listed),
        }
    }

    /// Removes the device, with its addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_device(&self) -> Result<(), netlink::Error> {
        match &self.device {
            Some(device) => netlink::delete(device.ifindex, DEVICE).await,
            None => Ok(()),
        }
    }
}

fn device(table: &LinkTable) -> Option<IpvsDevice> {
    let mut links = table.links.iter();
    let (ifindex, _) = links.find(|(_, link)| link.name == DEVICE)?;
    let own = table.addresses.iter().filter(|(of, network)| {
        let link_local = match network.ip() {
            std::net::IpAddr::V4(_) => false,
            // The kernel's, for every device.
            std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        of == ifindex && !link_local
    });
    let addresses: BTreeSet<_> = own.map(|(_, network)| network.ip()).collect();
    Some(IpvsDevice {
        name: DEVICE,
        ifindex: *ifindex,
        addresses: addresses.len(),
    })
}

fn servers(listed: &str) -> usize {
    let is_server = |line: &&str| KINDS.iter().any(|kind| line.starts_with(kind));
    listed.lines().filter(is_server).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Link, LinkKind};

    #[test]
    fn virtual_servers_are_counted() {
        let listed = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A600001:01BB rr  \n  \
              -> AC1E0001:192B      Masq    1      0          0         \n\
            UDP  [fd10:0096:0000:0000:0000:0000:0000:000a]:0035 rr persistent 10800 FFFFFFFF\n\
            FWM  00000001 rr  \n";
        assert_eq!(servers(listed), 3);
        assert_eq!(servers(""), 0);
    }

    #[test]
    fn the_device_is_found_by_its_name() {
        let mut table = LinkTable::default();
        assert_eq!(device(&table), None);
        for (ifindex, name) in [(2, "eth0"), (3, "kube-ipvs0"), (4, "kube-ipvs01")] {
            let link = Link {
                name: name.to_owned(),
                kind: LinkKind::Dummy,
                ethernet: true,
                controller: None,
            };
            table.links.insert(ifindex, link);
            for address in ["10.96.0.1/32", "fd10:96::1/128", "fe80::1/64"] {
                let network = address.parse().expect("address");
                table.addresses.insert((ifindex, network));
            }
        }
        let found = device(&table).expect("the device");
        assert_eq!((found.ifindex, found.addresses), (3, 2));
    }
}
