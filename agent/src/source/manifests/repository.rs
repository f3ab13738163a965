//! Files as a repository has them, read once for a review.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, btree_map::Entry};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::decode::{self, Found, Reading};
use super::directory::is_manifest;
use super::file::{self, Document};
use super::{ManifestError, outcome};
use crate::model::{Kind, Location, Object, ObjectName};
use crate::source::outcome::Outcome;

/// The node of pods that no scheduler has met yet; no node can be called so.
pub const UNSCHEDULED: &str = "(not scheduled)";

/// Stands for standard input among paths.
const STANDARD_INPUT: &str = "-";

/// What files say.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Every usable object, in order of kind and name. Workloads are pods of their templates, on no node and without addresses.
    pub objects: Vec<Object>,
    /// Where each is written.
    pub locations: BTreeMap<(Kind, ObjectName), Location>,
    /// What could not be used, wholly or in part, in order of place.
    pub refused: Vec<Refused>,
}

/// Something that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it is written.
    pub location: Location,
    /// What it is, and what is wrong with it.
    pub message: String,
}

/// Reads files, the manifests in directories, and standard input where a path is `-`. Hidden files are passed over; `recursive` goes into the
/// directories of a directory, hidden ones excepted. Of an object that is there twice the first counts.
///
/// # Errors
/// If a path cannot be read. Bad documents and objects are no errors: they are in the result.
pub fn read(paths: &[PathBuf], recursive: bool) -> Result<Repository, ManifestError> {
    let mut repository = Repository::default();
    for path in paths {
        if path.as_os_str() == STANDARD_INPUT {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|source| cannot_open(path, source))?;
            repository.take(path, &bytes);
            continue;
        }
        let mut files = Vec::new();
        if path.is_dir() {
            walk(path, recursive, &mut files)?;
        } else {
            files.push(path.clone());
        }
        for file in files {
            let bytes = std::fs::read(&file).map_err(|source| cannot_open(&file, source))?;
            repository.take(&file, &bytes);
        }
    }
    repository.objects.sort_by_cached_key(Object::key);
    repository
        .refused
        .sort_by(|one, other| one.location.cmp(&other.location));
    Ok(repository)
}

fn cannot_open(path: &Path, source: io::Error) -> ManifestError {
    ManifestError::Open {
        path: path.to_owned(),
        source,
    }
}

/// The manifests of a directory, in order of name.
fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), ManifestError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(directory)?;
        let mut paths: Vec<_> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        paths.sort();
        Ok(paths)
    };
    let paths = list().map_err(|source| ManifestError::List {
        path: directory.to_owned(),
        source,
    })?;
    for path in paths {
        // A name that is not UTF-8 cannot be told apart in messages; nobody has one.
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if path.is_dir() {
            // A link to a directory could lead back here.
            if recursive && !name.starts_with('.') && !path.is_symlink() {
                walk(&path, recursive, files)?;
            }
        } else if is_manifest(name) {
            files.push(path);
        }
    }
    Ok(())
}

impl Repository {
    /// Takes in a file. A document that is no object at all does not keep the others from being used.
    fn take(&mut self, file: &Path, bytes: &[u8]) {
        let name = file.to_string_lossy();
        let at = |line| Location {
            file: file.to_owned(),
            line,
        };
        let documents = match file::documents(&name, bytes) {
            Ok(documents) => documents,
            Err(message) => return self.refuse(at(1), format!("the file is not used: {message}")),
        };
        for Document { line, value } in documents {
            let mut found = Vec::new();
            if let Err(message) = decode::objects(value, Reading::Repository, &mut found) {
                self.refuse(at(line), message);
            }
            for object in found {
                self.add(at(line), object);
            }
        }
    }

    fn add(&mut self, location: Location, found: Found) {
        let Found {
            kind,
            name,
            outcome,
        } = found;
        if let Some(message) = outcome
            .report(kind, &name, "")
            .as_ref()
            .and_then(outcome::describe)
        {
            self.refuse(location.clone(), message);
        }
        let Outcome::Used(object, _) = outcome else {
            return;
        };
        let first = match self.locations.entry((kind, name)) {
            Entry::Vacant(entry) => {
                entry.insert(location);
                self.objects.push(*object);
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        let message = format!(
            "{} {} is also at {}, and this copy is not used; keep one",
            kind.as_str(),
            first.key().1,
            first.get()
        );
        self.refuse(location, message);
    }

    fn refuse(&mut self, location: Location, message: String) {
        self.refused.push(Refused { location, message });
    }
}
