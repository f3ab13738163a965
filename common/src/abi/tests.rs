//! Numbers that share a field are told apart.
//!
//! Constants are read from the source, not listed here: one that a list forgets is the one that collides.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::{
    BACKEND_ACTIVE, FAST, IN_LOCAL_SET, NODE_PORT, ROLE_RESPONDER, RULE_HAIRPIN, RULE_RESERVED,
    control,
};

const CONNTRACK: &str = include_str!("conntrack.rs");
const POLICY: &str = include_str!("policy.rs");
const SERVICE: &str = include_str!("service.rs");

/// A constant as it is written: its name, its type, and its value.
type Constant<'a> = (&'a str, &'a str, &'a str);

fn constants(source: &str) -> impl Iterator<Item = Constant<'_>> {
    source.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("pub const ")?.split_once(": ")?;
        let (kind, value) = rest.strip_suffix(';')?.split_once(" = ")?;
        Some((name, kind, value))
    })
}

/// The flags of a type, each by its name.
fn flags<'a>(source: &'a str, kind: &str) -> BTreeMap<&'a str, u32> {
    let flags = constants(source).filter(|(_, of, _)| *of == kind);
    let flag = |(name, _, value): Constant<'a>| {
        let bit: u32 = value.strip_prefix("1 << ")?.parse().ok()?;
        Some((name, 1 << bit))
    };
    flags.filter_map(flag).collect()
}

/// The plain numbers whose names begin so.
fn numbers<'a>(source: &'a str, prefix: &str) -> BTreeMap<&'a str, u32> {
    let named = constants(source).filter(|(name, ..)| name.starts_with(prefix));
    named
        .filter_map(|(name, _, value)| Some((name, value.parse().ok()?)))
        .collect()
}

#[track_caller]
fn ensure_distinct(values: &BTreeMap<&str, u32>) {
    let mut sorted: Vec<_> = values.values().collect();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), values.len(), "one number twice: {values:?}");
}

#[test]
fn every_flag_has_its_own_bit() {
    for (source, kind, known) in [
        (CONNTRACK, "u16", ("FAST", u32::from(FAST))),
        (SERVICE, "u32", ("NODE_PORT", NODE_PORT)),
        (SERVICE, "u16", ("IN_LOCAL_SET", u32::from(IN_LOCAL_SET))),
    ] {
        let flags = flags(source, kind);
        assert_eq!(flags.get(known.0), Some(&known.1), "they are found");
        ensure_distinct(&flags);
    }
}

#[test]
fn every_number_of_a_field_means_one_thing() {
    let rules = numbers(POLICY, "RULE_");
    assert_eq!(rules["RULE_HAIRPIN"], RULE_HAIRPIN);
    assert!(rules.values().all(|rule| *rule <= RULE_RESERVED));
    ensure_distinct(&rules);
    let roles = numbers(CONNTRACK, "ROLE_");
    assert_eq!(roles["ROLE_RESPONDER"], ROLE_RESPONDER);
    ensure_distinct(&roles);
    let states = numbers(SERVICE, "BACKEND_");
    assert_eq!(states["BACKEND_ACTIVE"], BACKEND_ACTIVE.into());
    ensure_distinct(&states);
}

#[test]
fn every_control_has_its_own_slot() {
    let (_, source) = include_str!("mod.rs")
        .split_once("pub mod control {")
        .expect("the module");
    let slots = numbers(source, "");
    assert_eq!(slots["TAKING_OVER"], control::TAKING_OVER);
    // The number of slots is none of them.
    assert!(slots.values().all(|slot| *slot <= control::ENTRIES));
    ensure_distinct(&slots);
}
