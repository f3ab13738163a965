//! Hubble's own client.

use std::path::PathBuf;

use anyhow::Result;

use crate::programs::{Module, Part, Set};

const HUBBLE: Module = Module {
    name: "hubble",
    go_mod: include_str!("../tools/hubble/go.mod"),
    pinned: "github.com/cilium/cilium",
    cgo: false,
};

const PROGRAMS: Set = Set {
    name: "hubble",
    parts: &[(
        &HUBBLE,
        Part::Commands(&["github.com/cilium/cilium/hubble"]),
    )],
};

/// The program `hubble`, built first where the cache has none.
///
/// # Errors
/// There is no Go, or it cannot build it.
pub fn client() -> Result<PathBuf> {
    Ok(PROGRAMS.directory()?.join("hubble"))
}
