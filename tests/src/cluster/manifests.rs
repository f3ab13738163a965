//! A directory of manifests whose files change in one step.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::netns::unique_name;

/// The objects of a text of YAML documents.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(yaml)?)
}

/// A directory that ends with this value.
#[derive(Debug)]
pub(super) struct Manifests {
    root: TempDir,
}

impl Manifests {
    pub(super) fn new() -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix(&unique_name("manifests"))
            .tempdir();
        Ok(Self {
            root: root.context("make a directory for manifests")?,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Readers see the whole old text or the whole new one: agents pass over files that begin with a dot.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let (hidden, path) = (self.path().join(format!(".{file}")), self.path().join(file));
        fs::write(&hidden, text)
            .and_then(|()| fs::rename(&hidden, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    pub(super) fn write_objects(&self, file: &str, objects: &[impl Serialize]) -> Result<()> {
        let mut text = String::new();
        for object in objects {
            text += "---\n";
            // Through a value: fields in the order of their names, none that is unset.
            let object = serde_json::to_value(object)?;
            text += &serde_saphyr::to_string(&object).with_context(|| format!("print {object}"))?;
        }
        self.write(file, &text)
    }

    pub(super) fn remove(&self, file: &str) -> Result<()> {
        let path = self.path().join(file);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }
}
