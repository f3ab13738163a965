//! A picture as text, for those who have no terminal, and for programs.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::choice::Choice;
use super::columns;
use super::rates::{Measures, NodePart, Picture, Rate};
use crate::cli::args::{By, OutputFormat};
use crate::cli::print::{self, Table};

/// A picture as JSON has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'p> {
    time: Option<Timestamp>,
    by: By,
    nodes: &'p [NodePart],
    /// The busiest first.
    rows: Vec<&'p Rate>,
    /// All others, in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Measures>,
}

/// Kind of the document.
const KIND: &str = "Top";

/// A picture as text; `is_last` if no other one follows it.
pub(super) fn text(
    picture: &Picture,
    choice: &Choice,
    rows: usize,
    output: OutputFormat,
    is_last: bool,
) -> Result<String> {
    let chosen = choice.of(picture);
    if output == OutputFormat::Table {
        let headers = columns::of(choice.by).iter().map(|column| column.header);
        let table = Table::new(headers, columns::cells(choice.by, &chosen, rows));
        let silent = picture.silent();
        let silent = silent.map(|(node, why)| format!("{node}: {why}\n"));
        let apart = if is_last { "" } else { "\n" };
        return Ok(format!("{table}{}{apart}", silent.collect::<String>()));
    }
    let document = Document {
        time: picture.time,
        by: choice.by,
        nodes: &picture.nodes,
        rows: chosen.rows,
        other: chosen.other,
    };
    match output {
        OutputFormat::Yaml if is_last => print::yaml(KIND, &document),
        OutputFormat::Yaml => print::yaml_document(&print::document(KIND, &document)),
        _ if is_last => Ok(print::json(KIND, &document)?),
        _ => print::json_line(&print::document(KIND, &document)),
    }
}
