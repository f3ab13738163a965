//! The Kubernetes API as a source: one watch for each kind, for ever.

mod connect;
mod follow;
mod requests;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::future;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{NetworkPolicy, ServiceCIDR},
};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::connect::{KubeError, KubeOptions};
pub use self::requests::Requests;
pub use self::status::{WatchState, WatchStates};

use self::follow::Follower;
use super::convert;
use super::policy_api::ClusterNetworkPolicy;
use crate::model::{Event, Kind};

/// The API server (or several that serve one cluster) as a source.
pub struct KubeSource {
    client: Client,
    states: watch::Sender<WatchStates>,
    requests: Requests,
    forbidden: Duration,
}

impl KubeSource {
    /// A source that asks through a given client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            states: watch::Sender::new(status::initial()),
            requests: Requests::default(),
            forbidden: follow::FORBIDDEN,
        }
    }

    /// A source as configured. It need not be reachable yet.
    ///
    /// # Errors
    /// If the configuration cannot be read or makes no sense.
    pub async fn connect(options: &KubeOptions) -> Result<Self, KubeError> {
        let requests = Requests::default();
        let client = connect::client(options, &requests).await?;
        Ok(Self {
            requests,
            ..Self::new(client)
        })
    }

    /// The client that it asks by.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// How the watches are doing, for metrics and status.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<WatchStates> {
        self.states.subscribe()
    }

    /// What it asks the API server, counted from [`Self::connect`] on.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Sends a `Replaced` for each list and relist, and what changes in between, until told to shut down or nobody listens.
    /// An API server that does not answer is asked again for ever, with growing pauses.
    pub async fn run(self, events: mpsc::Sender<Event>, shutdown: CancellationToken) {
        let follower = Follower {
            client: self.client,
            events,
            states: self.states,
            forbidden: self.forbidden,
        };
        let watches = future::join3(
            future::join3(
                follower.follow::<Service>(Kind::Service, convert::service),
                follower.follow::<EndpointSlice>(Kind::EndpointSlice, convert::endpoint_slice),
                follower.follow::<NetworkPolicy>(Kind::NetworkPolicy, convert::network_policy),
            ),
            future::join3(
                follower.follow::<Pod>(Kind::Pod, convert::pod),
                follower.follow::<Namespace>(Kind::Namespace, convert::namespace),
                follower.follow::<Node>(Kind::Node, convert::node),
            ),
            future::join(
                follower.follow::<ServiceCIDR>(Kind::ServiceCidr, convert::service_cidr),
                follower.follow::<ClusterNetworkPolicy>(
                    Kind::ClusterNetworkPolicy,
                    convert::cluster_network_policy,
                ),
            ),
        );
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = watches => {}
        }
    }
}
