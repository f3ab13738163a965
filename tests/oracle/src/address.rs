//! Addresses and CIDRs as lenient as the API server has been in storing them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::IPBlock;

/// Reads an address the way Go's `net.ParseIP` did until Go 1.17, which Kubernetes kept for stored
/// objects: leading zeros are decimal, and an IPv4-mapped IPv6 address is the IPv4 address.
///
/// `None` for anything else, a zone included.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    parse_ipv4(text)
        .map(IpAddr::V4)
        .or_else(|| Some(IpAddr::V6(parse_ipv6(text)?).to_canonical()))
}

/// Reads a CIDR with the same leniency and clears its host bits.
///
/// An IPv4-mapped prefix of at least 96 bits is the IPv4 network; a shorter one is wider than all
/// of IPv4 and stays IPv6. `None` for what is no CIDR.
pub fn parse_network(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    let length = decimal(length)?;
    let (address, length) = match parse_ipv4(address) {
        Some(address) => (IpAddr::V4(address), length),
        None => match (IpAddr::V6(parse_ipv6(address)?), length) {
            (address, 96..=128) if address.to_canonical().is_ipv4() => {
                (address.to_canonical(), length - 96)
            }
            (address, length) => (address, length),
        },
    };
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

/// Whether `address` is in `block`: inside `cidr` and outside each `except`.
///
/// `except` takes from its own block only. The families are apart: `0.0.0.0/0` holds no IPv6
/// address. A block with any malformed CIDR holds nothing, so that it allows nothing.
pub fn block_contains(block: &IPBlock, address: IpAddr) -> bool {
    let holes: Option<Vec<IpNetwork>> = block
        .except
        .iter()
        .flatten()
        .map(|cidr| parse_network(cidr))
        .collect();
    match (parse_network(&block.cidr), holes) {
        (Some(network), Some(holes)) => {
            network.contains(address) && !holes.iter().any(|hole| hole.contains(address))
        }
        _ => false,
    }
}

fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let octets: Vec<u8> = text.split('.').map(decimal).collect::<Option<_>>()?;
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?))
}

fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    let groups: Vec<String> = text
        .split(':')
        .map(canonical_group)
        .collect::<Option<_>>()?;
    groups.join(":").parse().ok()
}

/// One part of an IPv6 address in the form that the standard library's strict parser takes.
fn canonical_group(group: &str) -> Option<String> {
    if group.contains('.') {
        return Some(parse_ipv4(group)?.to_string());
    }
    let significant = group.trim_start_matches('0');
    Some(
        if significant.is_empty() && !group.is_empty() {
            "0"
        } else {
            significant
        }
        .to_owned(),
    )
}

fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_cidr_is_read_leniently_and_masked() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.161.0.0/8", "10.0.0.0/8"),
            ("010.001.002.003/024", "10.1.2.0/24"),
            ("192.168.08.09/32", "192.168.8.9/32"),
            ("255.255.255.255/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("2001:0DB8:00000::00001/128", "2001:db8::1/128"),
            ("fd00::ffff/127", "fd00::fffe/127"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:010.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(
                parse_network(text)
                    .map(|network| network.to_string())
                    .as_deref(),
                Some(canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_cidr_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10.0.0.256/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "0x0a.0.0.0/8",
            " 10.0.0.0/8",
            "::/129",
            "fe80::1%eth0/64",
            "1::2::3/64",
            "12345::/16",
            "10.0.0.0/255.0.0.0",
            ":::/0",
        ] {
            assert_eq!(parse_network(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_read_leniently() {
        for (text, canonical) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.000.001", Some("10.0.0.1")),
            ("FD00::0001", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::", Some("::")),
            ("10.0.0.1/32", None),
            ("node-1", None),
            ("", None),
        ] {
            assert_eq!(
                parse_address(text)
                    .map(|address| address.to_string())
                    .as_deref(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn a_block_with_a_malformed_part_holds_nothing() {
        let inside = "10.0.0.1".parse().expect("an address");
        let block = |cidr: &str, except: &[&str]| IPBlock {
            cidr: cidr.to_owned(),
            except: Some(except.iter().map(|&hole| hole.to_owned()).collect()),
        };
        assert!(block_contains(
            &block("10.0.0.0/8", &["10.1.0.0/16"]),
            inside
        ));
        assert!(!block_contains(
            &block("10.0.0.0/8", &["10.1.0.0/16", "oops"]),
            inside
        ));
        assert!(!block_contains(&block("10.0.0.0/99", &[]), inside));
    }
}
