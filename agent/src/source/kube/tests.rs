//! The source against a small API server on loopback.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use kube::Config;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::*;
use crate::model::ObjectName;
use crate::state::State;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what follows at once.
const SILENCE: Duration = Duration::from_millis(300);
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const TIERS: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
const SERVICES: &str = "/api/v1/services";

/// Speaks as much of the API's list and watch as a client sees.
#[derive(Clone)]
struct Server {
    lists: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    /// Path and line for those who watch it; `None` hangs up on all.
    watches: broadcast::Sender<Option<(String, Value)>>,
    streaming: bool,
    /// A path that is out of reach, and how it says so.
    unknown: Arc<Mutex<Option<(&'static str, StatusCode)>>>,
    /// How often it has said so.
    refusals: Arc<AtomicUsize>,
    down: Arc<Mutex<bool>>,
}

impl Server {
    async fn start(streaming: bool) -> (Self, Client) {
        let server = Self {
            lists: Arc::default(),
            watches: broadcast::Sender::new(64),
            streaming,
            unknown: Arc::default(),
            refusals: Arc::default(),
            down: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let handler = server.clone();
        let router = axum::Router::new().fallback(move |uri: Uri| {
            let server = handler.clone();
            async move { server.answer(&uri) }
        });
        tokio::spawn(axum::serve(listener, router).into_future());
        let mut config = Config::new(url.parse().expect("a URL"));
        config.default_retry = false;
        (server, Client::try_from(config).expect("a client"))
    }

    fn answer(&self, uri: &Uri) -> Response {
        if *self.down.lock().unwrap() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if let Some((path, status)) = *self.unknown.lock().unwrap()
            && path == uri.path()
        {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return (status, "out of reach\n").into_response();
        }
        let query = uri.query().unwrap_or_default();
        let items = self
            .lists
            .lock()
            .unwrap()
            .get(uri.path())
            .cloned()
            .unwrap_or_default();
        if !query.contains("watch=true") {
            let list = json!({
                "kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": "10"}, "items": items,
            });
            return axum::Json(list).into_response();
        }
        let mut first = Vec::new();
        if query.contains("sendInitialEvents=true") {
            if !self.streaming {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422,
                    "message": "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                });
                return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(status)).into_response();
            }
            first.extend(items.into_iter().map(|item| watch_event("ADDED", item)));
            first.push(watch_event(
                "BOOKMARK",
                json!({"kind": "Service", "apiVersion": "v1", "metadata": {
                    "resourceVersion": "10", "annotations": {"k8s.io/initial-events-end": "true"}}}),
            ));
        }
        let path = uri.path().to_owned();
        let live = stream::unfold(self.watches.subscribe(), move |mut lines| {
            let path = path.clone();
            async move {
                loop {
                    match lines.recv().await {
                        Ok(Some((of, line))) if of == path => return Some((line, lines)),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return None,
                    }
                }
            }
        });
        let lines = stream::iter(first)
            .chain(live)
            .map(|line| Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n"))));
        Body::from_stream(lines).into_response()
    }

    fn list(&self, path: &str, items: Vec<Value>) {
        self.lists.lock().unwrap().insert(path.to_owned(), items);
    }

    fn tell(&self, change: &str, object: Value) {
        let line = watch_event(change, object);
        let _ = self.watches.send(Some((SERVICES.to_owned(), line)));
    }

    /// Waits until somebody watches every kind, so that no event is told to the wall.
    async fn watched(&self) {
        let all = async {
            while self.watches.receiver_count() < Kind::ALL.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("watches in time");
    }
}

fn watch_event(change: &str, object: Value) -> Value {
    json!({"type": change, "object": object})
}

fn service(name: &str, port: Value) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "n", "resourceVersion": "11"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": port}]},
    })
}

/// A running source and what it has told so far.
struct Followed {
    events: mpsc::Receiver<Event>,
    state: State,
    states: watch::Receiver<WatchStates>,
    shutdown: CancellationToken,
}

impl Followed {
    fn start(client: Client) -> Self {
        Self::run(KubeSource::new(client))
    }

