//! How long a change of a Service's only endpoint takes to reach the packets of a client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use weir_tests::probe::Probe;

use super::population::{create, slice};
use super::subject::{NAMED, Subject};

/// The Service whose endpoint changes.
const NAME: &str = "moving";

/// The longest that one change may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The pause between changes, so that what is left to do after one is not in the time of the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Moves the endpoint to and fro, at most `changes` times, and no more once `patience` is over. Gives the time of each from the
/// answer of the API server on, sorted.
pub(super) fn measure(
    subject: &mut Subject,
    changes: u32,
    patience: Duration,
) -> Result<Vec<Duration>> {
    let to = service(subject)?;
    let pods = ["near", "far"];
    let addresses: Vec<String> = subject
        .spots()
        .iter()
        .map(|spot| spot.direct.to_string())
        .collect();
    let probe = Probe::tcp(to).timeout(Duration::from_millis(200));
    let client = subject.client().clone();
    let begun = Instant::now();
    let mut times = Vec::new();
    for n in 0..changes {
        let next = n as usize % 2;
        let patch =
            json!({"endpoints": [{"addresses": [addresses[next]], "conditions": {"ready": true}}]});
        subject.lab().control().block_on(|client| async move {
            let api = Api::<EndpointSlice>::namespaced(client, "default");
            api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            Ok(())
        })?;
        let written = Instant::now();
        client.run(|| -> Result<()> {
            while probe.exchange().identity() != Some(pods[next]) {
                if written.elapsed() > LIMIT {
                    bail!("{NAME} does not lead to {} after {LIMIT:?}", pods[next]);
                }
            }
            Ok(())
        })?;
        times.push(written.elapsed());
        if begun.elapsed() > patience {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    times.sort_unstable();
    Ok(times)
}

/// The Service, made where it is not there yet: it leads to no pod of ours at first.
fn service(subject: &mut Subject) -> Result<SocketAddr> {
    let control = subject.lab().control();
    let ip = control.block_on(|client| async move {
        let api = Api::<Service>::namespaced(client.clone(), "default");
        if api.get_opt(NAME).await?.is_none() {
            let object = json!({"metadata": {"name": NAME}, "spec": {"ports": [{"port": 80, "targetPort": NAMED}]}});
            create::<Service>(&client, object).await?;
            let nowhere = ["198.18.0.1".to_owned()].into_iter();
            create::<EndpointSlice>(&client, slice(NAME, nowhere, NAMED)).await?;
        }
        let spec = api.get(NAME).await?.spec.context("a Service has a spec")?;
        spec.cluster_ip.context("a Service has an address")
    })?;
    Ok((ip.parse::<std::net::IpAddr>()?, 80).into())
}

/// A quantile of sorted times; zero of none.
pub(super) fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last * percent).div_ceil(100))
        .copied()
        .unwrap_or_default()
}
