//! Answers as text: tables in kubectl's look, and JSON.

mod audit;
mod coverage;
mod details;
mod doctor;
mod evidence;
mod explain;
mod history;
mod lists;
mod matrix;
mod nodes;
mod records;
mod review;
mod sarif;
mod table;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use audit::{NodeAudit, audit, audits};
pub use coverage::coverage;
pub use details::{ShownPolicy, ShownService, policy, service};
pub use doctor::findings;
pub use explain::{Explained, explanation, fixes};
pub use history::history;
pub use lists::{flows, pods, policies, services};
pub use matrix::{matrix, matrix_page, matrix_picture};
pub use nodes::{NodeStatus, nodes};
pub use records::{flow_line, flow_records};
pub use review::{lint, review, review_markdown};
pub use sarif::sarif;
pub use table::Table;
pub use tables::{map_dump, status, version};
pub use takeover::takeover;

/// Version of every JSON answer: fields are only added under it.
const API_VERSION: &str = "weir/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'a str,
    kind: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

/// A list as JSON has it.
#[derive(Serialize)]
pub struct Items<'a, T> {
    /// Its items.
    pub items: &'a [T],
}

/// Answer of `weir version`.
#[derive(Serialize)]
pub struct Version {
    /// Version of this binary.
    pub version: &'static str,
    /// Layout of the maps that it reads and writes.
    pub layout: u32,
}

impl Version {
    /// That of this binary.
    #[must_use]
    pub const fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            layout: weir_common::abi::LAYOUT,
        }
    }
}

/// A value as one line of JSON.
///
/// # Errors
/// Never for the answers of this crate: they are plain structs.
pub fn json_line<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(value)?))
}

/// A value as one of many YAML documents.
///
/// # Errors
/// Never for the answers of this crate.
pub fn yaml_document<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(format!("---\n{}", serde_saphyr::to_string(value)?))
}

/// An answer as JSON, with apiVersion and kind.
///
/// # Errors
/// Never for the answers of this crate: they are plain structs.
pub fn json<T: Serialize>(kind: &str, content: &T) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&document(kind, content))?;
    text.push('\n');
    Ok(text)
}

/// The same as YAML.
///
/// # Errors
/// Never for the answers of this crate.
pub fn yaml<T: Serialize>(kind: &str, content: &T) -> anyhow::Result<String> {
    // By way of JSON's values: names, numbers and order are the same in both.
    let value = serde_json::to_value(document(kind, content))?;
    Ok(serde_saphyr::to_string(&value)?)
}

pub(super) fn document<'a, T: Serialize>(
    kind: &'a str,
    content: &'a T,
) -> impl Serialize + use<'a, T> {
    Document {
        api_version: API_VERSION,
        kind,
        content,
    }
}
