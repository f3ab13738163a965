//! Answers as text: tables in kubectl's look, and JSON.

mod audit;
mod doctor;
mod explain;
mod records;
mod review;
mod sarif;
mod table;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use audit::audit;
pub use doctor::findings;
pub use explain::{explanation, fixes};
pub use records::flow_records;
pub use review::{review, review_markdown};
pub use sarif::sarif;
pub use tables::{flows, map_dump, pods, policies, services, status, version};
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

/// An answer as JSON, with apiVersion and kind.
///
/// # Errors
/// Never for the answers of this crate: they are plain structs.
pub fn json<T: Serialize>(kind: &str, content: &T) -> serde_json::Result<String> {
    let document = Document {
        api_version: API_VERSION,
        kind,
        content,
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}
