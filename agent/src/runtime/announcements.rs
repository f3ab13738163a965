//! Carries what CNI plugins announce to the loop, and its answers back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::engine::{Ask, Said};
use super::shared::Shared;
use crate::cni::{self, Answer, Request};
use crate::model::PodDevice;
use crate::netlink;

/// Time that the loop has for what needs no kernel.
const SOON: Duration = Duration::from_secs(5);
/// Questions that wait for the loop.
pub(super) const QUESTIONS: usize = 64;

/// Serves until told to stop, then removes the socket.
pub(super) async fn serve(
    listener: UnixListener,
    socket: PathBuf,
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let answer = move |request| {
        let (asks, shared) = (asks.clone(), Arc::clone(&shared));
        async move { answer(request, &asks, &shared).await }
    };
    cni::serve(listener, &socket, answer, shutdown).await
}

async fn answer(request: Request, asks: &mpsc::Sender<Ask>, shared: &Shared) -> Answer {
    let (said, patience) = match request {
        Request::Add(announcement) => {
            let patience = Duration::from_millis(announcement.wait_milliseconds);
            let device = device(&announcement.interfaces).await;
            (Said::Added(announcement.sandbox(device)), patience)
        }
        Request::Check(attachment) => (Said::Checked(attachment), SOON),
        Request::Del(attachment) => (Said::Deleted(attachment), SOON),
        Request::Gc { network, valid } => {
            (Said::Remaining(network, valid.into_iter().collect()), SOON)
        }
    };
    let (answer, answered) = oneshot::channel();
    let asked = async {
        let ask = Ask { said, answer };
        asks.send(ask).await.ok()?;
        answered.await.ok()
    };
    match timeout(patience, asked).await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => Answer::Waiting {
            why: obstacle(shared),
        },
    }
}

/// The host end of the veth; where the result does not name it, it is looked for as that of every other pod.
async fn device(interfaces: &[String]) -> Option<PodDevice> {
    match netlink::first_veth(interfaces).await {
        Ok(found) => found.map(|(ifindex, name)| PodDevice { ifindex, name }),
        Err(error) => {
            tracing::warn!("cannot look for {}: {error}", interfaces.join(", "));
            None
        }
    }
}

/// What keeps a pod from being isolated.
fn obstacle(shared: &Shared) -> String {
    let published = shared.published();
    match published.last_error {
        Some(error) => format!("the kernel is not in line: {error}"),
        None if published.last_sync.is_none() => {
            "the agent has not heard of all objects from the API server yet".to_owned()
        }
        None => "the agent has not found the pod's device, or is busy".to_owned(),
    }
}
