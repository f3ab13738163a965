//! Lists, and what becomes of them while they are watched.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::args::{Headers, ListFormat, Listing, LiveQuery, OutputFormat, Query};
use super::ask::{ask, ask_all, ask_as_seen, ask_node};
use super::command::object;
use super::print::{self, NodeStatus, Table};
use super::{offline, write_on};
use crate::admin::{self, FlowRow, PodRow, PolicyRow, ServiceRow, Status};
use crate::model::Snapshot;

/// How often a list that is watched is asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// How a kind of list is shown.
struct List<T> {
    /// Kind of the JSON document.
    kind: &'static str,
    /// As a table, wide or not.
    table: fn(&[T], bool) -> Table,
    /// What tells a row from all others of one moment.
    key: fn(&T) -> String,
}

/// How a list is asked for.
#[derive(Clone, Copy)]
struct Shown {
    /// Go on with what changes.
    watch: bool,
    headers: Headers,
    output: ListFormat,
}

impl Shown {
    const fn of(listing: &Listing, query: &Query<ListFormat>) -> Self {
        Self {
            watch: listing.watch,
            headers: listing.headers,
            output: query.live.output,
        }
    }
}

/// The rows of a moment.
struct Asked<T> {
    rows: Vec<T>,
    /// Why some are missing.
    complete: Result<()>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Happened {
    Added,
    Modified,
    Deleted,
}

impl Happened {
    /// The API's word for it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A row that is not what it was, as JSON has it: as a watch of the API.
#[derive(Serialize)]
struct Changed<'c, T> {
    #[serde(rename = "type")]
    happened: Happened,
    object: &'c T,
}

pub(super) fn status(watch: bool, headers: Headers, query: &Query) -> Result<()> {
    if query.manifests.is_some() {
        bail!("status is that of a running agent: leave --manifests out");
    }
    let (whom, output) = (&query.live.whom, query.live.output);
    if !watch && !whom.is_of_all() {
        let status: Status = ask(whom, "/v1/status", &[])?;
        return object(output, "Status", &status, print::status);
    }
    let list = List {
        kind: "StatusList",
        table: |rows, _| print::nodes(rows),
        key: |row: &NodeStatus| row.node.clone(),
    };
    let shown = Shown {
        watch,
        headers,
        output: output.into(),
    };
    show(&list, shown, || {
        let mut answers = ask_all::<Status>(whom, "/v1/status", &[])?;
        let given = answers.given.iter_mut();
        let given = given.map(|(_, status)| std::mem::take(status));
        let mut rows: Vec<_> = given
            .map(|status| NodeStatus {
                node: status.node.clone(),
                status: Some(status),
                error: None,
            })
            .collect();
        rows.extend(answers.missing.iter().map(|(node, error)| NodeStatus {
            node: node.clone(),
            status: None,
            error: Some(error.to_string()),
        }));
        rows.sort_by(|a, b| a.node.cmp(&b.node));
        // Whoever watches sees in the line of a node why it says nothing.
        let complete = if watch { Ok(()) } else { answers.complete() };
        Ok(Asked { rows, complete })
    })
}

pub(super) fn services(listing: &Listing, query: &Query<ListFormat>) -> Result<()> {
    let list = List {
        kind: "ServiceList",
        table: print::services,
        key: |row: &ServiceRow| {
            let it = &row.translation;
            format!(
                "{} {} {} {} {:?}",
                it.service, it.address, it.port, it.protocol, it.clients
            )
        },
    };
    let mut rows = of_one_view(query, admin::services, "/v1/services");
    show(&list, Shown::of(listing, query), || {
        let mut rows = rows()?;
        rows.retain(|row| {
            listing.scope.holds(&row.translation.service.namespace)
                && listing.selector.matches(&row.labels)
        });
        Ok(Asked::of_all(rows))
    })
}

pub(super) fn endpoints(listing: &Listing, query: &Query<ListFormat>) -> Result<()> {
    let list = List {
        kind: "EndpointList",
        table: print::pods,
        key: |row: &PodRow| format!("{} {:?} {}", row.pod, row.addresses, row.unknown),
    };
    show(&list, Shown::of(listing, query), || {
        let mut asked = match &query.manifests {
            Some(directory) => Asked::of_all(admin::pods(&offline::load(directory, query)?)),
            None => {
                let mut answers = ask_all::<Vec<PodRow>>(&query.live.whom, "/v1/endpoints", &[])?;
                let rows = answers.given.iter_mut();
                Asked {
                    rows: rows.flat_map(|(_, rows)| std::mem::take(rows)).collect(),
                    complete: answers.complete(),
                }
            }
        };
        asked.rows.retain(|row| {
            listing.scope.holds(&row.pod.namespace) && listing.selector.matches(&row.labels)
        });
        Ok(asked)
    })
}

pub(super) fn policies(listing: &Listing, query: &Query<ListFormat>) -> Result<()> {
    let list = List {
        kind: "PolicyList",
        table: print::policies,
        key: |row: &PolicyRow| format!("{} {}", row.tier.as_str(), row.policy),
    };
    let mut rows = of_one_view(query, admin::policies, "/v1/policies");
    show(&list, Shown::of(listing, query), || {
        let mut rows = rows()?;
        rows.retain(|row| {
            listing.scope.holds(&row.policy.namespace) && listing.selector.matches(&row.labels)
        });
        Ok(Asked::of_all(rows))
    })
}

pub(super) fn connections(
    watch: bool,
    headers: Headers,
    query: &LiveQuery<ListFormat>,
) -> Result<()> {
    let list = List {
        kind: "FlowList",
        table: print::flows,
        key: |row: &FlowRow| {
            let source = (row.source, row.source_port);
            let destination = (row.destination, row.destination_port);
            format!("{} {source:?} {destination:?}", row.protocol)
        },
    };
    let shown = Shown {
        watch,
        headers,
        output: query.output,
    };
    show(&list, shown, || {
        Ok(Asked::of_all(ask_node(&query.whom, "/v1/flows", &[])?))
    })
}

/// What looks different from each node, always from the same one.
fn of_one_view<T: serde::de::DeserializeOwned>(
    query: &Query<ListFormat>,
    of: fn(&Snapshot) -> Vec<T>,
    path: &'static str,
) -> impl FnMut() -> Result<Vec<T>> {
    let mut whom = query.live.whom.clone();
    move || match &query.manifests {
        Some(directory) => Ok(of(&offline::load(directory, query)?)),
        None => {
            let seen = ask_as_seen(&whom, None, path, &[])?;
            whom.cluster.node = seen.from;
            Ok(seen.answer)
        }
    }
}

impl<T> Asked<T> {
    fn of_all(rows: Vec<T>) -> Self {
        Self {
            rows,
            complete: Ok(()),
        }
    }
}

/// Shows a list, once or until nobody reads on.
fn show<T: Serialize + PartialEq>(
    list: &List<T>,
    shown: Shown,
    mut rows: impl FnMut() -> Result<Asked<T>>,
) -> Result<()> {
    let first = rows()?;
    let Shown {
        watch,
        headers,
        output,
    } = shown;
    if !watch {
        let items = print::Items { items: &first.rows };
        object(output.plain(), list.kind, &items, |items| {
            let table = (list.table)(items.items, output == ListFormat::Wide);
            headers.of(table).to_string()
        })?;
        return first.complete;
    }
    first.complete?;
    let mut now = first.rows;
    let how = (headers, output);
    let mut going_on = write_on(&list.begin(&now, how)?)?;
    let mut complaint = String::new();
    while going_on {
        sleep(AGAIN);
        // Rows of who does not answer are not deleted: the next round knows more.
        let asked = rows().and_then(|asked| asked.complete.map(|()| asked.rows));
        let next = match asked {
            Ok(next) => next,
            Err(error) => {
                let error = error.to_string();
                if error != complaint {
                    eprintln!("{error}; asking again");
                    complaint = error;
                }
                continue;
            }
        };
        complaint.clear();
        let changed = changes(&now, &next, list.key);
        going_on = write_on(&list.lines(&changed, &now, how)?)?;
        now = next;
    }
    Ok(())
}

impl<T: Serialize> List<T> {
    /// What a watch begins with: all rows that there are, each as one that was added.
    fn begin(&self, rows: &[T], how: (Headers, ListFormat)) -> Result<String> {
        if how.1.plain() == OutputFormat::Table {
            return Ok(self.marked(rows, Happened::Added, how).to_string());
        }
        let rows = rows.iter().map(|row| (Happened::Added, row));
        self.lines(&rows.collect::<Vec<_>>(), &[], how)
    }

