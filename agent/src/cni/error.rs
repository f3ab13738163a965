//! Errors in the form of the CNI specification.

use std::fmt::Display;

use serde::Serialize;

/// The specification's numbers for what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that the plugin does not know.
    Version = 1,
    /// The container is not known.
    UnknownContainer = 3,
    /// An environment variable is missing or malformed.
    Environment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is no JSON, or of another shape.
    Decode = 6,
    /// The configuration lacks something.
    Config = 7,
    /// The runtime should try again later.
    TryAgain = 11,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    /// What went wrong.
    pub message: &'static str,
    /// With what, and what to do.
    pub details: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    details: &'a str,
}

impl Failure {
    /// A failure with its reason.
    pub fn new(code: Code, message: &'static str, details: impl Display) -> Self {
        Self {
            code,
            message,
            details: details.to_string(),
        }
    }

    /// The error object of the specification, in the version that the runtime speaks.
    #[must_use]
    pub fn to_json(&self, version: &str) -> String {
        let object = Object {
            cni_version: version,
            code: self.code as u32,
            msg: self.message,
            details: &self.details,
        };
        serde_json::to_string(&object).unwrap_or_default()
    }
}
