//! What comes, as it comes: a line of JSON for each.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::Provider;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Followed<T> {
    /// The next one.
    Told(T),
    /// The reader was too slow.
    Lost {
        /// How many it has missed.
        lost: u64,
    },
}

/// Flow records that are kept, and those that come, until `end`.
pub(super) fn records(provider: &dyn Provider, end: CancellationToken) -> Response {
    let (kept, coming) = provider.follow();
    let kept = stream::iter(kept).map(Followed::Told);
    lines(kept.chain(told(coming)), end)
}

/// Who talks most, again and again, until `end`.
pub(super) fn top(provider: &dyn Provider, end: CancellationToken) -> Response {
    lines(told(provider.top()), end)
}

fn told<T: Clone + Send + 'static>(
    coming: broadcast::Receiver<T>,
) -> impl Stream<Item = Followed<T>> {
    stream::unfold(coming, async |mut coming| {
        let followed = match coming.recv().await {
            Ok(next) => Followed::Told(next),
            Err(RecvError::Lagged(lost)) => Followed::Lost { lost },
            Err(RecvError::Closed) => return None,
        };
        Some((followed, coming))
    })
}

fn lines<T: Serialize>(
    lines: impl Stream<Item = Followed<T>> + Send + 'static,
    end: CancellationToken,
) -> Response {
    let lines = lines.take_until(end.cancelled_owned());
    let body = Body::from_stream(lines.map(|line| Ok::<_, Infallible>(bytes(&line))));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn bytes(line: &impl Serialize) -> Bytes {
    // Plain structs with names for keys are always JSON.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
