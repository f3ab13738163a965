//! How long a proxy takes from its start until it serves what was made while it was away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::json;
use weir_tests::probe::Probe;

use super::population::{create, slice};
use super::subject::{NAMED, Subject};

/// The longest that it may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Kills the proxy of the client's node, makes a Service, and waits for an answer by it. Gives the age of the new process then.
pub(super) fn measure(subject: &mut Subject) -> Result<Duration> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("fresh-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (program, old) = (subject.program(), subject.daemon()?);
    subject.node()?.crash(program)?;
    let endpoint = subject.spots()[0].direct.to_string();
    let ip = subject.lab().control().block_on(|client| async move {
        let object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": NAMED}]}});
        create::<Service>(&client, object).await?;
        create::<EndpointSlice>(&client, slice(&name, [endpoint].into_iter(), NAMED)).await?;
        let service = Api::<Service>::namespaced(client, "default").get(&name).await?;
        service.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")
    })?;
    // The kubelet starts Weir again.
    if let Some(proxy) = subject.node_mut()?.proxy() {
        proxy.restart()?;
    }
    let probe = Probe::tcp((ip.parse::<IpAddr>()?, 80).into()).timeout(Duration::from_millis(100));
    let begun = Instant::now();
    subject.client().run(|| -> Result<()> {
        while probe.exchange().identity() != Some("near") {
            if begun.elapsed() > LIMIT {
                bail!("it does not serve again after {LIMIT:?}");
            }
        }
        Ok(())
    })?;
    let new = subject.daemon()?;
    if new.pid() == old.pid() {
        bail!("{program} was not restarted");
    }
    new.age()
}
