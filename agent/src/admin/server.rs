//! Serves the admin socket.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::client::Failure;
use super::evidence::{Evidence, Node};
use super::{Provider, dump, follow, lists};
use crate::explain::{self, Explanation, Question};
use crate::model::Snapshot;
use crate::plan::MemoryMaps;

/// Why the admin socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An agent answers there.
    #[error(
        "an agent already answers on {}: stop it, or give this one another --run-dir", .0.display()
    )]
    InUse(PathBuf),
    /// Something else lies there.
    #[error(
        "{} is no socket: remove it, or give the agent another --run-dir", .0.display()
    )]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Serves until `shutdown` ends, then removes the socket. Only root may connect (mode 0600).
///
/// # Errors
/// When the socket cannot be made, or another agent has it.
pub async fn serve(
    socket: &Path,
    provider: Arc<dyn Provider>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let listener = bind(socket)?;
    // Who follows would keep the agent from ending.
    let end = CancellationToken::new();
    let ending = end.clone();
    let served = axum::serve(listener, router(provider, end))
        .with_graceful_shutdown(async move {
            shutdown.await;
            ending.cancel();
        })
        .await;
    let fail = |action| {
        move |source| ServeError::Io {
            action,
            path: socket.to_owned(),
            source,
        }
    };
    let removed = match fs::remove_file(socket) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    served.map_err(fail("serve"))?;
    removed.map_err(fail("remove"))
}

/// Listens on a socket that only root may connect to (mode 0600), in the place of one that a killed agent left.
///
/// # Errors
/// When the socket cannot be made, or another agent has it.
pub fn bind(socket: &Path) -> Result<UnixListener, ServeError> {
    let fail = |action| {
        move |source| ServeError::Io {
            action,
            path: socket.to_owned(),
            source,
        }
    };
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory).map_err(fail("create the directory of"))?;
    }
    match fs::symlink_metadata(socket) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ServeError::NotASocket(socket.to_owned()));
        }
        // A killed agent leaves its socket behind; nobody accepts on it any more.
        Ok(_) if UnixStream::connect(socket).is_ok() => {
            return Err(ServeError::InUse(socket.to_owned()));
        }
        Ok(_) => fs::remove_file(socket).map_err(fail("remove the stale"))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail("look at")(error)),
    }
    // Bound under another name and renamed once it is closed to others, so that nobody ever finds it open.
    let fresh = socket.with_extension("new");
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(fail("replace")(error));
    }
    let listener = UnixListener::bind(&fresh).map_err(fail("bind"))?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(fail("protect"))?;
    fs::rename(&fresh, socket).map_err(fail("name"))?;
    Ok(listener)
}

type Shared = State<Arc<dyn Provider>>;
type Answer<T> = Result<Json<T>, Refused>;

/// An answer other than 200.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Failure { error: self.1 })).into_response()
    }
}

