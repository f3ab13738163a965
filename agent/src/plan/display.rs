//! Plans for people: one line per step.

use std::fmt;

use weir_common::abi::{
    Address, BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_UNREADY, BackendState, Class, Endpoint,
    EndpointKey, Frontend, FrontendKey, PrefixKey, Range, Segment, Slot, SourceKey, VerdictKey,
    control,
};
use zerocopy::FromBytes;

use super::contents::Difference;
use super::step::{Plan, Step, Table};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(sizes) => {
                f.write_str("begin")?;
                sizes
                    .iter()
                    .try_for_each(|(table, size)| write!(f, " {}={size}", table.name()))
            }
            Self::Write { table, key, value } => {
                write!(f, "write {} ", table.name())?;
                write_key(f, *table, key)?;
                f.write_str(" = ")?;
                write_value(f, *table, value)
            }
            Self::Delete { table, key } => {
                write!(f, "delete {} ", table.name())?;
                write_key(f, *table, key)
            }
            Self::Select => f.write_str("select"),
            Self::Control { index, value } if *index == control::VERSION => {
                write!(f, "control version = {value}")
            }
            Self::Control { index, value } => write!(f, "control {index} = {value}"),
            Self::BumpEpoch => f.write_str("bump epoch"),
            Self::Wait => f.write_str("wait"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {}: ", self.table.name())?;
        write_key(f, self.table, &self.key)?;
        match &self.found {
            Some(found) => {
                f.write_str(" is ")?;
                write_value(f, self.table, found)?;
            }
            None => f.write_str(" is missing")?,
        }
        match &self.wanted {
            Some(wanted) => {
                f.write_str(", should be ")?;
                write_value(f, self.table, wanted)
            }
            None => f.write_str(", should not be there"),
        }
    }
}

/// Bytes of the wrong length are shown as such.
fn parse<T: FromBytes>(
    f: &mut fmt::Formatter<'_>,
    bytes: &[u8],
    show: impl FnOnce(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    match T::read_from_bytes(bytes) {
        Ok(value) => show(f, value),
        Err(_) => write!(f, "{bytes:02x?}"),
    }
}

/// IPv4 prefixes in their own notation; the mapped one would be read as IPv6.
fn write_prefix(f: &mut fmt::Formatter<'_>, address: Address, bits: u32) -> fmt::Result {
    let mapped = if address.is_v4() { 96 } else { 0 };
    write!(f, "{address}/{}", bits.saturating_sub(mapped))
}

fn write_key(f: &mut fmt::Formatter<'_>, table: Table, key: &[u8]) -> fmt::Result {
    match table {
        Table::Frontend => parse(f, key, |f, key: FrontendKey| {
            write!(f, "[{}]:{}/{}", key.address, key.port, key.protocol)
        }),
        Table::Endpoint => parse(f, key, |f, key: EndpointKey| {
            if key.ifindex == 0 {
                write!(f, "{}", key.address)
            } else {
                write!(f, "device {}", key.ifindex)
            }
        }),
        Table::Class => parse(f, key, |f, key: Address| write!(f, "{key}")),
        Table::Prefix => parse(f, key, |f, key: PrefixKey| {
            write_prefix(f, key.address, key.bits)
        }),
        Table::Source => parse(f, key, |f, key: SourceKey| {
            let [low, high] = key.scope.service.map(u64::from);
            let service = high << 32 | low;
            write!(f, "service {service:016x} ")?;
            write_prefix(f, key.scope.client, key.bits.saturating_sub(64))
        }),
        Table::Verdict => parse(f, key, |f, key: VerdictKey| {
            write!(f, "row {} class {}", key.row, key.class)
        }),
        Table::Slot | Table::Range | Table::Backend => {
            parse(f, key, |f, index: u32| write!(f, "{index}"))
        }
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, table: Table, value: &[u8]) -> fmt::Result {
    match table {
        Table::Frontend => parse(f, value, |f, value: Frontend| {
            write!(
                f,
                "service {:016x} internal {}+{} external {}+{} flags {:x}",
                value.service,
                value.internal_base,
                value.internal_count,
                value.external_base,
                value.external_count,
                value.flags
            )
        }),
        Table::Slot => parse(f, value, |f, value: Slot| {
            write!(
                f,
                "[{}]:{} backend {} fingerprint {:08x}",
                value.address, value.port, value.backend, value.fingerprint
            )
        }),
        Table::Endpoint => parse(f, value, |f, value: Endpoint| {
            write!(f, "id {:016x} ifindex {}", value.id, value.ifindex)?;
            value.rows.iter().try_for_each(|rows| {
                write!(f, " rows {} {}", rows.ingress as i32, rows.egress as i32)
            })
        }),
        Table::Class | Table::Prefix => parse(f, value, |f, value: Class| {
            let [zero, one] = value.versions.map(|class| class as i32);
            write!(f, "classes {zero} {one}")
        }),
        Table::Source => f.write_str("admitted"),
        Table::Verdict => parse(f, value, |f, value: Segment| {
            write!(f, "ranges {}+{}", value.base, value.count)
        }),
        Table::Range => parse(f, value, |f, value: Range| {
            let (low, high) = (value.first, value.last);
            write!(
                f,
                "{}:{} to {}:{} rule {:08x}",
                low >> 16,
                low & 0xffff,
                high >> 16,
                high & 0xffff,
                value.rule
            )
        }),
        Table::Backend => parse(f, value, |f, value: BackendState| {
            let state = match value.state {
                BACKEND_ACTIVE => "active",
                BACKEND_DRAINING => "draining",
                BACKEND_UNREADY => "unready",
                _ => "gone",
            };
            write!(
                f,
                "{state} fingerprint {:08x} sets {}",
                value.fingerprint, value.sets
            )
        }),
    }
}