    /// Rows that changed, under those that were there.
    fn lines(
        &self,
        changed: &[(Happened, &T)],
        before: &[T],
        how: (Headers, ListFormat),
    ) -> Result<String> {
        let above = self.marked(before, Happened::Added, how);
        let line = |&(happened, object): &(Happened, &T)| match how.1.plain() {
            OutputFormat::Table => {
                let row = self.marked(std::slice::from_ref(object), happened, how);
                Ok(row.below(&above))
            }
            OutputFormat::Json => print::json_line(&Changed { happened, object }),
            OutputFormat::Yaml => print::yaml_document(&Changed { happened, object }),
        };
        changed.iter().map(line).collect()
    }

    /// A table that says what happened to its rows.
    fn marked(
        &self,
        rows: &[T],
        happened: Happened,
        (headers, output): (Headers, ListFormat),
    ) -> Table {
        let table = (self.table)(rows, output == ListFormat::Wide);
        // As wide as the longest word, so that lines that come stay in their columns.
        let word = format!("{:<8}", happened.as_str());
        headers.of(table.marked("EVENT", &word))
    }
}

/// What differs between two moments: what is gone, then in the order of the list what is new or not what it was.
fn changes<'r, T: PartialEq>(
    before: &'r [T],
    now: &'r [T],
    key: fn(&T) -> String,
) -> Vec<(Happened, &'r T)> {
    let was: BTreeMap<String, &T> = before.iter().map(|row| (key(row), row)).collect();
    let is: BTreeMap<String, &T> = now.iter().map(|row| (key(row), row)).collect();
    let gone = before.iter().filter(|row| !is.contains_key(&key(row)));
    let gone = gone.map(|row| (Happened::Deleted, row));
    let come = now.iter().filter_map(|row| match was.get(&key(row)) {
        None => Some((Happened::Added, row)),
        Some(was) if *was != row => Some((Happened::Modified, row)),
        Some(_) => None,
    });
    gone.chain(come).collect()
}
