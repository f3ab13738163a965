//! Asks a running agent.

use std::fmt::Display;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// Body of an answer that is none.
#[derive(Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) error: String,
}

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers on {} ({source}): is `weir run` running, with this --run-dir? As another user than root it cannot be asked; with --context NAME, or as `kubectl weir`, those of a cluster are; with --manifests DIR no agent is needed", path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The question cannot be answered.
    #[error("{0}")]
    Refused(String),
    /// Connection or answer broke.
    #[error("the agent did not answer as expected: {0}")]
    Broken(String),
}

/// Longest time for one answer; a dump of full maps takes a few seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent with this admin socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Gives every line of an answer, as [`follow`] does.
    ///
    /// # Errors
    /// When no agent listens, and as [`follow`].
    pub async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ClientError> {
        follow(self.connect().await?, path, each).await
    }

    /// Gets an answer, as [`get`] does.
    ///
    /// # Errors
    /// When no agent listens, and as [`get`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        get(self.connect().await?, path, parameters).await
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let connected = UnixStream::connect(&self.socket).await;
        connected.map_err(|source| ClientError::NotRunning {
            path: self.socket.clone(),
            source,
        })
    }
}

/// Gets an answer over a stream that leads to an admin socket: `path` as `/v1/status`, parameters unencoded.
///
/// # Errors
/// When the agent refuses the question, or when its answer does not come or cannot be read.
pub async fn get<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T, ClientError> {
    tokio::time::timeout(TIMEOUT, exchange(stream, path, parameters))
        .await
        .unwrap_or_else(|_| Err(broken(format!("no answer in {TIMEOUT:?}"))))
}

async fn exchange<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T, ClientError> {
    let (response, _connection) = request(stream, path, parameters).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?;
    let body = body.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(broken);
    }
    match serde_json::from_slice::<Failure>(&body) {
        Ok(failure) if status.is_client_error() => Err(ClientError::Refused(failure.error)),
        Ok(failure) => Err(broken(failure.error)),
        Err(_) => Err(broken(format!("status {status} for {path}"))),
    }
}

/// Gives every line of an answer that goes on, as JSON, to `each`, until it has seen enough (`Break`) or the agent ends (`Continue`).
///
/// # Errors
/// When the stream breaks, or a line cannot be read.
pub async fn follow<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    mut each: impl FnMut(T) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ClientError> {
    let (response, _connection) = request(stream, path, &[]).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(broken(format!(
            "status {status} for {path}: it may be of another version"
        )));
    }
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = serde_json::from_slice(&rest[..end]).map_err(broken)?;
            rest.drain(..=end);
            if each(line).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Asks; the connection lasts as long as its handle.
async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<(Response<Incoming>, impl Drop), ClientError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    let request = Request::get(format!("{path}?{query}"))
        .header("host", "weir")
        .body(Empty::<Bytes>::new())
        .map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, connection))
}

fn broken(why: impl Display) -> ClientError {
    ClientError::Broken(why.to_string())
}
