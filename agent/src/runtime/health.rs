//! Health and metrics over HTTP.

use std::io::ErrorKind;
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
use crate::metrics::{self, Asked};
use crate::model::Kind;

/// Longest that a change may wait for the kernel (twice kube-proxy's sync period).
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Answer of /proxyMode, where kube-proxy names what it writes its rules with: iptables, ipvs, nftables or kernelspace. Whoever asks
/// wants to know whether one of those rules its node; none does.
const PROXY_MODE: &str = "ebpf";

/// Binds an address for a server. A killed agent that is just ending still has it for a moment.
pub(super) async fn bind(
    option: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, RunError> {
    const TRIES: u32 = 20;
    let mut tries = 0;
    loop {
        tries += 1;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < TRIES => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(source) => {
                return Err(RunError::Listen {
                    option,
                    address,
                    source,
                });
            }
        }
    }
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

/// Serves /metrics and /proxyMode.
pub(super) async fn serve_metrics(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/proxyMode", get(async || PROXY_MODE))
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

impl Health {
    fn status(&self) -> StatusCode {
        if self.healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }

    /// Itself, as an answer that is given.
    fn counted(self, shared: &Shared, asked: Asked) -> Self {
        let code = self.status().as_u16();
        shared.tally.proxy(|proxy| proxy.answered(asked, code));
        self
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        (self.status(), Json(self)).into_response()
    }
}

/// For load balancers: whether this node is fit for new connections.
async fn healthz(State(shared): State<Arc<Shared>>) -> Health {
    let published = shared.published();
    let node = published.snapshot.nodes.get(&shared.node);
    let eligible = node.is_some_and(|node| !node.leaving);
    let keeps_up = published.last_sync.is_some() && shared.keeps_up(PATIENCE, Instant::now());
    let health = Health::new(&published, keeps_up, Some(eligible), Timestamp::now());
    health.counted(&shared, Asked::Healthz)
}

/// For the kubelet: whether a restart may help. A node that drains, an API server that is away, a Service that is too large or a
/// device that refuses programs is no reason.
async fn livez(State(shared): State<Arc<Shared>>) -> Health {
    let alive = shared.is_alive(PATIENCE, Instant::now());
    let health = Health::new(&shared.published(), alive, None, Timestamp::now());
    health.counted(&shared, Asked::Livez)
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
    let nets = published.snapshot.devices.nets.iter();
    let nets = nets.filter(|(ifindex, _)| !published.attached_nets.contains(ifindex));
    missing.extend(nets.map(|(_, net)| format!("device {} has no programs", net.name)));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::shared::Moment;
    use super::*;
    use crate::model::{DeviceFacts, NetDevice, PodDevice, Snapshot};

    #[test]
    fn health_follows_the_contract_of_kube_proxy() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let published = Published {
            last_sync: Some(Moment {
                timestamp: "2026-01-02T03:00:00Z".parse().unwrap(),
                instant: Instant::now(),
            }),
            ..Published::default()
        };
        for (keeps_up, eligible, status, text) in [
            (
                true,
                Some(true),
                200,
                r#"{"lastUpdated":"2026-01-02T03:04:05Z","currentTime":"2026-01-02T03:04:05Z","nodeEligible":true,"healthy":true}"#,
            ),
            (
                true,
                Some(false),
                503,
                r#"{"lastUpdated":"2026-01-02T03:04:05Z","currentTime":"2026-01-02T03:04:05Z","nodeEligible":false,"healthy":false}"#,
            ),
            (
                false,
                None,
                503,
                r#"{"lastUpdated":"2026-01-02T03:00:00Z","currentTime":"2026-01-02T03:04:05Z","healthy":false}"#,
            ),
            (
                true,
                None,
                200,
                r#"{"lastUpdated":"2026-01-02T03:04:05Z","currentTime":"2026-01-02T03:04:05Z","healthy":true}"#,
            ),
        ] {
            let health = Health::new(&published, keeps_up, eligible, now);
            assert_eq!(serde_json::to_string(&health).unwrap(), text);
            assert_eq!(health.into_response().status().as_u16(), status);
        }
    }

    #[test]
    fn ready_means_listed_synced_and_attached() {
        let mut published = Published::default();
        assert_eq!(missing(&published).len(), Kind::ALL.len() + 1);
        published.listed = Kind::ALL.into();
        published.last_sync = Some(Moment::now());
        assert!(missing(&published).is_empty());
        let device = PodDevice {
            ifindex: 7,
            name: "veth7".to_owned(),
        };
        published.snapshot = Arc::new(Snapshot {
            devices: DeviceFacts {
                devices: [([10, 0, 0, 1].into(), device)].into(),
                ..DeviceFacts::default()
            },
            ..Snapshot::default()
        });
        assert_eq!(missing(&published), ["device veth7 has no programs"]);
        published.attached.insert(7);
        assert!(missing(&published).is_empty());
        let uplink = NetDevice {
            name: "eth0".to_owned(),
            ..NetDevice::default()
        };
        published.snapshot = Arc::new(Snapshot {
            devices: DeviceFacts {
                nets: [(2, uplink)].into(),
                ..DeviceFacts::default()
            },
            ..Snapshot::default()
        });
        assert_eq!(missing(&published), ["device eth0 has no programs"]);
        published.attached_nets.insert(2);
        assert!(missing(&published).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_option() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--healthz-address", address).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(
            text.contains("give another address with --healthz-address"),
            "{text}"
        );
        // One that becomes free is taken.
        let waiting = tokio::spawn(bind("--healthz-address", address));
        drop(taken);
        assert_eq!(
            waiting.await.unwrap().unwrap().local_addr().unwrap(),
            address
        );
    }
}
