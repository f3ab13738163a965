//! `ipBlock`: an address match, with holes, one family at a time.

use crate::world::{ALLOW, DENY, HTTP, PING, WORLD, WORLD6, World, tcp};

fn ingress_from(blocks: &[&str]) -> World {
    let peers: Vec<String> = blocks
        .iter()
        .map(|block| format!("{{ipBlock: {block}}}"))
        .collect();
    World::with(
        "x",
        &format!(
            "{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{}]}}]}}",
            peers.join(", ")
        ),
    )
}

#[test]
fn a_hole_is_outside_the_block() {
    ingress_from(&["{cidr: 203.0.113.0/24, except: [203.0.113.64/26]}"]).check(&[
        ("203.0.112.255", "x/a", HTTP, DENY),
        ("203.0.113.0", "x/a", HTTP, ALLOW),
        ("203.0.113.63", "x/a", HTTP, ALLOW),
        ("203.0.113.64", "x/a", HTTP, DENY),
        ("203.0.113.127", "x/a", HTTP, DENY),
        ("203.0.113.128", "x/a", HTTP, ALLOW),
        ("203.0.113.255", "x/a", HTTP, ALLOW),
        ("203.0.114.0", "x/a", HTTP, DENY),
    ]);
}

#[test]
fn a_hole_takes_from_its_own_block_only() {
    let mut world = ingress_from(&[
        "{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}",
        "{cidr: 10.1.2.0/24}",
    ]);
    world.check(&[
        ("y/a", "x/a", HTTP, ALLOW),
        ("z/a", "x/a", HTTP, DENY),
        ("10.9.9.9", "x/a", HTTP, ALLOW),
    ]);
    world.policy(
        "x",
        "more",
        "{podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.1.3.1/32}}]}]}",
    );
    world.check(&[
        ("z/a", "x/a", HTTP, ALLOW),
        ("z/b", "x/a", HTTP, DENY),
        ("x/b", "x/a", HTTP, ALLOW),
    ]);
}

#[test]
fn holes_may_nest_overlap_and_lie_in_the_other_family() {
    ingress_from(&["{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 10.1.0.0/16, 10.1.2.1/32, '::/0']}"])
        .check(&[
            ("y/a", "x/a", HTTP, DENY),
            ("10.200.0.1", "x/a", HTTP, DENY),
            ("11.0.0.0", "x/a", HTTP, ALLOW),
        ]);
}

#[test]
fn one_block_written_twice_with_different_holes_is_the_union() {
    ingress_from(&[
        "{cidr: 10.0.0.0/8, except: [10.1.2.0/24]}",
        "{cidr: 10.0.0.0/8, except: [10.1.3.0/24, 10.1.2.1/32]}",
    ])
    .check(&[
        ("y/a", "x/a", HTTP, DENY),
        ("y/b", "x/a", HTTP, ALLOW),
        ("z/a", "x/a", HTTP, ALLOW),
    ]);
}

#[test]
fn a_block_within_a_block_has_the_ports_of_both() {
    let spec = "{podSelector: {}, policyTypes: [Ingress], ingress: [
        {from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]},
        {from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}";
    World::with("x", spec).check(&[
        ("y/a", "x/a", HTTP, ALLOW),
        ("y/a", "x/a", tcp(443), ALLOW),
        (WORLD, "x/a", HTTP, ALLOW),
        (WORLD, "x/a", tcp(443), DENY),
    ]);
}

#[test]
fn the_families_are_apart() {
    ingress_from(&["{cidr: 0.0.0.0/0}"]).check(&[
        (WORLD, "x/a", HTTP, ALLOW),
        (WORLD6, "x/a#6", HTTP, DENY),
        ("y/a#6", "x/a#6", HTTP, DENY),
    ]);
    ingress_from(&["{cidr: '::/0'}"]).check(&[
        (WORLD6, "x/a#6", HTTP, ALLOW),
        (WORLD, "x/a", HTTP, DENY),
        ("y/a", "x/a", HTTP, DENY),
    ]);
}

#[test]
fn a_block_of_one_address_matches_just_that() {
    ingress_from(&["{cidr: 203.0.113.9/32}", "{cidr: '2001:db8::9/128'}"]).check(&[
        (WORLD, "x/a", HTTP, ALLOW),
        ("203.0.113.8", "x/a", HTTP, DENY),
        ("203.0.113.10", "x/a", HTTP, DENY),
        (WORLD6, "x/a#6", HTTP, ALLOW),
        ("2001:db8::8", "x/a#6", HTTP, DENY),
    ]);
}

#[test]
fn a_block_written_with_host_bits_or_zeros_is_the_block() {
    for cidr in [
        "10.161.0.0/8",
        "010.000.000.001/08",
        "10.255.255.255/8",
        "'::ffff:10.0.0.0/104'",
    ] {
        ingress_from(&[&format!("{{cidr: {cidr}}}")]).check(&[
            ("y/a", "x/a", HTTP, ALLOW),
            ("10.0.0.0", "x/a", HTTP, ALLOW),
            ("11.0.0.0", "x/a", HTTP, DENY),
        ]);
    }
}

#[test]
fn a_malformed_block_matches_nothing_and_leaves_others_alone() {
    let world = ingress_from(&[
        "{cidr: all}",
        "{cidr: 10.0.0.0/8, except: [some]}",
        "{cidr: 203.0.113.0/24}",
    ]);
    world.check(&[("y/a", "x/a", HTTP, DENY), (WORLD, "x/a", HTTP, ALLOW)]);
}

#[test]
fn a_block_matches_pods_by_either_of_their_addresses() {
    let world = ingress_from(&["{cidr: 10.1.2.1/32}", "{cidr: 'fd00:10:2::/64'}"]);
    world.check(&[
        ("y/a", "x/a", HTTP, ALLOW),
        ("y/b", "x/a", HTTP, DENY),
        ("y/b#6", "x/a#6", HTTP, ALLOW),
        ("z/a#6", "x/a#6", HTTP, DENY),
    ]);
}

#[test]
fn a_block_matches_nodes_by_their_address() {
    ingress_from(&["{cidr: 192.168.1.2/32}"]).check(&[
        ("node-2", "x/a", HTTP, ALLOW),
        ("node-1", "x/b", HTTP, DENY),
    ]);
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.1.2/32}}]}]}";
    World::with("x", spec).check(&[
        ("x/a", "node-2", tcp(6443), ALLOW),
        ("x/a", "node-1", tcp(6443), DENY),
    ]);
}

#[test]
fn a_block_of_service_addresses_does_not_match_the_endpoint_behind() {
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}";
    World::with("x", spec).check(&[
        ("x/a", "y/a", HTTP, DENY),
        ("x/a", "10.96.0.1", HTTP, ALLOW),
    ]);
}

#[test]
fn multicast_and_broadcast_are_addresses_like_any_other() {
    World::with("x", "{podSelector: {}, policyTypes: [Egress]}").check(&[
        ("x/a", "224.0.0.251", tcp(5353), DENY),
        ("x/a", "255.255.255.255", tcp(67), DENY),
    ]);
    World::with("x", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 224.0.0.0/4}}]}]}").check(&[
        ("x/a", "224.0.0.251", PING, ALLOW),
        ("x/a", "255.255.255.255", PING, DENY),
    ]);
}
