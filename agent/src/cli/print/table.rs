//! Columns.

use std::fmt;
use std::io::Write;

use tabwriter::TabWriter;

use crate::model::Labels;

/// A list as a table.
#[derive(Clone, Debug)]
pub struct Table {
    header: Option<Vec<&'static str>>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these upper-case headers.
    pub(in crate::cli) fn new(
        header: impl IntoIterator<Item = &'static str>,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self {
            header: Some(header.into_iter().collect()),
            rows: rows.into_iter().collect(),
        }
    }

    /// The rows alone.
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self {
            header: None,
            ..self
        }
    }

    /// With one more column in front, the same in each row.
    #[must_use]
    pub fn marked(mut self, header: &'static str, cell: &str) -> Self {
        if let Some(headers) = &mut self.header {
            headers.insert(0, header);
        }
        for row in &mut self.rows {
            row.insert(0, cell.to_owned());
        }
        self
    }

    /// The rows, under the columns of a table that is shown already.
    #[must_use]
    pub fn below(self, shown: &Self) -> String {
        let mut both = shown.clone();
        both.rows.extend(self.rows);
        let above = usize::from(both.header.is_some()) + shown.rows.len();
        let text = both.to_string();
        let lines = text.lines().skip(above);
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.iter().cloned();
        f.write_str(&match &self.header {
            Some(header) => table("", header, rows),
            None => aligned("", rows),
        })
    }
}

/// A table with upper-case headers, columns apart by spaces, without borders; indented.
pub(super) fn table(
    indent: &str,
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    aligned(indent, std::iter::once(header).chain(rows))
}

fn aligned(indent: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3).minwidth(0);
    for row in rows {
        // Writing to memory cannot fail.
        let _ = writeln!(writer, "{indent}{}", row.join("\t"));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    // An empty last cell leaves blanks at the end of the line.
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// A list in one cell; `-` for none.
pub(super) fn cell<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(",")
    }
}

pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Labels in one cell, as kubectl shows them; `<none>` for none.
pub(super) fn labels(labels: &Labels) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if labels.is_empty() {
        "<none>".to_owned()
    } else {
        labels.join(",")
    }
}
