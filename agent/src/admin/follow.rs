//! Flow records as they come: a line of JSON for each.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Provider;
use crate::flows::Record;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Followed {
    /// The next record.
    Record(Box<Record>),
    /// The reader was too slow.
    Lost {
        /// Records that it has missed.
        lost: u64,
    },
}

/// What is kept, and what comes, until `end`.
pub(super) fn follow(provider: &dyn Provider, end: CancellationToken) -> Response {
    let (kept, coming) = provider.follow();
    let kept = stream::iter(kept).map(|record| Followed::Record(Box::new(record)));
    let coming = stream::unfold(coming, async |mut coming| {
        let followed = match coming.recv().await {
            Ok(record) => Followed::Record(Box::new(record)),
            Err(RecvError::Lagged(lost)) => Followed::Lost { lost },
            Err(RecvError::Closed) => return None,
        };
        Some((followed, coming))
    });
    let lines = kept.chain(coming).take_until(end.cancelled_owned());
    let body = Body::from_stream(lines.map(|line| Ok::<_, Infallible>(bytes(&line))));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn bytes(line: &Followed) -> Bytes {
    // Plain structs with names for keys are always JSON.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
