//! What the maps hold, in words: as it is, or in a form that two kernels with the same content share.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};
use weir_common::abi::{
    Address, BACKEND_GONE, BackendState, CLASS_UNSET, CLASS_WORLD, Class, Endpoint, EndpointKey,
    Frontend, FrontendKey, PrefixKey, ROW_ABSENT, ROW_OPEN, Range, SERVICES_ONLY, Segment, Slot,
    SourceKey, VerdictKey,
};
use zerocopy::FromBytes;

use crate::plan::Table;

/// Tables as they are in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawMaps {
    /// The word `VERSION` of the `control` array.
    pub version: u64,
    /// Key bytes to value bytes.
    pub tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Tables in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDump {
    /// Elements by table, in a fixed order.
    pub tables: BTreeMap<String, Vec<Element>>,
}

/// An element in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Element {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

impl MapDump {
    fn add(&mut self, table: Table, key: String, value: String) {
        let elements = self.tables.entry(table.name().to_owned()).or_default();
        elements.push(Element { key, value });
    }

    fn sorted(mut self) -> Self {
        self.tables
            .values_mut()
            .for_each(|elements| elements.sort());
        self
    }
}

/// Every element with all its fields.
#[must_use]
pub fn raw(maps: &RawMaps) -> MapDump {
    let mut dump = MapDump::default();
    for (&table, elements) in &maps.tables {
        for (key, value) in elements {
            let (key, value) = match table {
                Table::Frontend => show::<FrontendKey, Frontend>(key, value),
                Table::Slot => show::<u32, Slot>(key, value),
                Table::Endpoint => show::<EndpointKey, Endpoint>(key, value),
                Table::Class => show::<Address, Class>(key, value),
                Table::Source => show::<SourceKey, u32>(key, value),
                Table::Prefix => show::<PrefixKey, Class>(key, value),
                Table::Verdict => show::<VerdictKey, Segment>(key, value),
                Table::Range => show::<u32, Range>(key, value),
                Table::Backend => show::<u32, BackendState>(key, value),
            };
            dump.add(table, key, value);
        }
    }
    dump.sorted()
}

fn show<K: FromBytes + Debug, V: FromBytes + Debug>(key: &[u8], value: &[u8]) -> (String, String) {
    (words::<K>(key), words::<V>(value))
}

/// Bytes of another length than the type's are shown as they are.
fn words<T: FromBytes + Debug>(bytes: &[u8]) -> String {
    T::read_from_bytes(bytes).map_or_else(|_| format!("{bytes:02x?}"), |value| format!("{value:?}"))
}

/// What programs see, without numbers that mean nothing outside one kernel: classes are named by the addresses in them, rows by
/// what they allow, slots and ranges appear where they are used, backends go by their fingerprints. What no program can reach
/// any more (the idle version, freed segments) is left out.
#[must_use]
pub fn canonical(maps: &RawMaps) -> MapDump {
    let version = (maps.version & 1) as usize;
    let mut dump = MapDump::default();

    let slots: BTreeMap<u32, Slot> = maps.table(Table::Slot);
    for (key, frontend) in maps.table::<FrontendKey, Frontend>(Table::Frontend) {
        let set = |base: u32, count: u32| {
            let mut set: Vec<_> = (base..base.saturating_add(count))
                .filter_map(|index| slots.get(&index))
                .map(|slot| {
                    format!(
                        "{}#{:08x}",
                        socket(slot.address, slot.port),
                        slot.fingerprint
                    )
                })
                .collect();
            set.sort();
            set.join(",")
        };
        dump.add(
            Table::Frontend,
            format!("{}/{}", socket(key.address, key.port), key.protocol),
            format!(
                "service={:016x} flags={} affinity={} internal=[{}] external=[{}]",
                frontend.service,
                frontend.flags,
                frontend.affinity_seconds,
                set(frontend.internal_base, frontend.internal_count),
                set(frontend.external_base, frontend.external_count),
            ),
        );
    }

    for key in maps.table::<SourceKey, u32>(Table::Source).keys() {
        let [low, high] = key.scope.service.map(u64::from);
        let range = PrefixKey {
            bits: key.bits.saturating_sub(64),
            address: key.scope.client,
        };
        let (key, value) = match high << 32 | low {
            SERVICES_ONLY => (prefix_words(&range), "services only"),
            service => (
                format!("service={service:016x} {}", prefix_words(&range)),
                "admitted",
            ),
        };
        dump.add(Table::Source, key, value.to_owned());
    }

    let classes = class_names(maps, version);
    let class = |number: u32| classes.get(&number).map_or("none", String::as_str);
    for (address, element) in maps.table::<Address, Class>(Table::Class) {
        if element.versions[version] != CLASS_UNSET {
            let name = class(element.versions[version]).to_owned();
            dump.add(Table::Class, address.to_string(), name);
        }
    }
    for (prefix, element) in maps.table::<PrefixKey, Class>(Table::Prefix) {
        let name = class(element.versions[version]).to_owned();
        dump.add(Table::Prefix, prefix_words(&prefix), name);
    }

    let rows = row_contents(maps, &classes);
    let row = |number: u32| match number {
        ROW_OPEN => "open".to_owned(),
        _ => digest(rows.get(&number).map_or("", String::as_str)),
    };
    let mut used = BTreeMap::new();
    for (key, endpoint) in maps.table::<EndpointKey, Endpoint>(Table::Endpoint) {
        let judged = endpoint.rows[version];
        if judged.ingress == ROW_ABSENT && judged.egress == ROW_ABSENT {
            continue;
        }
        for number in [judged.ingress, judged.egress] {
            if number != ROW_OPEN {
                used.insert(row(number), rows.get(&number).cloned().unwrap_or_default());
            }
        }
        dump.add(
            Table::Endpoint,
            format!("{} device={}", key.address, key.ifindex),
            format!(
                "id={:016x} device={} ingress={} egress={}",
                endpoint.id,
                endpoint.ifindex,
                row(judged.ingress),
                row(judged.egress)
            ),
        );
    }
    for (name, content) in used {
        dump.add(Table::Verdict, name, content);
    }

    for state in maps.table::<u32, BackendState>(Table::Backend).values() {
        if state.state != BACKEND_GONE {
            let key = format!("#{:08x}", state.fingerprint);
            let content = format!("{} sets {}", state.state, state.sets);
            dump.add(Table::Backend, key, content);
        }
    }
    dump.sorted()
}

