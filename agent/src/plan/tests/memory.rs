//! Maps in memory behave as the kernel's.

use weir_common::abi::{
    Address, BackendState, Class, Endpoint, EndpointKey, ROW_ABSENT, ROW_OPEN, Range, Rows,
    Segment, Slot, SourceKey, VerdictKey, control,
};

use super::super::{BACKENDS, CanonicalRow, MemoryError, MemoryMaps, Sizes, Step, Table};
use crate::compile::testing::ip;

fn address(text: &str) -> Address {
    ip(text).into()
}

/// Maps of two elements each.
fn small() -> MemoryMaps {
    let mut maps = MemoryMaps::new();
    let sizes: Sizes = Table::GENERATION.map(|table| (table, 2)).into();
    maps.apply(&Step::Begin(sizes)).unwrap();
    maps.apply(&Step::Select).unwrap();
    maps
}

#[test]
fn a_map_that_is_full_takes_no_other_key() {
    let mut maps = small();
    let full = |table| {
        Err(MemoryError::Full {
            table,
            size: if table == Table::Backend { BACKENDS } else { 2 },
        })
    };
    let class = |last: u8, versions| {
        let key = address(&format!("10.0.0.{last}"));
        Step::write(Table::Class, &key, &Class { versions })
    };
    assert_eq!(maps.apply(&class(1, [1, 1])), Ok(()));
    assert_eq!(maps.apply(&class(2, [2, 2])), Ok(()));
    assert_eq!(maps.apply(&class(3, [3, 3])), full(Table::Class));
    assert_eq!(maps.apply(&class(2, [2, 3])), Ok(()), "it is there");
    let held = maps.class(&address("10.0.0.2")).unwrap();
    assert_eq!(held.versions, [2, 3]);
    maps.apply(&Step::delete(Table::Class, &address("10.0.0.1")))
        .unwrap();
    assert_eq!(maps.apply(&class(3, [3, 3])), Ok(()));

    // Arrays have the elements that they have.
    let range = |index: u32| Step::write(Table::Range, &index, &Range::default());
    assert_eq!(maps.apply(&range(1)), Ok(()));
    assert_eq!(maps.apply(&range(2)), full(Table::Range));
    let slot = |index: u32| Step::write(Table::Slot, &index, &Slot::default());
    assert_eq!(maps.apply(&slot(2)), full(Table::Slot));
    let backend = |id: u32| Step::write(Table::Backend, &id, &BackendState::default());
    assert_eq!(maps.apply(&backend(BACKENDS - 1)), Ok(()));
    assert_eq!(maps.apply(&backend(BACKENDS)), full(Table::Backend));
    assert_eq!(
        (maps.range(0), maps.range(1)),
        (None, Some(Range::default()))
    );
}

#[test]
fn generations_take_turns() {
    let mut maps = small();
    let begin = Step::Begin([(Table::Class, 1)].into());
    for selected in [1, 0, 1] {
        assert_eq!(maps.control(control::SELECTED), selected);
        maps.apply(&begin).unwrap();
        maps.apply(&Step::Select).unwrap();
    }
    assert_eq!(maps.apply(&Step::Select), Err(MemoryError::NoGeneration));
    let word = Step::Control {
        index: control::ENTRIES,
        value: 1,
    };
    let none = Err(MemoryError::NoControl(control::ENTRIES));
    assert_eq!(maps.apply(&word), none);
    assert_eq!(maps.control(control::ENTRIES), 0);
}

#[test]
fn a_client_is_let_in_by_any_range_around_it() {
    const PORT: u64 = 7;
    for (range, length, client, admitted) in [
        ("192.0.2.0", 24, "192.0.2.9", true),
        ("192.0.2.0", 24, "192.0.3.9", false),
        ("192.0.2.0", 23, "192.0.3.9", true),
        ("192.0.2.9", 32, "192.0.2.9", true),
        ("192.0.2.9", 32, "192.0.2.8", false),
        ("0.0.0.0", 0, "192.0.2.9", true),
        ("0.0.0.0", 0, "fd00::1", false),
        ("fd00::", 64, "fd00::1", true),
        ("fd00::", 64, "fd00:0:0:1::1", false),
        ("::", 0, "fd00::1", true),
    ] {
        let mut maps = small();
        let key = SourceKey::prefix(PORT, address(range), length, ip(range).is_ipv4());
        maps.apply(&Step::write(Table::Source, &key, &0_u32))
            .unwrap();
        let asks = |port| maps.admits(&SourceKey::client(port, address(client)));
        assert_eq!(asks(PORT), admitted, "{client} in {range}/{length}");
        assert!(!asks(PORT + 1), "of another Service port");
    }
}

#[test]
fn what_maps_say_is_told_without_numbers_and_with_what_was_left_behind() {
    let mut maps = small();
    let endpoint = |last: u8, ingress, egress| {
        let value = Endpoint {
            id: last.into(),
            ifindex: last.into(),
            rows: [Rows { ingress, egress }; 2],
            ..Endpoint::default()
        };
        let key = EndpointKey::address(address(&format!("10.0.0.{last}")));
        Step::write(Table::Endpoint, &key, &value)
    };
    let verdict = |row, class| {
        let segment = Segment { base: 0, count: 1 };
        Step::write(Table::Verdict, &VerdictKey { row, class }, &segment)
    };
    let range = Range {
        first: 80,
        last: 90,
        ..Range::default()
    };
    let class = Class { versions: [4, 4] };
    for step in [
        Step::write(Table::Range, &0_u32, &range),
        Step::write(Table::Class, &address("10.0.0.9"), &class),
        endpoint(1, ROW_OPEN, 5),
        endpoint(2, ROW_ABSENT, ROW_ABSENT),
        verdict(5, 4),
    ] {
        maps.apply(&step).unwrap();
    }
    let told = maps.canonical();
    let name = "like 10.0.0.9".to_owned();
    assert_eq!(told.addresses[&address("10.0.0.9")], name);
    let rows: Vec<_> = told.endpoints.values().cloned().collect();
    let isolated = CanonicalRow::Isolated([(name, vec![range])].into());
    assert_eq!(
        rows,
        [
            (1, 1, [CanonicalRow::Open, isolated]),
            (2, 2, [CanonicalRow::Absent, CanonicalRow::Absent]),
        ]
    );
    assert_eq!(told.orphans, 0);
    // A row that no pod has, and a class that no address has.
    for (left, orphans) in [(verdict(6, 4), 1), (verdict(5, 8), 1)] {
        let mut maps = maps.clone();
        maps.apply(&left).unwrap();
        assert_eq!(maps.canonical().orphans, orphans, "{left}");
    }
    let mut both = small();
    for step in [verdict(6, 0), verdict(7, 8)] {
        both.apply(&step).unwrap();
    }
    assert_eq!(both.canonical().orphans, 2);
}
