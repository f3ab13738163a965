//! `weir service show`, `weir policy show` and `weir matrix`.

use anyhow::{Result, bail};

use super::args::{Format, PictureFormat, Query, Scope};
use super::ask::{ask, ask_as_seen};
use super::command::object;
use super::print::{self, ShownPolicy, ShownService};
use super::{offline, write_out};
use crate::admin::{self, Rejection, ServiceRow, Status};
use crate::explain::policy_details;
use crate::model::{Event, Kind, Object, ObjectName, Snapshot};
use crate::review::{self, PortRange};
use crate::state::State;

pub(super) fn service(name: &ObjectName, query: &Query) -> Result<()> {
    let mut frontends: Vec<ServiceRow> = match &query.manifests {
        Some(directory) => admin::services(&offline::load(directory, query)?),
        None => ask_as_seen(&query.live.whom, None, "/v1/services", &[])?.answer,
    };
    frontends.retain(|row| row.translation.service == *name);
    let rejections = rejections(Kind::Service, name, query)?;
    if frontends.is_empty() && rejections.is_empty() {
        bail!(
            "no Service {name} with a cluster IP is known here; `weir service list -n {}` shows those that are",
            name.namespace
        );
    }
    let shown = ShownService {
        frontends,
        rejections,
    };
    object(query.live.output, "Service", &shown, print::service)
}

pub(super) fn policy(name: &ObjectName, query: &Query) -> Result<()> {
    let kind = match name.namespace.as_str() {
        "" => Kind::ClusterNetworkPolicy,
        _ => Kind::NetworkPolicy,
    };
    let snapshot = objects(query)?;
    let rejections = rejections(kind, name, query)?;
    let Some(details) = policy_details(&snapshot, name) else {
        let skipped = rejections.first();
        let skipped = skipped.map(|it| format!(": it is skipped: {}", it.message));
        bail!(
            "no {} {name} is known here{}",
            kind.as_str(),
            skipped.unwrap_or_else(|| "; `weir policy list` shows those that are".to_owned())
        );
    };
    let shown = ShownPolicy {
        details,
        rejections,
    };
    object(query.live.output, "Policy", &shown, print::policy)
}

pub(super) fn matrix(
    scope: &Scope,
    port: Option<PortRange>,
    query: &Query<PictureFormat>,
) -> Result<()> {
    let snapshot = objects(query)?;
    let matrix = review::matrix(&snapshot, |namespace| scope.holds(namespace), port);
    let text = match query.live.output {
        PictureFormat::Table => print::matrix(&matrix),
        PictureFormat::Json => print::json("Matrix", &matrix)?,
        PictureFormat::Yaml => print::yaml("Matrix", &matrix)?,
        PictureFormat::Html => print::matrix_page(&matrix),
        PictureFormat::Svg => print::matrix_picture(&matrix),
    };
    Ok(write_out(&text)?)
}

/// The objects of files, or those that an agent has.
fn objects<F: Format>(query: &Query<F>) -> Result<Snapshot> {
    match &query.manifests {
        Some(directory) => offline::load(directory, query),
        None => Ok(snapshot(ask(&query.live.whom, "/v1/objects", &[])?)),
    }
}

/// What an agent said of an object that it does not use as it is written. Of files standard error is told.
fn rejections(kind: Kind, name: &ObjectName, query: &Query) -> Result<Vec<Rejection>> {
    if query.manifests.is_some() {
        return Ok(Vec::new());
    }
    let status: Status = ask(&query.live.whom, "/v1/status", &[])?;
    let name = name.to_string();
    let of_it = |it: &Rejection| it.kind == kind.as_str() && it.name == name;
    Ok(status.rejections.into_iter().filter(of_it).collect())
}

/// Objects as one moment of a cluster.
pub(super) fn snapshot(objects: Vec<Object>) -> Snapshot {
    let mut state = State::new("");
    for object in objects {
        state.apply(Event::Applied(object));
    }
    state.snapshot().clone()
}
