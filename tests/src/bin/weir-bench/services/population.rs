//! Services that nobody asks, to see what they cost those that somebody does.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::subject::Subject;

/// Writes at once: more make etcd no faster.
const AT_ONCE: usize = 16;

/// The Services of one cluster.
pub(super) struct Population {
    services: u32,
    endpoints: u32,
}

impl Population {
    /// None yet.
    pub(super) fn new(endpoints: u32) -> Self {
        Self {
            services: 0,
            endpoints,
        }
    }

    /// Writes Services, and an EndpointSlice for each, until there are `services`.
    pub(super) fn grow(&mut self, subject: &mut Subject, services: u32) -> Result<()> {
        let new = self.services..services.max(self.services);
        self.services = new.end;
        let endpoints = self.endpoints;
        let control = subject.lab().control();
        control.block_on(|client| async move {
            stream::iter(new)
                .map(|n| write(client.clone(), n, endpoints))
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await
        })
    }
}

async fn write(client: Client, n: u32, endpoints: u32) -> Result<()> {
    let name = format!("filler-{n}");
    create::<Service>(
        &client,
        json!({
            "metadata": {"name": name},
            "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
        }),
    )
    .await?;
    create::<EndpointSlice>(
        &client,
        slice(
            &name,
            (0..endpoints).map(|i| address(n * endpoints + i)),
            8080,
        ),
    )
    .await
}

/// Creates an object in the namespace `default`.
pub(super) async fn create<K>(client: &Client, object: Value) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    let api = Api::<K>::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// An EndpointSlice of a Service without a selector.
pub(super) fn slice(service: &str, addresses: impl Iterator<Item = String>, port: u16) -> Value {
    let endpoints: Vec<_> = addresses
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": port}],
        "endpoints": endpoints,
    })
}

/// An address of the network for benchmarks (RFC 2544), where nobody is.
fn address(n: u32) -> String {
    let [_, b, c, d] = (n % (1 << 17)).to_be_bytes();
    format!("198.{}.{c}.{d}", 18 + b)
}
