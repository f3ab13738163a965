//! One watch: lists, changes and failures of a kind, as events.

use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::status::WatchStates;
use crate::model::{Event, Kind, ObjectName};
use crate::source::convert::Conversion;
use crate::source::outcome::{self, Outcome};

/// Pause before a kind that the server did not have is asked for again: it may have it after an upgrade, or when somebody installs
/// its definition.
const fn pause(kind: Kind) -> Duration {
    match kind {
        Kind::ClusterNetworkPolicy => Duration::from_secs(20),
        _ => Duration::from_secs(600),
    }
}

/// How long a kind that clusters may lack is waited for while the server forbids it. The role of an older release does not name it;
/// but a server that has just started forbids everything for a moment, and then nothing may be taken for empty.
pub(super) const FORBIDDEN: Duration = Duration::from_secs(30);

/// What all watches share.
pub(super) struct Follower {
    pub client: Client,
    pub events: mpsc::Sender<Event>,
    pub states: watch::Sender<WatchStates>,
    /// See [`FORBIDDEN`].
    pub forbidden: Duration,
}

/// Why a watch has ended.
enum Ended {
    /// The receiver is gone.
    NobodyListens,
    /// The server cannot send a list as a watch.
    NoStreamingLists,
    /// The server does not have the kind.
    Unknown,
}

/// An object as it comes from the server: one that cannot be decoded must not hide the others.
type Guarded<K> = DeserializeGuard<K>;

impl Follower {
    /// Follows all objects of a kind until nobody listens.
    pub(super) async fn follow<K>(&self, kind: Kind, convert: fn(K) -> Conversion)
    where
        K: Resource<DynamicType = ()> + k8s_openapi::Resource,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api: Api<Guarded<K>> = Api::all(self.client.clone());
        // A list that comes as a watch costs the API server far less memory than pages do (KEP-3157).
        let mut config = watcher::Config::default().streaming_lists();
        loop {
            let stream = watcher(api.clone(), config.clone()).default_backoff();
            match self.drain(pin!(stream), kind, convert).await {
                Ended::NobodyListens => return,
                Ended::NoStreamingLists => config = watcher::Config::default(),
                Ended::Unknown => tokio::time::sleep(pause(kind)).await,
            }
        }
    }

    async fn drain<K>(
        &self,
        mut stream: impl Stream<Item = watcher::Result<watcher::Event<Guarded<K>>>> + Unpin,
        kind: Kind,
        convert: fn(K) -> Conversion,
    ) -> Ended
    where
        K: Resource<DynamicType = ()> + k8s_openapi::Resource,
    {
        let mut list = Vec::new();
        let mut reports = Vec::new();
        let started = Instant::now();
        while let Some(item) = stream.next().await {
            let batch = match item {
                Ok(watcher::Event::Init) => {
                    list.clear();
                    reports.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let (name, uid, outcome) = judge(object, kind, convert);
                    reports.extend(outcome.report(kind, &name, &uid));
                    if let Outcome::Used(object, _) = outcome {
                        list.push(*object);
                    }
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    self.report(kind, |state| state.synced = true);
                    let mut batch = vec![Event::Replaced(kind, std::mem::take(&mut list))];
                    batch.append(&mut reports);
                    batch
                }
                Ok(watcher::Event::Apply(object)) => {
                    let (name, uid, outcome) = judge(object, kind, convert);
                    outcome.events(kind, &name, &uid).collect()
                }
                Ok(watcher::Event::Delete(object)) => {
                    vec![Event::Deleted(kind, name_of(&object))]
                }
                Err(error) if lacks_streaming_lists(&error) => return Ended::NoStreamingLists,
                Err(error) => {
                    let message = error.to_string();
                    let unknown = kind.is_optional() && has_status(&error, 404);
                    let forbidden = kind.is_optional()
                        && has_status(&error, 403)
                        && started.elapsed() >= self.forbidden;
                    // What is known of the kind stays, whatever this server says.
                    let missing = (unknown || forbidden) && !self.is_synced(kind);
                    if missing && !self.go_on_without(kind).await {
                        return Ended::NobodyListens;
                    }
                    if unknown {
                        tracing::info!("the API server has no {}", kind.as_str());
                        return Ended::Unknown;
                    }
                    tracing::warn!(
                        kind = kind.as_str(),
                        "watch failed, trying again: {message}"
                    );
                    self.report(kind, |state| {
                        state.errors += 1;
                        state.last_error = Some(message);
                    });
                    continue;
                }
            };
            for event in batch {
                outcome::log(&event);
                if self.events.send(event).await.is_err() {
                    return Ended::NobodyListens;
                }
            }
        }
        // A watcher's stream has no end.
        Ended::NobodyListens
    }

    /// Takes a kind for empty; `false` if nobody listens.
    async fn go_on_without(&self, kind: Kind) -> bool {
        self.report(kind, |state| state.synced = true);
        let nothing = Event::Replaced(kind, Vec::new());
        self.events.send(nothing).await.is_ok()
    }

    fn is_synced(&self, kind: Kind) -> bool {
        let states = self.states.borrow();
        states.get(&kind).is_some_and(|state| state.synced)
    }

    fn report(&self, kind: Kind, change: impl FnOnce(&mut super::WatchState)) {
        self.states.send_modify(|states| {
            if let Some(state) = states.get_mut(&kind) {
                change(state);
            }
        });
    }
}

/// Name, UID and use of an object.
fn judge<K>(
    object: Guarded<K>,
    kind: Kind,
    convert: fn(K) -> Conversion,
) -> (ObjectName, String, Outcome)
where
    K: Resource<DynamicType = ()> + k8s_openapi::Resource,
{
    let name = name_of(&object);
    let uid = object.meta().uid.clone().unwrap_or_default();
    let outcome = match object.0 {
        Ok(object) => Outcome::of(convert(object)),
        Err(invalid) => {
            let fault = outcome::misshapen(K::API_VERSION, kind, invalid.error);
            Outcome::Rejected(fault.to_string())
        }
    };
    (name, uid, outcome)
}

fn name_of<K: Resource>(object: &K) -> ObjectName {
    let metadata = object.meta();
    ObjectName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Whether the server answers with a status: 404 where it does not have a kind, or not in this version; 403 where it forbids it.
fn has_status(error: &watcher::Error, code: u16) -> bool {
    matches!(
        error,
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::InitialListFailed(kube::Error::Api(status))
            if status.code == code
    )
}

/// A server whose WatchList feature is off refuses `sendInitialEvents` as invalid.
fn lacks_streaming_lists(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if matches!(status.code, 400 | 422) && status.message.contains("sendInitialEvents")
    )
}
