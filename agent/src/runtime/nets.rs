//! What programs on uplinks and tunnel devices have to know of these.

use std::collections::BTreeMap;
use std::fs;

use weir_common::abi::{Address, Device};

use crate::model::NetDevice;

/// Ports from which the node speaks for clients whose own port it cannot keep: above those that Linux gives to sockets by default,
/// and no node ports by default (30000 to 32767).
const PORTS: [u16; 2] = [61000, 65535];
/// Where the kernel tells the ports that it gives to sockets; each network namespace has its own.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel's default, for where it does not tell.
const USUAL_LOCAL_PORTS: [u16; 2] = [32768, 60999];

/// Devices as programs read of them.
pub(super) fn rows(nets: &BTreeMap<u32, NetDevice>) -> BTreeMap<u32, Device> {
    let text = fs::read_to_string(LOCAL_PORTS).unwrap_or_default();
    let local_ports = range(&text).unwrap_or(USUAL_LOCAL_PORTS);
    let row = |net: &NetDevice| Device {
        v4: net.v4.map_or(Address::UNSPECIFIED, Address::from),
        v6: net
            .v6
            .map_or(Address::UNSPECIFIED, |v6| Address::from_bytes(v6.octets())),
        ports: PORTS,
        local_ports,
    };
    nets.iter()
        .map(|(ifindex, net)| (*ifindex, row(net)))
        .collect()
}

/// Two numbers.
fn range(text: &str) -> Option<[u16; 2]> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some([first, last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_range_is_read() {
        assert_eq!(range("32768\t60999\n"), Some([32768, 60999]));
        for text in ["", "1", "1 x", "1 70000"] {
            assert_eq!(range(text), None, "{text}");
        }
        assert!(range(&fs::read_to_string(LOCAL_PORTS).expect("range")).is_some());
    }

    #[test]
    fn a_family_that_a_device_lacks_is_unspecified() {
        let net = NetDevice {
            name: "eth0".to_owned(),
            v4: Some([192, 0, 2, 1].into()),
            v6: None,
        };
        let rows = rows(&[(2, net)].into());
        assert_eq!(
            rows[&2].address(false),
            Address::from(std::net::Ipv4Addr::new(192, 0, 2, 1))
        );
        assert!(rows[&2].address(true).is_unspecified());
    }
}