fn router(provider: Arc<dyn Provider>, end: CancellationToken) -> Router {
    Router::new()
        .route(
            "/v1/status",
            get(async |State(p): Shared| blocking(move || Ok(p.status())).await),
        )
        .route(
            "/v1/objects",
            get(async |State(p): Shared| {
                blocking(move || Ok(p.snapshot().objects().collect::<Vec<_>>())).await
            }),
        )
        .route(
            "/v1/services",
            get(async |State(p): Shared| {
                blocking(move || Ok(lists::services(&p.snapshot()))).await
            }),
        )
        .route(
            "/v1/endpoints",
            get(async |State(p): Shared| blocking(move || Ok(lists::pods(&p.snapshot()))).await),
        )
        .route(
            "/v1/policies",
            get(async |State(p): Shared| {
                blocking(move || Ok(lists::policies(&p.snapshot()))).await
            }),
        )
        .route(
            "/v1/flows",
            get(async |State(p): Shared| {
                blocking(move || {
                    let flows = p.flows().map_err(internal)?;
                    Ok(lists::named_flow_rows(&flows, &p.snapshot()))
                })
                .await
            }),
        )
        .route(
            "/v1/flow-records",
            get(async |State(p): Shared| blocking(move || Ok(p.records())).await),
        )
        .route(
            "/v1/flow-records/follow",
            get({
                let end = end.clone();
                async move |State(p): Shared| follow::records(&*p, end)
            }),
        )
        .route(
            "/v1/top/follow",
            get(async move |State(p): Shared| follow::top(&*p, end)),
        )
        .route(
            "/v1/connections",
            get(async |State(p): Shared| {
                blocking(move || {
                    let tracked = p.flows().map_err(internal)?;
                    Ok(super::connections(&tracked, &p.records(), &p.snapshot()))
                })
                .await
            }),
        )
        .route(
            "/v1/map-dump",
            get(async |State(p): Shared, query: RawQuery| {
                blocking(move || {
                    let maps = p.maps().map_err(internal)?;
                    Ok(
                        if parameter(&query, "canonical").as_deref() == Some("true") {
                            dump::canonical(&maps)
                        } else {
                            dump::raw(&maps)
                        },
                    )
                })
                .await
            }),
        )
        .route(
            "/v1/history",
            get(async |State(p): Shared| blocking(move || Ok(p.history())).await),
        )
        .route(
            "/v1/metrics",
            get(async |State(p): Shared| blocking(move || p.metrics().map_err(internal)).await),
        )
        .route(
            "/v1/hits",
            get(async |State(p): Shared| blocking(move || p.hits().map_err(internal)).await),
        )
        .route(
            "/v1/audit",
            get(async |State(p): Shared| blocking(move || p.audit().map_err(internal)).await),
        )
        .route(
            "/v1/explain",
            get(async |State(p): Shared, query: RawQuery| {
                blocking(move || explain_query(&p.snapshot(), &query)).await
            }),
        )
        .route(
            "/v1/evidence",
            get(async |State(p): Shared, query: RawQuery| {
                blocking(move || evidence_query(&*p, &query)).await
            }),
        )
        .with_state(provider)
}

fn question(query: &RawQuery) -> Result<Question, Refused> {
    let needed = |name: &str| {
        parameter(query, name).ok_or_else(|| refused(format!("parameter {name} is missing")))
    };
    Question::parse(&needed("src")?, &needed("dst")?).map_err(refused)
}

fn explain_query(snapshot: &Snapshot, query: &RawQuery) -> Result<Explanation, Refused> {
    explain::explain(snapshot, &question(query)?).map_err(refused)
}

/// What this node knows about an explanation, which looks as it does from the node `seen-from`: endpoints of Services, for one, differ.
fn evidence_query(provider: &dyn Provider, query: &RawQuery) -> Result<Evidence, Refused> {
    let snapshot = provider.snapshot();
    let mut there = Snapshot::clone(&snapshot);
    if let Some(node) = parameter(query, "seen-from") {
        there.node_name = node;
    }
    let question = question(query)?;
    let explanation = explain::explain(&there, &question).map_err(refused)?;
    let sources = explain::sources(&there, &question).map_err(refused)?;
    let maps = provider.maps().map_err(internal)?;
    let node = Node {
        snapshot: &snapshot,
        generation: provider.status().generation,
        maps: &MemoryMaps::read_back(maps.version, maps.tables),
        records: &provider.records(),
        tracked: &provider.flows().map_err(internal)?,
        programs: &|packet| provider.dry_run(packet),
    };
    Ok(node.evidence(&explanation, sources))
}

/// Large snapshots and map reads take milliseconds: not on the threads that move packets of other requests.
async fn blocking<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map(Json),
        Err(error) => Err(internal(error.to_string())),
    }
}

fn refused(error: impl ToString) -> Refused {
    Refused(StatusCode::BAD_REQUEST, error.to_string())
}

fn internal(error: String) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, error)
}

fn parameter(RawQuery(query): &RawQuery, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
