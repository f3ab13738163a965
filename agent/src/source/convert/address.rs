//! Addresses as the API has stored them over the years: decimal leading zeros, host bits and IPv4-mapped forms were legal
//! before Kubernetes 1.36 (StrictIPCIDRValidation) and stay in old objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::source::Problem;

/// Reads an address; leading zeros are decimal, never octal.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, Problem> {
    sloppy_ip(text)
        .map(|address| address.to_canonical())
        .ok_or_else(|| Problem::Address(text.to_owned()))
}

/// Reads a CIDR and masks its host bits away.
pub(super) fn parse_cidr(text: &str) -> Result<IpNetwork, Problem> {
    sloppy_cidr(text).ok_or_else(|| Problem::Cidr(text.to_owned()))
}

fn sloppy_cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    let address = sloppy_ip(address)?;
    let prefix = decimal(prefix)?;
    // A mapped block that lies within ::ffff:0:0/96 is the IPv4 block.
    let (address, prefix) = match (address.to_canonical(), prefix) {
        (canonical @ IpAddr::V4(_), 96..) if address.is_ipv6() => (canonical, prefix - 96),
        _ => (address, prefix),
    };
    let network = IpNetwork::new(address, u8::try_from(prefix).ok()?).ok()?;
    IpNetwork::new(network.network(), network.prefix()).ok()
}

fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if let Some(address) = sloppy_v4(text) {
        return Some(address.into());
    }
    // The last 32 bits of an IPv6 address may be written as IPv4.
    if let Some((head, tail)) = text.rsplit_once(':')
        && let Some(tail) = sloppy_v4(tail)
    {
        return format!("{head}:{tail}")
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6);
    }
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, wanted) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("172.30.00.41", Some("172.30.0.41")),
            ("010.008.0.1", Some("10.8.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:010.0.0.01", Some("10.0.0.1")),
            ("FD00:0:0::1", Some("fd00::1")),
            ("10.0.0.256", None),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("+1.0.0.1", None),
            ("10..0.1", None),
            ("fe80::1%eth0", None),
            (" 10.0.0.1", None),
            ("", None),
            ("web", None),
        ] {
            let read = parse_ip(text).ok().map(|address| address.to_string());
            assert_eq!(read.as_deref(), wanted, "{text:?}");
        }
    }

    #[test]
    fn cidrs() {
        for (text, wanted) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.000.0.0/08", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/-1", None),
            ("/8", None),
        ] {
            let read = parse_cidr(text).ok().map(|cidr| cidr.to_string());
            assert_eq!(read.as_deref(), wanted, "{text:?}");
        }
    }
}
