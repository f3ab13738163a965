//! The files of a directory, what each last held, and what the directory says as a whole.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::decode::{self, Found, Reading};
use super::last_good::LastGood;
use super::{ManifestError, file};
use crate::model::{Event, Kind, Object, ObjectName};
use crate::source::convert;
use crate::source::outcome::Outcome;

type View = BTreeMap<(Kind, ObjectName), Outcome>;

/// A directory as last read.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<String, File>,
    /// What outlives this process, if it is to.
    last_good: Option<LastGood>,
    /// `None` before the first scan.
    view: Option<View>,
}

/// A file as last read.
#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// Objects of the last good content, with their lines.
    found: Vec<(u64, Found)>,
    /// What is wrong with the present content.
    trouble: Option<String>,
}

impl Directory {
    pub(super) fn new(path: &Path, last_good: Option<LastGood>) -> Self {
        Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            last_good,
            view: None,
        }
    }

    /// Reads what has changed and returns the events that tell of it: at first one `Replaced` for each kind.
    ///
    /// # Errors
    /// If the directory cannot be listed; then nothing has changed.
    pub(super) fn scan(&mut self) -> Result<Vec<Event>, ManifestError> {
        let mut events = Vec::new();
        let names = self.list()?;
        let mut changed = false;
        if let Some(last_good) = &mut self.last_good {
            last_good.retain(&names);
        }
        self.files.retain(|name, file| {
            let stays = names.contains(name);
            changed |= !stays;
            if !stays && file.trouble.is_some() {
                events.push(well(name));
            }
            stays
        });
        for name in names {
            changed |= self.read(name, &mut events);
        }

        match &self.view {
            Some(_) if !changed => {}
            Some(old) => {
                let new = self.merge();
                changes(old, &new, &mut events);
                self.view = Some(new);
            }
            None => {
                let new = self.merge();
                events.splice(..0, replaced(&new));
                self.view = Some(new);
            }
        }
        Ok(events)
    }

    fn list(&self) -> Result<BTreeSet<String>, ManifestError> {
        let list = || -> io::Result<_> {
            let mut names = BTreeSet::new();
            for entry in std::fs::read_dir(&self.path)? {
                // A name that is not UTF-8 cannot be told apart in messages; nobody has one.
                if let Ok(name) = entry?.file_name().into_string()
                    && is_manifest(&name)
                {
                    names.insert(name);
                }
            }
            Ok(names)
        };
        list().map_err(|source| ManifestError::List {
            path: self.path.clone(),
            source,
        })
    }

    /// Reads one file; says whether its objects may differ. What cannot be read keeps its last good objects.
    fn read(&mut self, name: String, events: &mut Vec<Event>) -> bool {
        let result = match std::fs::read(self.path.join(&name)) {
            Ok(bytes) => {
                if self
                    .files
                    .get(&name)
                    .is_some_and(|file| file.bytes == bytes)
                {
                    return false;
                }
                let result = parse(&name, &bytes);
                if let (Ok(_), Some(last_good)) = (&result, &mut self.last_good) {
                    last_good.keep(&name, &bytes);
                }
                self.files.entry(name.clone()).or_default().bytes = bytes;
                result
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.files.remove(&name).is_some();
            }
            Err(error) => {
                let file = self.files.entry(name.clone()).or_default();
                // Whatever is read next is news.
                file.bytes.clear();
                Err(format!("cannot read it: {error}"))
            }
        };
        let file = self.files.entry(name.clone()).or_default();
        match result {
            Ok(found) => {
                if file.trouble.take().is_some() {
                    events.push(well(&name));
                }
                file.found = found;
                true
            }
            Err(mut message) => {
                let recalled = match (&self.last_good, file.found.is_empty()) {
                    (Some(last_good), true) => last_good.recall(&name),
                    _ => None,
                };
                let recalled = recalled.and_then(|bytes| parse(&name, &bytes).ok());
                let changed = recalled.is_some();
                file.found.extend(recalled.into_iter().flatten());
                if !file.found.is_empty() {
                    message += "; its last good content stays";
                }
                if file.trouble.as_ref() != Some(&message) {
                    file.trouble = Some(message.clone());
                    events.push(Event::File {
                        name,
                        message: Some(message),
                    });
                }
                changed
            }
        }
    }

    /// What all files say together. Of an object in several files, the first file counts.
    fn merge(&self) -> View {
        let mut view = View::new();
        for (file_name, file) in &self.files {
            for (line, found) in &file.found {
                let place = format!("{file_name}, line {line}");
                match view.entry((found.kind, found.name.clone())) {
                    Entry::Vacant(entry) => {
                        entry.insert(found.outcome.clone().at(&place));
                    }
                    Entry::Occupied(mut entry) => entry.get_mut().note(&format!(
                        "it is also in {place}, and that copy is not used; keep one"
                    )),
                }
            }
        }
        add_namespaces(&mut view);
        view
    }
}

/// An API server takes no object without its namespace, so a namespace that is only mentioned exists too.
fn add_namespaces(view: &mut View) {
    let mentioned: BTreeSet<String> = view
        .iter()
        .filter(|((_, name), outcome)| {
            !name.namespace.is_empty() && matches!(outcome, Outcome::Used(..))
        })
        .map(|((_, name), _)| name.namespace.clone())
        .collect();
    for name in mentioned {
        view.entry((Kind::Namespace, ObjectName::cluster(&name)))
            .or_insert_with(|| {
                let metadata = ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                };
                Outcome::of(convert::namespace(api::Namespace {
                    metadata,
                    ..api::Namespace::default()
                }))
            });
    }
}

pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The objects of a file as a cluster has them, each with the line of its document.
fn parse(name: &str, bytes: &[u8]) -> Result<Vec<(u64, Found)>, String> {
    let mut all = Vec::new();
    for document in file::documents(name, bytes)? {
        let mut found = Vec::new();
        decode::objects(document.value, Reading::Cluster, &mut found)
            .map_err(|message| format!("line {}: {message}", document.line))?;
        all.extend(found.into_iter().map(|found| (document.line, found)));
    }
    Ok(all)
}

/// There is no API server that would have given one.
const NO_UID: &str = "";

fn well(name: &str) -> Event {
    Event::File {
        name: name.to_owned(),
        message: None,
    }
}

fn replaced(view: &View) -> Vec<Event> {
    let mut events: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let objects = view
                .iter()
                .filter_map(|((of, _), outcome)| match outcome {
                    Outcome::Used(object, _) if *of == kind => Some(Object::clone(object)),
                    _ => None,
                })
                .collect();
            Event::Replaced(kind, objects)
        })
        .collect();
    events.extend(
        view.iter()
            .filter_map(|((kind, name), outcome)| outcome.report(*kind, name, NO_UID)),
    );
    events
}

fn changes(old: &View, new: &View, events: &mut Vec<Event>) {
    for (kind, name) in old.keys().filter(|key| !new.contains_key(key)) {
        events.push(Event::Deleted(*kind, name.clone()));
    }
    for ((kind, name), outcome) in new {
        match old.get(&(*kind, name.clone())) {
            Some(old) if old == outcome => {}
            None if *outcome == Outcome::NotOurs => {}
            _ => events.extend(outcome.events(*kind, name, NO_UID)),
        }
    }
}
