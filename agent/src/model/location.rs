//! Where an object is written.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where an object is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The file, as it was asked for; `-` is standard input.
    pub file: PathBuf,
    /// Line of the document's first field, from 1.
    pub line: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}