    /// One that does not wait for a server to forbid a kind no more.
    fn start_impatient(client: Client) -> Self {
        Self::run(KubeSource {
            forbidden: Duration::ZERO,
            ..KubeSource::new(client)
        })
    }

    fn run(source: KubeSource) -> Self {
        let (sender, events) = mpsc::channel(64);
        let states = source.states();
        let shutdown = CancellationToken::new();
        tokio::spawn(source.run(sender, shutdown.clone()));
        Self {
            events,
            state: State::new("node-a"),
            states,
            shutdown,
        }
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&State) -> bool) {
        let follow = async {
            while !reached(&self.state) {
                let event = self.events.recv().await.expect("the source runs");
                self.state.apply(event);
            }
        };
        timeout(PATIENCE, follow).await.expect(what);
    }

    /// Waits until a watch has failed.
    async fn fails(&mut self, kind: Kind) {
        let errors = |watches: &WatchStates| watches[&kind].errors > 0;
        let failed = self.states.wait_for(errors);
        timeout(PATIENCE, failed)
            .await
            .expect("an error")
            .expect("a source");
    }
}

fn port(state: &State, name: &str) -> Option<u16> {
    let service = state.snapshot().services.get(&ObjectName::new("n", name))?;
    Some(service.ports[0].port)
}

async fn lists_changes_and_bad_objects(streaming: bool) {
    let (server, client) = Server::start(streaming).await;
    server.list(
        SERVICES,
        vec![
            service("a", json!(80)),
            service("misshapen", json!("http")),
            service("bad", json!(0)),
        ],
    );
    server.list(
        "/api/v1/nodes",
        vec![json!({"metadata": {"name": "node-a", "resourceVersion": "3"}})],
    );
    let mut followed = Followed::start(client);
    followed
        .until("lists", |state| {
            state.synced() && state.rejections().len() == 2
        })
        .await;
    assert_eq!(port(&followed.state, "a"), Some(80));
    assert!(followed.state.snapshot().nodes.contains_key("node-a"));
    let told = followed.state.rejections();
    assert_eq!(
        told[0].message,
        "spec.ports[0].port: 0 is not a port; use 1 to 65535"
    );
    assert!(
        told[1]
            .message
            .starts_with("cannot be read as v1 Service: "),
        "{told:?}"
    );
    assert!(
        followed
            .states
            .borrow()
            .values()
            .all(|watch| watch.synced && watch.errors == 0)
    );

    server.watched().await;
    server.tell("MODIFIED", service("a", json!(81)));
    followed
        .until("a change", |state| port(state, "a") == Some(81))
        .await;
    server.tell("MODIFIED", service("a", json!("x")));
    followed
        .until("a change for the worse", |state| port(state, "a").is_none())
        .await;
    assert_eq!(followed.state.rejections().len(), 3);
    server.tell("MODIFIED", service("a", json!(82)));
    server.tell("DELETED", service("bad", json!(0)));
    followed
        .until("a cure and a deletion", |state| {
            port(state, "a") == Some(82) && state.rejections().len() == 1
        })
        .await;
    followed.shutdown.cancel();
    let end = async { while followed.events.recv().await.is_some() {} };
    timeout(PATIENCE, end)
        .await
        .expect("the source ends when told");
}

#[tokio::test]
async fn with_streaming_lists() {
    lists_changes_and_bad_objects(true).await;
}

#[tokio::test]
async fn with_pages() {
    lists_changes_and_bad_objects(false).await;
}

#[tokio::test]
async fn a_relist_tells_what_went_away_meanwhile() {
    let (server, client) = Server::start(false).await;
    server.list(
        SERVICES,
        vec![service("a", json!(80)), service("b", json!(80))],
    );
    let mut followed = Followed::start(client);
    followed.until("lists", State::synced).await;
    server.watched().await;

    // b goes away while nobody looks; the watch cannot be resumed.
    server.list(SERVICES, vec![service("a", json!(81))]);
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                      "reason": "Expired", "message": "too old resource version", "metadata": {}});
    server.tell("ERROR", gone);
    followed
        .until("a relist", |state| {
            port(state, "a") == Some(81) && port(state, "b").is_none()
        })
        .await;
    let states = followed.states.borrow().clone();
    assert_eq!(states[&Kind::Service].errors, 1);
    assert!(
        states[&Kind::Service]
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("too old"))
    );
    assert_eq!(states[&Kind::Pod].errors, 0);
}

