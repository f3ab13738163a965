//! What a rule's expressions mean. Each loads something into a register, changes a register, compares one, or decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::super::attributes::{Attributes, attributes, find, number, text};
use super::{Addresses, Matches, Verdict, attribute as at};

/// Attributes of expressions (linux/netfilter/nf_tables.h). Loads have the register first or second.
mod expression {
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
    pub(super) const VERDICT_CHAIN: u16 = 2;
    pub(super) const PAYLOAD_REGISTER: u16 = 1;
    pub(super) const PAYLOAD_BASE: u16 = 2;
    pub(super) const PAYLOAD_OFFSET: u16 = 3;
    pub(super) const PAYLOAD_LENGTH: u16 = 4;
    pub(super) const META_REGISTER: u16 = 1;
    pub(super) const META_KEY: u16 = 2;
    pub(super) const CT_REGISTER: u16 = 1;
    pub(super) const CT_KEY: u16 = 2;
    pub(super) const BITWISE_FROM: u16 = 1;
    pub(super) const BITWISE_TO: u16 = 2;
    pub(super) const BITWISE_MASK: u16 = 4;
    pub(super) const COMPARE_REGISTER: u16 = 1;
    pub(super) const COMPARE_HOW: u16 = 2;
    pub(super) const COMPARE_DATA: u16 = 3;
    pub(super) const MATCH_NAME: u16 = 1;
    pub(super) const MATCH_REVISION: u16 = 2;
    pub(super) const MATCH_INFO: u16 = 3;
}

/// Codes of verdicts.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
/// Network header, as the base of a payload.
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// Keys of `meta`.
const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const PROTOCOL: u32 = 15;
/// Key of `ct`.
const STATE: u32 = 0;
/// Type of user data that is a comment.
const COMMENT: u8 = 0;

/// What a register holds.
#[derive(Clone, Debug)]
struct Loaded {
    what: What,
    mask: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Offset and length in the network header.
    Header(u32, u32),
    Meta(u32),
    State,
    Other,
}

/// The comment that `-m comment` keeps: text and zeros.
pub(super) fn iptables_comment(expressions: &[u8]) -> Option<String> {
    let mut elements = attributes(expressions).filter(|(kind, _)| *kind == at::ELEMENT);
    let info = elements.find_map(|(_, element)| {
        let data = find(element, at::EXPRESSION_DATA)?;
        let name = text(data, expression::MATCH_NAME)?;
        let info = find(data, expression::MATCH_INFO)?;
        (name == "comment").then_some(info)
    })?;
    let end = info.iter().position(|byte| *byte == 0);
    let comment = &info[..end.unwrap_or(info.len())];
    Some(String::from_utf8_lossy(comment).into_owned())
}

/// What a rule asks, and what it says.
pub(super) fn meaning(expressions: &[u8]) -> (Matches, Option<Verdict>) {
    let mut matches = Matches::default();
    let mut verdict = None;
    let mut registers: BTreeMap<u32, Loaded> = BTreeMap::new();
    let load = |registers: &mut BTreeMap<u32, Loaded>, register, what| {
        registers.insert(register, Loaded { what, mask: None });
    };
    for (_, element) in attributes(expressions).filter(|(kind, _)| *kind == at::ELEMENT) {
        let name = text(element, at::EXPRESSION_NAME).unwrap_or_default();
        let data = find(element, at::EXPRESSION_DATA).unwrap_or_default();
        let value = |kind| number(data, kind).unwrap_or_default();
        match name.as_str() {
            "payload" => {
                use expression::{PAYLOAD_BASE, PAYLOAD_LENGTH, PAYLOAD_OFFSET, PAYLOAD_REGISTER};
                let what = if value(PAYLOAD_BASE) == NETWORK_HEADER {
                    What::Header(value(PAYLOAD_OFFSET), value(PAYLOAD_LENGTH))
                } else {
                    What::Other
                };
                load(&mut registers, value(PAYLOAD_REGISTER), what);
            }
            "meta" => {
                let what = What::Meta(value(expression::META_KEY));
                load(&mut registers, value(expression::META_REGISTER), what);
            }
            "ct" => {
                let what = if value(expression::CT_KEY) == STATE {
                    What::State
                } else {
                    What::Other
                };
                load(&mut registers, value(expression::CT_REGISTER), what);
            }
            "bitwise" => {
                let mask = find(data, expression::BITWISE_MASK);
                let mask = mask.and_then(|mask| find(mask, expression::DATA_VALUE));
                let from = registers.get(&value(expression::BITWISE_FROM)).cloned();
                if let (Some(from), Some(mask)) = (from, mask) {
                    let mask = Some(mask.to_vec());
                    let to = value(expression::BITWISE_TO);
                    registers.insert(to, Loaded { mask, ..from });
                }
            }
            "cmp" => {
                let loaded = registers.get(&value(expression::COMPARE_REGISTER));
                let compared = find(data, expression::COMPARE_DATA);
                let compared = compared.and_then(|data| find(data, expression::DATA_VALUE));
                let how = value(expression::COMPARE_HOW);
                let understood = loaded
                    .zip(compared)
                    .and_then(|(loaded, compared)| compare(&mut matches, loaded, how, compared));
                matches.other |= understood.is_none();
            }
            "immediate" => verdict = immediate(data).or(verdict),
            "reject" => verdict = Some(Verdict::Drop),
            "counter" | "log" => {}
            // What iptables has modules for.
            "match" => match text(data, expression::MATCH_NAME).as_deref() {
                Some("comment") => {}
                Some("conntrack") => {
                    let states = iptables_states(data);
                    matches.other |= states.is_none();
                    matches.states = states.or(matches.states);
                }
                _ => matches.other = true,
            },
            _ => matches.other = true,
        }
    }
    (matches, verdict)
}

