//! Asks a running agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

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
        "no agent answers on {} ({source}): is `weir run` running, with this --run-dir? As another user than root it cannot be asked; with --manifests DIR no agent is needed", path.display()
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
    #[error("the agent on {} did not answer as expected: {message}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        message: String,
    },
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

    /// Gets an answer: `path` as `/v1/status`, parameters unencoded.
    ///
    /// # Errors
    /// When no agent listens, when it refuses the question, or when its answer cannot be read.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::NotRunning {
                    path: self.socket.clone(),
                    source,
                })?;
        tokio::time::timeout(TIMEOUT, self.exchange(stream, path, parameters))
            .await
            .unwrap_or_else(|_| Err(self.broken(format!("no answer in {TIMEOUT:?}"))))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        stream: UnixStream,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let broken = |error: &dyn std::fmt::Display| self.broken(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let connection = tokio::spawn(connection);
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let request = Request::get(format!("{path}?{query}"))
            .header("host", "weir")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        drop(sender);
        connection.abort();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| broken(&error));
        }
        match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) if status.is_client_error() => Err(ClientError::Refused(failure.error)),
            Ok(failure) => Err(broken(&failure.error)),
            Err(_) => Err(broken(&format!("status {status} for {path}"))),
        }
    }

    fn broken(&self, message: String) -> ClientError {
        ClientError::Broken {
            path: self.socket.clone(),
            message,
        }
    }
}
