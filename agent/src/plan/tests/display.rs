//! Plans and differences in words.

use std::net::IpAddr;

use weir_common::abi::{
    Address, BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_GONE, BACKEND_UNREADY, BackendState, Class,
    Endpoint, EndpointKey, Frontend, FrontendKey, PrefixKey, ROW_ABSENT, Range, Rows, Segment,
    Slot, SourceKey, VerdictKey, control,
};
use zerocopy::{Immutable, IntoBytes};

use super::super::{Bytes, Difference, Step, Table};

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn state(state: u16) -> BackendState {
    BackendState {
        fingerprint: 0xabc,
        state,
        sets: 1,
    }
}

fn write<K, V>(table: Table, key: &K, value: &V) -> String
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    Step::write(table, key, value).to_string()
}

fn delete(table: Table, key: &(impl IntoBytes + Immutable)) -> String {
    Step::delete(table, key).to_string()
}

#[test]
fn steps_name_elements_as_people_do() {
    let prefix = |bits, text| PrefixKey {
        bits,
        address: address(text),
    };
    let class = Class {
        versions: [3, u32::MAX],
    };
    let rows = [
        Rows {
            ingress: 2,
            egress: 0,
        },
        Rows {
            ingress: ROW_ABSENT,
            egress: 1,
        },
    ];
    let endpoint = Endpoint {
        id: 0x1234,
        ifindex: 7,
        rows,
        ..Endpoint::default()
    };
    let frontend = FrontendKey {
        address: address("172.20.0.1"),
        port: 80,
        protocol: 6,
        reserved: 0,
    };
    let sets = Frontend {
        service: 0xfeed,
        internal_base: 5,
        internal_count: 2,
        external_base: 9,
        external_count: 1,
        flags: 0x1f,
        ..Frontend::default()
    };
    let slot = Slot {
        address: address("fd00::1"),
        port: 8080,
        flags: 0,
        backend: 4,
        fingerprint: 0xabc,
        reserved: 0,
    };
    let source = |service, length, network, v4| {
        let key = SourceKey::prefix(service, address(network), length, v4);
        delete(Table::Source, &key)
    };
    let range = Range {
        first: 6 << 16 | 80,
        last: 17 << 16 | 0xffff,
        rule: 0xbeef,
        reserved: 0,
    };
    let (row, runs) = (
        VerdictKey { row: 2, class: 3 },
        Segment { base: 8, count: 2 },
    );
    let backend = |is| write(Table::Backend, &4_u32, &state(is));
    for (said, expected) in [
        (
            write(Table::Frontend, &frontend, &sets),
            "write frontend [172.20.0.1]:80/6 = service 000000000000feed internal 5+2 external 9+1 flags 1f",
        ),
        (
            write(Table::Slot, &9_u32, &slot),
            "write slot 9 = [fd00::1]:8080 backend 4 fingerprint 00000abc",
        ),
        (
            source(0x0123_4567_89ab_cdef, 24, "192.0.2.0", true),
            "delete source service 0123456789abcdef 192.0.2.0/24",
        ),
        (
            source(1, 64, "fd00::", false),
            "delete source service 0000000000000001 fd00::/64",
        ),
        (
            write(
                Table::Endpoint,
                &EndpointKey::address(address("10.0.0.1")),
                &endpoint,
            ),
            "write endpoint 10.0.0.1 = id 0000000000001234 ifindex 7 rows 2 0 rows -1 1",
        ),
        (
            delete(Table::Endpoint, &EndpointKey::device(7)),
            "delete endpoint device 7",
        ),
        (
            write(Table::Class, &address("10.0.0.1"), &class),
            "write class 10.0.0.1 = classes 3 -1",
        ),
        (
            write(Table::Prefix, &prefix(96 + 24, "10.0.1.0"), &class),
            "write prefix 10.0.1.0/24 = classes 3 -1",
        ),
        (
            delete(Table::Prefix, &prefix(96, "0.0.0.0")),
            "delete prefix 0.0.0.0/0",
        ),
        (
            delete(Table::Prefix, &prefix(104, "fd00::")),
            "delete prefix fd00::/104",
        ),
        (
            delete(Table::Prefix, &prefix(8, "::")),
            "delete prefix ::/8",
        ),
        (
            write(Table::Verdict, &row, &runs),
            "write verdict row 2 class 3 = ranges 8+2",
        ),
        (
            write(Table::Range, &1_u32, &range),
            "write range 1 = 6:80 to 17:65535 rule 0000beef",
        ),
        (
            backend(BACKEND_ACTIVE),
            "write backend 4 = active fingerprint 00000abc sets 1",
        ),
        (
            backend(BACKEND_DRAINING),
            "write backend 4 = draining fingerprint 00000abc sets 1",
        ),
        (
            backend(BACKEND_UNREADY),
            "write backend 4 = unready fingerprint 00000abc sets 1",
        ),
        (
            backend(BACKEND_GONE),
            "write backend 4 = gone fingerprint 00000abc sets 1",
        ),
        (
            Step::Control {
                index: control::VERSION,
                value: 3,
            }
            .to_string(),
            "control version = 3",
        ),
        (
            Step::Control {
                index: control::EPOCH,
                value: 3,
            }
            .to_string(),
            &format!("control {} = 3", control::EPOCH),
        ),
    ] {
        assert_eq!(said, expected);
    }
}

#[test]
fn a_difference_says_what_is_there_and_what_should_be() {
    let bytes = |state: BackendState| Bytes::from_slice(state.as_bytes());
    let says = |found: Option<Bytes>, wanted: Option<Bytes>| {
        let difference = Difference {
            table: Table::Backend,
            key: Bytes::from_slice(4_u32.as_bytes()),
            wanted,
            found,
        };
        difference.to_string()
    };
    let (active, gone) = (bytes(state(BACKEND_ACTIVE)), bytes(state(BACKEND_GONE)));
    assert_eq!(
        says(Some(gone.clone()), Some(active.clone())),
        "map backend: 4 is gone fingerprint 00000abc sets 1, should be active fingerprint 00000abc sets 1"
    );
    assert_eq!(
        says(None, Some(active)),
        "map backend: 4 is missing, should be active fingerprint 00000abc sets 1"
    );
    assert_eq!(
        says(Some(Bytes::from_slice(&[1, 0xff])), None),
        "map backend: 4 is [01, ff], should not be there",
        "not of its length"
    );
}
