//! Answers from files: no agent, no cluster.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;

use super::args::{Format, Query};
use crate::config;
use crate::model::Snapshot;
use crate::source::manifests;
use crate::state::State;

/// The objects of a directory, seen from a node. What cannot be used is named on standard error.
pub(super) fn load<F: Format>(directory: &Path, query: &Query<F>) -> Result<Snapshot> {
    let loaded = manifests::load(directory)?;
    for rejection in &loaded.rejections {
        let _ = writeln!(io::stderr(), "warning: {rejection}");
    }
    let mut state = State::new("");
    for event in loaded.events {
        state.apply(event);
    }
    let mut snapshot = state.snapshot().clone();
    snapshot.node_name = match &query.node_name {
        Some(name) => name.clone(),
        None => default_node(&snapshot),
    };
    Ok(snapshot)
}

/// This machine if it is one of the nodes, else the first node.
fn default_node(snapshot: &Snapshot) -> String {
    let here = config::node_name(None).ok();
    here.filter(|name| snapshot.nodes.contains_key(name))
        .or_else(|| snapshot.nodes.keys().next().cloned())
        .unwrap_or_default()
}