#[tokio::test]
async fn an_outage_changes_nothing_and_the_next_server_takes_over() {
    let (first, client) = Server::start(false).await;
    let (second, other) = Server::start(false).await;
    for server in [&first, &second] {
        server.list(SERVICES, vec![service("a", json!(80))]);
    }
    let mut followed = Followed::start(connect::in_turn(vec![client, other]));
    followed.until("lists", State::synced).await;
    first.watched().await;
    assert_eq!(second.watches.receiver_count(), 0, "one server is enough");

    *first.down.lock().unwrap() = true;
    let _ = first.watches.send(None);
    second.watched().await;
    assert_eq!(port(&followed.state, "a"), Some(80));
    second.tell("MODIFIED", service("a", json!(81)));
    followed
        .until("a change from the second server", |state| {
            port(state, "a") == Some(81)
        })
        .await;
}

#[tokio::test]
async fn a_server_without_optional_kinds_is_followed_all_the_same() {
    // It does not have them, or an older role does not name them.
    for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        for streaming in [true, false] {
            for path in [CIDRS, TIERS] {
                let (server, client) = Server::start(streaming).await;
                *server.unknown.lock().unwrap() = Some((path, status));
                server.list(SERVICES, vec![service("a", json!(80))]);
                let mut followed = Followed::start_impatient(client);
                followed.until("lists", State::synced).await;
                assert_eq!(port(&followed.state, "a"), Some(80));
            }

            // What every server has, and every role names, is waited for.
            let (server, client) = Server::start(streaming).await;
            *server.unknown.lock().unwrap() = Some(("/api/v1/nodes", status));
            let mut followed = Followed::start_impatient(client);
            followed.fails(Kind::Node).await;
            assert!(!followed.states.borrow()[&Kind::Node].synced);
        }
    }
}

#[tokio::test]
async fn cluster_policies_are_followed_like_the_rest() {
    let (server, client) = Server::start(true).await;
    let policy = |name: &str, tier: &str| {
        json!({"metadata": {"name": name, "resourceVersion": "3"},
               "spec": {"tier": tier, "priority": 1, "subject": {"namespaces": {}}}})
    };
    server.list(TIERS, vec![policy("good", "Admin"), policy("bad", "Top")]);
    let mut followed = Followed::start(client);
    followed.until("lists", State::synced).await;
    let known = followed.state.snapshot().cluster_policies.clone();
    assert_eq!(known.keys().collect::<Vec<_>>(), ["good"]);
    followed
        .until("a rejection", |state| state.rejections().len() == 1)
        .await;
    assert_eq!(followed.state.rejections()[0].name, "bad");
}

/// One that has just started forbids everything for a moment.
#[tokio::test]
async fn a_server_that_does_not_show_service_cidrs_takes_none_away() {
    // To an agent that has just started, too, they are not to be empty.
    let (server, client) = Server::start(true).await;
    *server.unknown.lock().unwrap() = Some((CIDRS, StatusCode::FORBIDDEN));
    let mut followed = Followed::start(client);
    followed.fails(Kind::ServiceCidr).await;
    assert!(!followed.states.borrow()[&Kind::ServiceCidr].synced);

    for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        let (server, client) = Server::start(true).await;
        let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
        server.list(CIDRS, vec![cidr]);
        let mut followed = Followed::start_impatient(client);
        followed.until("lists", State::synced).await;
        *server.unknown.lock().unwrap() = Some((CIDRS, status));
        server.watched().await;
        let _ = server.watches.send(None);
        let refused = async {
            while server.refusals.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, refused).await.expect("a refusal");
        // Nothing is told because of it.
        let silence = timeout(SILENCE, followed.until("nothing", |_| false)).await;
        assert!(silence.is_err());
        assert_eq!(followed.state.snapshot().service_cidrs.len(), 1, "{status}");
    }
}
