//! How to reach the API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode, Uri};
use kube::client::Body;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::requests::Requests;

/// Silence after which a connection is taken for dead. Watches see a bookmark every minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// Where the API server is and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct KubeOptions {
    /// A kubeconfig file; without one the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// URLs of API servers, tried in turn, instead of the one that is configured. A node needs them where the API server's
    /// ClusterIP does not answer before the agent runs.
    pub api_servers: Vec<String>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig is bad.
    #[error("cannot use the kubeconfig {path}: {source}; check the file given with --kubeconfig")]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: KubeconfigError,
    },
    /// No service account.
    #[error(
        "cannot use the service account of this pod: {0}; outside a cluster give --kubeconfig or --manifests"
    )]
    InCluster(#[from] InClusterError),
    /// A bad URL.
    #[error("--api-server {0:?} is not an https URL; write one like https://192.168.0.10:6443")]
    Url(String),
    /// Bad credentials or certificates.
    #[error(
        "cannot set up the connection to the API server {url}: {source}; check its certificates and credentials"
    )]
    Client {
        /// The server.
        url: Uri,
        /// The reason.
        source: Box<kube::Error>,
    },
}

/// A client for the configured API servers.
pub(super) async fn client(
    options: &KubeOptions,
    requests: &Requests,
) -> Result<Client, KubeError> {
    let servers = options
        .api_servers
        .iter()
        .map(|url| server(url))
        .collect::<Result<Vec<_>, _>>()?;
    let mut config = match &options.kubeconfig {
        Some(path) => from_file(path).await?,
        None if servers.is_empty() => Config::incluster()?,
        // The environment's address is not needed then, and is not there under every runtime.
        None => Config::incluster_dns()?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    if servers.is_empty() {
        return connect(config, requests);
    }
    // Trying again is what changing the server is for.
    config.default_retry = false;
    let clients = servers.into_iter().map(|url| {
        let mut config = config.clone();
        config.cluster_url = url;
        connect(config, requests)
    });
    Ok(in_turn(clients.collect::<Result<_, _>>()?))
}

async fn from_file(path: &PathBuf) -> Result<Config, KubeError> {
    let error = |source| KubeError::Kubeconfig {
        path: path.clone(),
        source,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(error)
}

fn connect(config: Config, requests: &Requests) -> Result<Client, KubeError> {
    let url = config.cluster_url.clone();
    match Client::try_from(config) {
        Ok(client) => Ok(requests.counting(client, url.authority().map_or("", Authority::as_str))),
        Err(source) => Err(KubeError::Client {
            url,
            source: Box::new(source),
        }),
    }
}

/// Credentials must not travel in the clear.
fn server(url: &str) -> Result<Uri, KubeError> {
    url.trim()
        .parse::<Uri>()
        .ok()
        .filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
        .ok_or_else(|| KubeError::Url(url.to_owned()))
}

/// One client out of several: the one that answers is kept, and after a failure the next request goes to the next.
pub(super) fn in_turn(clients: Vec<Client>) -> Client {
    let clients: Arc<[Client]> = clients.into();
    let current = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: Request<Body>| {
        let clients = Arc::clone(&clients);
        let current = Arc::clone(&current);
        async move {
            let index = current.load(Ordering::Relaxed);
            let result: Result<Response<Body>, kube::Error> =
                clients[index % clients.len()].send(request).await;
            let failed = result
                .as_ref()
                .map_or(true, |response| down(response.status()));
            if failed {
                // Of several requests that fail together only one turns the wheel.
                let _ = current.compare_exchange(
                    index,
                    index.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            result
        }
    });
    Client::new(service, "default")
}

/// Answers of a server that is starting, stopping or cut off from etcd, or of a load balancer without it.
fn down(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_configuration_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, "clusters: 1\n").expect("write");
        for (kubeconfig, api_server, wanted) in [
            (
                Some("/none/kubeconfig"),
                None,
                "cannot use the kubeconfig /none/kubeconfig: ",
            ),
            (path.to_str(), None, "cannot use the kubeconfig "),
            (
                None,
                Some("192.168.0.1:6443"),
                "--api-server \"192.168.0.1:6443\" is not an https URL",
            ),
            (
                None,
                Some("http://a"),
                "--api-server \"http://a\" is not an https URL",
            ),
        ] {
            let options = KubeOptions {
                kubeconfig: kubeconfig.map(PathBuf::from),
                api_servers: api_server.into_iter().map(str::to_owned).collect(),
            };
            let error = client(&options, &Requests::default())
                .await
                .err()
                .expect("an error")
                .to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