impl RawMaps {
    fn table<K: FromBytes + Ord, V: FromBytes>(&self, table: Table) -> BTreeMap<K, V> {
        let elements = self.tables.get(&table).into_iter().flatten();
        elements
            .filter_map(|(key, value)| {
                let key = K::read_from_bytes(key).ok()?;
                Some((key, V::read_from_bytes(value).ok()?))
            })
            .collect()
    }
}

/// A class is the addresses and prefixes in it.
fn class_names(maps: &RawMaps, version: usize) -> BTreeMap<u32, String> {
    let mut members: BTreeMap<u32, String> = BTreeMap::new();
    let mut add = |class: &Class, member: String| {
        let list = members.entry(class.versions[version]).or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(list, "{member}");
    };
    for (address, class) in maps.table::<Address, Class>(Table::Class) {
        add(&class, address.to_string());
    }
    for (prefix, class) in maps.table::<PrefixKey, Class>(Table::Prefix) {
        add(&class, prefix_words(&prefix));
    }
    let mut names: BTreeMap<_, _> = members
        .into_iter()
        .map(|(class, members)| (class, digest(&members)))
        .collect();
    names.insert(CLASS_WORLD, "world".to_owned());
    names
}

/// A row is what it allows to which class.
fn row_contents(maps: &RawMaps, classes: &BTreeMap<u32, String>) -> BTreeMap<u32, String> {
    let ranges: BTreeMap<u32, Range> = maps.table(Table::Range);
    let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (key, segment) in maps.table::<VerdictKey, Segment>(Table::Verdict) {
        // No address is in the class any more: nothing finds this element.
        let Some(class) = classes.get(&key.class) else {
            continue;
        };
        let allowed: Vec<_> = (segment.base..segment.base.saturating_add(segment.count))
            .filter_map(|index| ranges.get(&index))
            .map(range_words)
            .collect();
        let row = rows.entry(key.row).or_default();
        row.push(format!("{class}:[{}]", allowed.join(",")));
    }
    rows.into_iter()
        .map(|(row, mut content)| {
            content.sort();
            (row, content.join(" "))
        })
        .collect()
}

fn range_words(range: &Range) -> String {
    let bound = |bound: u32| format!("{}/{}", bound >> 16, bound & 0xffff);
    format!(
        "{}-{}#{:08x}",
        bound(range.first),
        bound(range.last),
        range.rule
    )
}

fn prefix_words(prefix: &PrefixKey) -> String {
    if prefix.address.is_v4() && prefix.bits >= 96 {
        format!("{}/{}", prefix.address, prefix.bits - 96)
    } else {
        format!(
            "{}/{}",
            std::net::Ipv6Addr::from(prefix.address.bytes()),
            prefix.bits
        )
    }
}

fn socket(address: Address, port: u16) -> String {
    std::net::SocketAddr::new(address.into(), port).to_string()
}

fn digest(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("{:032x}", u128::from(hasher.finish128()))
}
