//! What the guards of a review found, as SARIF 2.1.0 (OASIS), for code scanning.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::model::Location;
use crate::review::{Finding, Guard, Review};

/// What a path may hold and a URI may not (RFC 3986).
const NOT_IN_URIS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

#[derive(Serialize)]
struct Run<'a> {
    tool: Tool,
    results: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Text<'static>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    rule_id: &'static str,
    level: &'static str,
    message: Text<'a>,
    locations: Vec<Placed>,
}

#[derive(Serialize)]
struct Text<'a> {
    text: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    physical_location: Physical,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: Artifact,
    region: Region,
}

#[derive(Serialize)]
struct Artifact {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u64,
}

/// `weir check -o sarif`.
///
/// # Errors
/// Never: they are plain structs.
pub fn sarif(answer: &Review) -> serde_json::Result<String> {
    let rules = Guard::ALL.map(|guard| Rule {
        id: guard.as_str(),
        short_description: Text {
            text: guard.describe().into(),
        },
    });
    let log = Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "weir",
                    version: env!("CARGO_PKG_VERSION"),
                    rules: rules.into(),
                },
            },
            results: answer.findings.iter().map(found).collect(),
        }],
    };
    let mut text = serde_json::to_string_pretty(&log)?;
    text.push('\n');
    Ok(text)
}

fn found(finding: &Finding) -> Found<'_> {
    Found {
        rule_id: finding.guard.as_str(),
        level: "error",
        message: Text {
            text: format!("{}; {}", finding.message, finding.hint).into(),
        },
        locations: finding.locations.iter().map(placed).collect(),
    }
}

fn placed(location: &Location) -> Placed {
    // A path that begins with ./ is another file to code scanning.
    let path = location.file.strip_prefix(".").unwrap_or(&location.file);
    Placed {
        physical_location: Physical {
            artifact_location: Artifact {
                uri: utf8_percent_encode(&path.to_string_lossy(), NOT_IN_URIS).to_string(),
            },
            region: Region {
                start_line: location.line,
            },
        },
    }
}
