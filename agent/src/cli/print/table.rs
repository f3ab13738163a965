//! Columns.

use std::io::Write;

use tabwriter::TabWriter;

/// A table with upper-case headers, columns apart by spaces, without borders; indented.
pub(super) fn table(
    indent: &str,
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3).minwidth(0);
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(header).chain(rows) {
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
