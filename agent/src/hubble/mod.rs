//! Hubble's Observer API, so that its clients show what Weir has seen: flow records as Hubble has them, by the filters of its requests.

mod filter;
mod flow;
mod mask;
mod observer;
mod reason;
mod request;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::admin::Provider;
use observer::Node;
use proto::observer::observer_server::ObserverServer;

/// Rust of the interfaces in `agent/proto`.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    dead_code,
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    unused_qualifications,
    deprecated,
    reason = "made of others' files by others' programs"
)]
mod proto {
    pub mod flow {
        tonic::include_proto!("flow");
    }
    pub mod observer {
        tonic::include_proto!("observer");
    }
    pub mod relay {
        tonic::include_proto!("relay");
    }
}

/// By which names clients ask whether it is there: Hubble's own client by one that is not the interface's.
const SERVICE_NAMES: [&str; 2] = ["hubble.server.Observer", "observer.Observer"];

/// Serves clients at a socket that is bound until `shutdown`, then removes the socket.
///
/// # Errors
/// When connections cannot be taken any more.
pub async fn serve(
    listener: UnixListener,
    socket: &Path,
    provider: Arc<dyn Provider>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in SERVICE_NAMES {
        health
            .set_service_status(name, ServingStatus::Serving)
            .await;
    }
    let node = Node::new(provider, shutdown.clone());
    let served = Server::builder()
        .add_service(health_service)
        .add_service(ObserverServer::new(node))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            shutdown.cancelled_owned(),
        )
        .await;
    // Who comes next finds no socket that nobody answers; one that is gone already is no error.
    let _ = tokio::fs::remove_file(socket).await;
    served.map_err(io::Error::other)
}
