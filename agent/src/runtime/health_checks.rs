//! Servers at spec.healthCheckNodePort: load balancers ask them whether this node has endpoints of a Service, as they ask kube-proxy.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::health::PATIENCE;
use super::shared::Shared;
use crate::compile::HealthCheck;
use crate::model::Kind;
use crate::state::Rejected;

/// What is to be served, by port.
pub(super) type HealthChecks = Arc<BTreeMap<u16, HealthCheck>>;

/// The weight that a load balancer may give this node.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Reason of the Event, kube-proxy's word for it.
pub(super) const UNANSWERED: &str = "FailedToStartServiceHealthcheck";

/// Pause before a port that somebody else has is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Opens and closes servers as Services come and go, until shutdown. A port that cannot be had is reported and tried again: the other
/// Services are served all the same.
pub(super) async fn serve(
    mut checks: watch::Receiver<HealthChecks>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let healthy = {
        let shared = Arc::clone(&shared);
        move || shared.published().last_sync.is_some() && shared.keeps_up(PATIENCE, Instant::now())
    };
    let mut servers: BTreeMap<u16, DropGuard> = BTreeMap::new();
    loop {
        let wanted = checks.borrow_and_update().clone();
        servers.retain(|port, _| wanted.contains_key(port));
        let mut closed = Vec::new();
        for (&port, check) in &*wanted {
            if servers.contains_key(&port) {
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    let server = Server {
                        port,
                        checks: checks.clone(),
                        healthy: Arc::new(healthy.clone()),
                    };
                    servers.insert(port, server.start(listener, &shutdown));
                }
                Err(error) => closed.push(unanswered(port, check, &error)),
            }
        }
        let missing = !closed.is_empty();
        publish(&shared, closed);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = checks.changed() => if changed.is_err() {
                return Ok(());
            },
            () = tokio::time::sleep(PAUSE), if missing => {}
        }
    }
}

/// A port that somebody else has.
fn unanswered(port: u16, check: &HealthCheck, error: &io::Error) -> Rejected {
    Rejected {
        kind: Kind::Service.as_str(),
        name: check.service.to_string(),
        uid: check.uid.clone(),
        reason: UNANSWERED,
        message: format!(
            "spec.healthCheckNodePort: cannot listen at port {port} of this node: {error}; load balancers take the node for unhealthy: \
             end the process that has the port, or give the Service another one"
        ),
    }
}

/// Publishes what cannot be answered, and logs what could before.
fn publish(shared: &Shared, closed: Vec<Rejected>) {
    let known = shared.published().closed;
    for check in closed.iter().filter(|check| !known.contains(check)) {
        tracing::warn!("Service {}: {}; trying again", check.name, check.message);
    }
    if *known != *closed {
        shared.publish(|published| published.closed = closed.into());
    }
}

/// All addresses of the node, those that it gets later included.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // A node without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
        listening => listening,
    }
}

/// What answers at one port.
#[derive(Clone)]
struct Server {
    port: u16,
    checks: watch::Receiver<HealthChecks>,
    /// Whether the agent keeps up with changes.
    healthy: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Server {
    /// Answers until the guard is dropped.
    fn start(self, listener: TcpListener, shutdown: &CancellationToken) -> DropGuard {
        let stop = shutdown.child_token();
        let stopped = stop.clone().cancelled_owned();
        let port = self.port;
        let router = Router::new().fallback(answer).with_state(self);
        tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
            if let Err(error) = serving.await {
                tracing::warn!("health checks at port {port} are not answered any more: {error}");
            }
        });
        stop.drop_guard()
    }
}

/// In kube-proxy's form, at any path.
async fn answer(State(server): State<Server>) -> Response {
    let check = server.checks.borrow().get(&server.port).cloned();
    match check {
        Some(check) => respond(&check, (server.healthy)()),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn respond(check: &HealthCheck, healthy: bool) -> Response {
    let count = check.local_endpoints;
    let status = if count > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body: Value = json!({
        "service": {"namespace": check.service.namespace, "name": check.service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, count.to_string()),
    ];
    (status, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::model::ObjectName;

    /// Status line and headers in lower case, and the body.
    async fn ask(port: u16) -> io::Result<(String, Value)> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /any/path HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        Ok((
            head.to_lowercase(),
            serde_json::from_str(body).expect("JSON"),
        ))
    }

    fn checks(port: u16, local_endpoints: usize) -> HealthChecks {
        let check = HealthCheck {
            service: ObjectName::new("shop", "web"),
            uid: String::new(),
            local_endpoints,
        };
        Arc::new([(port, check)].into())
    }

    #[tokio::test]
    async fn a_load_balancer_hears_how_many_endpoints_the_node_has() {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, receiver) = watch::channel(checks(port, 2));
        let fine = Arc::new(AtomicBool::new(true));
        let healthy = {
            let fine = Arc::clone(&fine);
            Arc::new(move || fine.load(Ordering::Relaxed))
        };
        let server = Server {
            port,
            checks: receiver,
            healthy,
        };
        let guard = server.start(listener, &CancellationToken::new());

        let (head, body) = ask(port).await.unwrap();
        assert!(head.starts_with("http/1.0 200"), "{head}");
        assert!(
            head.contains("x-load-balancing-endpoint-weight: 2"),
            "{head}"
        );
        assert!(head.contains("content-type: application/json"), "{head}");
        let service = json!({"namespace": "shop", "name": "web"});
        assert_eq!(
            body,
            json!({"service": service, "localEndpoints": 2, "serviceProxyHealthy": true})
        );

        for (count, healthy) in [(0, true), (3, false)] {
            sender.send_replace(checks(port, count));
            fine.store(healthy, Ordering::Relaxed);
            let (head, body) = ask(port).await.unwrap();
            assert!(
                head.starts_with("http/1.0 503"),
                "{count} {healthy}: {head}"
            );
            assert_eq!(body["localEndpoints"], count);
            assert_eq!(body["serviceProxyHealthy"], healthy);
        }

        drop(guard);
        let deadline = Instant::now() + Duration::from_secs(5);
        while ask(port).await.is_ok() {
            assert!(Instant::now() < deadline, "the port is still open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
