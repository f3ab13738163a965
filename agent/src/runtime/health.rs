//! Health and metrics over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::RunError;
use super::shared::{Published, Shared};
use crate::metrics;
use crate::model::Kind;

/// Longest that a change may wait for the kernel (twice kube-proxy's sync period).
const PATIENCE: Duration = Duration::from_secs(60);

/// Binds an address for a server.
pub(super) async fn bind(
    option: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen {
            option,
            address,
            source,
        })
}

/// Serves /healthz, /livez and /readyz.
pub(super) async fn serve_health(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(shared);
    serve(listener, router, shutdown).await
}

/// Serves /metrics.
pub(super) async fn serve_metrics(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .with_state(shared);
    serve(listener, router, shutdown).await
}

async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// Answer of /healthz and /livez, in kube-proxy's form (KEP-3836).
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
}

impl Health {
    /// `keeps_up` says that no change waits too long; a node that is not eligible is unhealthy to load balancers only.
    fn new(
        published: &Published,
        keeps_up: bool,
        node_eligible: Option<bool>,
        now: Timestamp,
    ) -> Self {
        let healthy = keeps_up && node_eligible != Some(false);
        let last_sync = published.last_sync.map(|moment| moment.timestamp);
        Self {
            last_updated: if keeps_up {
                now
            } else {
                last_sync.unwrap_or(Timestamp::UNIX_EPOCH)
            },
            current_time: now,
            node_eligible,
            healthy,
        }
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let status = if self.healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(self)).into_response()
    }
}

/// For load balancers: whether this node is fit for new connections.
async fn healthz(State(shared): State<Arc<Shared>>) -> Health {
    let published = shared.published();
    let eligible = published.snapshot.nodes.contains_key(&shared.node);
    let keeps_up = published.last_sync.is_some() && shared.keeps_up(PATIENCE, Instant::now());
    Health::new(&published, keeps_up, Some(eligible), Timestamp::now())
}

/// For the kubelet: whether a restart may help. A node that drains, or an API server that is away, is no reason.
async fn livez(State(shared): State<Arc<Shared>>) -> Health {
    let keeps_up = shared.keeps_up(PATIENCE, Instant::now());
    Health::new(&shared.published(), keeps_up, None, Timestamp::now())
}

/// For rolling updates: whether this node does what the API says.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let missing = missing(&shared.published());
    if missing.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        let text = format!("not ready: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// What is missing before the node does what the API says.
fn missing(published: &Published) -> Vec<String> {
    let mut missing: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| !published.listed.contains(kind))
        .map(|kind| format!("{} is not listed yet", kind.as_str()))
        .collect();
    if published.last_sync.is_none() {
        missing.push("the kernel has not been brought in line yet".to_owned());
    }
    let without: Vec<_> = published
        .snapshot
        .devices
        .devices
        .values()
        .filter(|device| !published.attached.contains(&device.ifindex))
        .map(|device| format!("device {} has no programs", device.name))
        .collect();
    missing.extend(without);
    missing
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    let tally = Arc::clone(&shared.tally);
    let sample = tokio::task::spawn_blocking(move || shared.sample()).await;
    let failure = match sample {
        Ok(Ok(sample)) => {
            let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
            return (kind, metrics::encode(sample, &tally)).into_response();
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    (StatusCode::INTERNAL_SERVER_ERROR, failure).into_response()
}
