//! The columns of each board.

use super::choice::{Chosen, port};
use super::rates::{Measures, Rate};
use crate::cli::args::{By, Sort};

/// A column: its header, and its cell of a row.
pub(super) struct Column {
    pub(super) header: &'static str,
    /// The order of rows that its numbers are of; `None` for words.
    pub(super) sort: Option<Sort>,
    cell: fn(&Rate) -> String,
}

const fn words(header: &'static str, cell: fn(&Rate) -> String) -> Column {
    Column {
        header,
        sort: None,
        cell,
    }
}

const fn rate(sort: Sort, header: &'static str, cell: fn(&Rate) -> String) -> Column {
    Column {
        header,
        sort: Some(sort),
        cell,
    }
}

const SOURCE: Column = words("SOURCE", |row| row.talk.source.clone());
const DESTINATION: Column = words("DESTINATION", |row| row.talk.destination.clone());
const SERVICE: Column = words("SERVICE", |row| {
    // All of them are Services, but for addresses whose Service is gone.
    row.talk.destination.replacen("/svc/", "/", 1)
});
const PORT: Column = words("PORT", port);
const REASON: Column = words("REASON", |row| row.talk.reason.clone());
const POLICY: Column = words("POLICY", |row| match &*row.talk.policies {
    [] => "-".to_owned(),
    policies => policies.join(","),
});
const CONNECTIONS: Column = rate(Sort::Connections, "CONN/S", |row| {
    number(row.per_second.connections)
});
const PACKETS: Column = rate(Sort::Packets, "PACKETS/S", |row| {
    let Measures {
        packets_sent,
        packets_received,
        ..
    } = row.per_second;
    number(packets_sent + packets_received)
});
const SENT: Column = rate(Sort::Bytes, "SENT B/S", |row| {
    number(row.per_second.bytes_sent)
});
const RECEIVED: Column = rate(Sort::Bytes, "RECEIVED B/S", |row| {
    number(row.per_second.bytes_received)
});
const DROPS: Column = rate(Sort::Drops, "DROPS/S", |row| number(row.per_second.drops));

const FLOWS: &[Column] = &[
    SOURCE,
    DESTINATION,
    PORT,
    CONNECTIONS,
    PACKETS,
    SENT,
    RECEIVED,
    DROPS,
];
const SERVICES: &[Column] = &[SERVICE, PORT, CONNECTIONS, PACKETS, SENT, RECEIVED, DROPS];
const REFUSALS: &[Column] = &[SOURCE, DESTINATION, PORT, REASON, POLICY, DROPS];

/// Those of a board.
pub(super) const fn of(by: By) -> &'static [Column] {
    match by {
        By::Workloads | By::Pods => FLOWS,
        By::Services => SERVICES,
        By::Drops => REFUSALS,
    }
}

/// The cells of the rows that are wanted, at most so many and as many of them as make a row of all others.
pub(super) fn cells(by: By, chosen: &Chosen<'_>, most: usize) -> Vec<Vec<String>> {
    let cells = |row: &Rate| of(by).iter().map(|column| (column.cell)(row)).collect();
    let (shown, rest) = chosen.rows.split_at(chosen.rows.len().min(most));
    let mut all: Vec<Vec<String>> = shown.iter().map(|row| cells(row)).collect();
    all.extend(chosen.others(rest).map(|other| {
        let mut row: Vec<String> = cells(&other);
        "other".clone_into(&mut row[0]);
        row
    }));
    all
}

/// A number of three digits or so, with k, M and so on for thousands.
pub(super) fn number(value: f64) -> String {
    let mut value = value;
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            let digits = usize::from(value < 9.95 && value > 0.0);
            return format!("{value:.digits$}{unit}");
        }
        value /= 1e3;
    }
    format!("{value:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (123_456_789.0, "123M"),
            (9.9e17, "990P"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }
}