/// What `-m conntrack` asks if that is states only: `struct xt_conntrack_mtinfo3`, whose states have the bits of `ct state`.
fn iptables_states(data: &[u8]) -> Option<u32> {
    /// Since when the start of the structure is as it is.
    const REVISION: u32 = 2;
    /// After eight addresses, two times and five ports.
    const FLAGS: usize = 146;
    const STATES_ONLY: u16 = 1;
    let info = find(data, expression::MATCH_INFO)?;
    let half = |index: usize| {
        let bytes = info.get(FLAGS + 2 * index..)?;
        Some(u16::from_ne_bytes(*bytes.first_chunk()?))
    };
    let [asked, inverted, states] = [half(0)?, half(1)?, half(2)?];
    let revision = number(data, expression::MATCH_REVISION)?;
    (revision >= REVISION && (asked, inverted) == (STATES_ONLY, 0)).then(|| states.into())
}

fn immediate(data: &[u8]) -> Option<Verdict> {
    let verdict = find(data, expression::IMMEDIATE_DATA)
        .and_then(|data| find(data, expression::DATA_VERDICT))?;
    let chain = || text(verdict, expression::VERDICT_CHAIN).unwrap_or_default();
    match number(verdict, expression::VERDICT_CODE)?.cast_signed() {
        ACCEPT => Some(Verdict::Accept),
        DROP => Some(Verdict::Drop),
        RETURN => Some(Verdict::Return),
        JUMP => Some(Verdict::Jump(chain())),
        GOTO => Some(Verdict::Goto(chain())),
        _ => None,
    }
}

/// Notes what a comparison asks; `None` for what is not understood.
fn compare(matches: &mut Matches, loaded: &Loaded, how: u32, data: &[u8]) -> Option<()> {
    match loaded.what {
        What::State if how == NOT_EQUAL => {
            let mask = loaded.mask.as_ref()?.first_chunk()?;
            matches.states = Some(u32::from_ne_bytes(*mask));
        }
        What::Header(offset, length) if how == EQUAL => {
            let (from, network) = network(offset, length, loaded.mask.as_deref(), data)?;
            let asked = if from {
                &mut matches.from
            } else {
                &mut matches.to
            };
            asked.push(Addresses::Network(network));
        }
        What::Meta(INPUT_NAME) if how == EQUAL => matches.from.push(device(data)),
        What::Meta(OUTPUT_NAME) if how == EQUAL => matches.to.push(device(data)),
        What::Meta(PROTOCOL) if how == EQUAL => {
            matches.v4 = Some(i32::from(*data.first()?) == libc::NFPROTO_IPV4);
        }
        _ => return None,
    }
    Some(())
}

/// The addresses that some bytes of the network header are compared with, and whether they are the source.
fn network(
    offset: u32,
    length: u32,
    mask: Option<&[u8]>,
    data: &[u8],
) -> Option<(bool, IpNetwork)> {
    let bits = match mask {
        None => u8::try_from(length * 8).ok()?,
        Some(mask) => {
            u8::try_from(mask.iter().map(|byte| byte.leading_ones()).sum::<u32>()).ok()?
        }
    };
    // Fields of `struct iphdr` and `struct ipv6hdr`; where a prefix ends at a byte, only these bytes are looked at.
    let (from, v4) = match (offset, length) {
        (12, ..=4) => (true, true),
        (16, ..=4) => (false, true),
        (8, ..=16) => (true, false),
        (24, ..=16) => (false, false),
        _ => return None,
    };
    let mut address = [0; 16];
    address.get_mut(..data.len())?.copy_from_slice(data);
    let address = if v4 {
        let [a, b, c, d, ..] = address;
        IpAddr::V4(Ipv4Addr::from([a, b, c, d]))
    } else {
        IpAddr::V6(Ipv6Addr::from(address))
    };
    Some((from, IpNetwork::new(address, bits).ok()?))
}

/// A device's name; without a zero at its end it is what names begin with.
fn device(data: &[u8]) -> Addresses {
    let end = data.iter().position(|byte| *byte == 0);
    Addresses::Device {
        name: String::from_utf8_lossy(&data[..end.unwrap_or(data.len())]).into_owned(),
        prefix: end.is_none(),
    }
}

