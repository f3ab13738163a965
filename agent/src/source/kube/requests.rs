//! Counts requests to the API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Request as HttpRequest, Response};
use kube::Client;
use kube::client::Body;

use crate::model::Request;

/// Requests so far, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<Request, u64>>>);

impl Requests {
    /// The counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Request, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count(&self, request: Request) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(request).or_default() += 1;
    }

    /// A client that counts what a client of the server `host` asks.
    pub(super) fn counting(&self, client: Client, host: &str) -> Client {
        let requests = self.clone();
        let host = host.to_owned();
        let service = tower::service_fn(move |request: HttpRequest<Body>| {
            let (client, requests) = (client.clone(), requests.clone());
            let (method, host) = (request.method().to_string(), host.clone());
            async move {
                let result: Result<Response<Body>, kube::Error> = client.send(request).await;
                let code = result.as_ref().map_or_else(
                    |_| "<error>".to_owned(),
                    |response| response.status().as_str().to_owned(),
                );
                requests.count(Request { method, host, code });
                result
            }
        });
        Client::new(service, "default")
    }
}
