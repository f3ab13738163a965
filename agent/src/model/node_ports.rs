//! Where node ports are served.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Which addresses of the node have node ports (an item of `--nodeport-addresses`).
///
/// Link-local IPv6 addresses never have any, and loopback addresses only if a network that holds them is named: what listens
/// there expects no one but its own host. A network of length 0 names none in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodePorts {
    /// The first address of each family that the Node object shows.
    Primary,
    /// Every address of every device.
    All,
    /// Those in a network.
    Within(IpNetwork),
}

impl NodePorts {
    /// Whether an address of the node, primary or not, has node ports.
    #[must_use]
    pub fn include(&self, address: IpAddr, primary: bool) -> bool {
        if is_link_local_v6(address) {
            return false;
        }
        match self {
            Self::Primary => primary,
            Self::All => !address.is_loopback(),
            Self::Within(network) => {
                network.contains(address) && (network.prefix() > 0 || !address.is_loopback())
            }
        }
    }
}

/// Addresses that mean something only together with a device.
#[must_use]
pub const fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

impl fmt::Display for NodePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::All => f.write_str("all"),
            Self::Within(network) => network.fmt(f),
        }
    }
}

impl FromStr for NodePorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "all" => Ok(Self::All),
            // A bare address would be taken for a network of one.
            cidr if cidr.contains('/') => cidr.parse().map(Self::Within).map_err(|_| bad(cidr)),
            other => Err(bad(other)),
        }
    }
}

fn bad(text: &str) -> String {
    format!("`{text}` is none of primary, all and a CIDR such as 10.0.0.0/8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_included() {
        for (rule, included) in [
            ("primary", "10.0.0.1 fd00::1"),
            ("all", "10.0.0.1 10.0.0.2 169.254.20.10 fd00::1"),
            ("10.0.0.0/24", "10.0.0.1 10.0.0.2"),
            ("10.0.0.2/32", "10.0.0.2"),
            ("0.0.0.0/0", "10.0.0.1 10.0.0.2 169.254.20.10"),
            ("127.0.0.0/8", "127.0.0.1"),
            ("::/0", "fd00::1"),
            ("::1/128", "::1"),
            ("fe80::/10", ""),
        ] {
            let rule: NodePorts = rule.parse().unwrap();
            let addresses = "10.0.0.1 10.0.0.2 127.0.0.1 169.254.20.10 fd00::1 ::1 fe80::1";
            let found: Vec<_> = addresses
                .split(' ')
                .filter(|text| {
                    let primary = matches!(*text, "10.0.0.1" | "fd00::1");
                    rule.include(text.parse().unwrap(), primary)
                })
                .collect();
            assert_eq!(found.join(" "), included, "{rule}");
        }
    }

    #[test]
    fn texts() {
        for text in ["primary", "all", "10.0.0.0/8", "fd00::/64"] {
            assert_eq!(text.parse::<NodePorts>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.1", "10.0.0.0/33", "eth0", "Primary"] {
            let message = text.parse::<NodePorts>().unwrap_err();
            assert!(message.contains("primary, all and a CIDR"), "{message}");
        }
    }
}