/// The comment in a rule's user data: pairs of type and length, each before its content.
pub(super) fn comment(data: &[u8]) -> Option<String> {
    let mut rest = data;
    while let [kind, length, after @ ..] = rest {
        let value = after.get(..usize::from(*length))?;
        if *kind == COMMENT {
            let end = value.iter().position(|byte| *byte == 0);
            let value = &value[..end.unwrap_or(value.len())];
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = &after[usize::from(*length)..];
    }
    None
}

/// User data that is a comment of less than 255 bytes.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![COMMENT, length];
    data.extend(comment.bytes().take(usize::from(length) - 1));
    data.push(0);
    data
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new()
        .text(at::EXPRESSION_NAME, name)
        .nested(at::EXPRESSION_DATA, data)
}

/// Register of expressions that need one.
const REGISTER: u32 = 1;

fn equals(value: &[u8]) -> Attributes {
    let data = Attributes::new()
        .number(expression::COMPARE_REGISTER, REGISTER)
        .number(expression::COMPARE_HOW, EQUAL)
        .nested(
            expression::COMPARE_DATA,
            &Attributes::new().bytes(expression::DATA_VALUE, value),
        );
    expression("cmp", &data)
}

fn accept() -> Attributes {
    let verdict = Attributes::new().number(expression::VERDICT_CODE, ACCEPT as u32);
    let data = Attributes::new().nested(expression::DATA_VERDICT, &verdict);
    const VERDICT_REGISTER: u32 = 0;
    let immediate = Attributes::new()
        .number(1, VERDICT_REGISTER)
        .nested(expression::IMMEDIATE_DATA, &data);
    expression("immediate", &immediate)
}

fn list(expressions: &[Attributes]) -> Attributes {
    let list = Attributes::new();
    expressions
        .iter()
        .fold(list, |list, one| list.nested(at::ELEMENT, one))
}

/// `ct direction reply accept`: at a chain of type `nat`, where only the first packet of a connection comes, no packet fits.
pub(super) fn of_replies() -> Attributes {
    const DIRECTION: u32 = 1;
    const REPLY: u8 = 1;
    let ct = Attributes::new()
        .number(expression::CT_REGISTER, REGISTER)
        .number(expression::CT_KEY, DIRECTION);
    list(&[expression("ct", &ct), equals(&[REPLY]), accept()])
}

/// Accepts what comes in by a device of that name, or goes out by one.
pub(super) fn accepted(name: &str, prefix: bool, from: bool) -> Attributes {
    let key = if from { INPUT_NAME } else { OUTPUT_NAME };
    let meta = Attributes::new()
        .number(expression::META_REGISTER, REGISTER)
        .number(expression::META_KEY, key);
    let mut bytes = name.as_bytes().to_vec();
    if !prefix {
        bytes.resize(libc::IFNAMSIZ, 0);
    }
    list(&[expression("meta", &meta), equals(&bytes), accept()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (name, prefix) in [("cni0", false), ("veth", true)] {
            for from in [true, false] {
                let (matches, verdict) = meaning(accepted(name, prefix, from).as_bytes());
                let name = name.to_owned();
                let asked = vec![Addresses::Device { name, prefix }];
                let none = vec![];
                let (from, to) = if from { (asked, none) } else { (none, asked) };
                let expected = Matches {
                    from,
                    to,
                    ..Matches::default()
                };
                assert_eq!((matches, verdict), (expected, Some(Verdict::Accept)));
            }
        }
        let (matches, verdict) = meaning(of_replies().as_bytes());
        assert!(matches.other);
        assert_eq!(verdict, Some(Verdict::Accept));
    }

    #[test]
    fn states_of_iptables_are_read() {
        let rule = |revision, asked: u16, inverted: u16| {
            let mut info = vec![0; 146];
            for half in [asked, inverted, 1, 0] {
                info.extend(half.to_ne_bytes());
            }
            let data = Attributes::new()
                .text(expression::MATCH_NAME, "conntrack")
                .number(expression::MATCH_REVISION, revision)
                .bytes(expression::MATCH_INFO, &info);
            meaning(list(&[expression("match", &data), accept()]).as_bytes()).0
        };
        let understood = Matches {
            states: Some(1),
            ..Matches::default()
        };
        assert_eq!(rule(3, 1, 0), understood);
        for (revision, asked, inverted) in [(1, 1, 0), (3, 3, 0), (3, 1, 1)] {
            assert!(rule(revision, asked, inverted).other);
        }
    }

    #[test]
    fn comments_are_read_back() {
        assert_eq!(
            comment(&user_data("weir: pods")).as_deref(),
            Some("weir: pods")
        );
        assert_eq!(comment(&[1, 2, 0, 0, 0, 2, b'a', 0]).as_deref(), Some("a"));
        for data in [&[][..], &[0], &[0, 5, b'a'], &[1, 0]] {
            assert_eq!(comment(data), None, "{data:?}");
        }
    }
}
