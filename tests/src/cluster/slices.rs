//! EndpointSlices as the endpoint slice controller makes them from Services and Pods.

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A slice of each family for a Service with a selector; none for one without, whose slices somebody else writes.
///
/// # Errors
/// A targetPort is a name: numbers are all that is needed here.
pub fn slices(
    service: &Service,
    pods: &[Pod],
    ready: impl Fn(&str) -> bool,
) -> Result<Vec<EndpointSlice>> {
    let name = service
        .metadata
        .name
        .as_deref()
        .context("a Service without a name")?;
    let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    let spec = service.spec.as_ref().context("a Service without a spec")?;
    let Some(selector) = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
    else {
        return Ok(Vec::new());
    };
    let ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .map(port)
        .collect::<Result<_>>()?;
    let selected: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace))
        .filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            selector
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
        .collect();
    let family = |kind: &str, is_family: fn(&str) -> bool| EndpointSlice {
        address_type: kind.to_owned(),
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", kind.to_lowercase())),
            namespace: Some(namespace.to_owned()),
            labels: Some([("kubernetes.io/service-name".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        endpoints: selected
            .iter()
            .filter_map(|pod| endpoint(pod, is_family, &ready))
            .collect(),
        ports: Some(ports.clone()),
    };
    Ok(vec![
        family("IPv4", |ip| !ip.contains(':')),
        family("IPv6", |ip| ip.contains(':')),
    ])
}

fn port(port: &ServicePort) -> Result<EndpointPort> {
    let target = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => bail!("targetPort {name}: give a number"),
    };
    Ok(EndpointPort {
        name: port.name.clone(),
        port: Some(target),
        protocol: port.protocol.clone(),
        ..EndpointPort::default()
    })
}

fn endpoint(
    pod: &Pod,
    is_family: fn(&str) -> bool,
    ready: impl Fn(&str) -> bool,
) -> Option<Endpoint> {
    let name = pod.metadata.name.clone()?;
    let ips = pod.status.as_ref()?.pod_ips.as_ref()?;
    let address = ips.iter().find(|entry| is_family(&entry.ip))?.ip.clone();
    let is_ready = ready(&name);
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            serving: Some(is_ready),
            terminating: Some(false),
        }),
        node_name: pod.spec.as_ref()?.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}
