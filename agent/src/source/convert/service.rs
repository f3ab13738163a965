//! v1 Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::networking::v1 as net;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::address::{parse_cidr, parse_ip};
use super::fields::{self, dual_stack, has_label};
use super::{Conversion, Converted};
use crate::model::{
    ForeignService, Kind, Object, Service, ServiceCidr, ServicePort, TrafficPolicy,
};
use crate::source::{Fault, Problem};

/// Set on objects that another proxy serves (well-known label).
pub(super) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Set on headless Services and their slices (well-known label).
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Converts a Service. Headless ones and ExternalNames are not ours; of those of another proxy the addresses are.
pub fn service(object: api::Service) -> Conversion {
    let name = fields::namespaced(Kind::Service, &object.metadata)?;
    if has_label(&object.metadata, HEADLESS) {
        return Ok(None);
    }
    let foreign = has_label(&object.metadata, PROXY_NAME);
    let reject = |fault: Fault| fault.of(Kind::Service, &name);

    let spec = object.spec.unwrap_or_default();
    match spec.type_.as_deref().unwrap_or_default() {
        "" | "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        "ExternalName" => return Ok(None),
        other => {
            let problem = Problem::ServiceType(other.to_owned());
            return Err(reject(Fault::new("spec.type", problem)));
        }
    }
    let (field, texts) = match spec.cluster_ips {
        Some(texts) if !texts.is_empty() => ("spec.clusterIPs", texts),
        _ => ("spec.clusterIP", Vec::from_iter(spec.cluster_ip)),
    };
    match texts.first().map(String::as_str) {
        Some("None") => return Ok(None),
        None | Some("") => return Err(reject(Fault::new(field, Problem::NoClusterIp))),
        Some(_) => {}
    }
    let (cluster_ips, faults) = dual_stack(field, &texts);
    if foreign {
        let object = Object::Foreign(ForeignService { name, cluster_ips });
        return Ok(Some(Converted::whole(object)));
    }
    // A frontend that silently lacks one of its addresses would be another Service than the one written.
    if let Some(fault) = faults.into_iter().next() {
        return Err(reject(fault));
    }
    let policy = |field: &str, text: Option<String>| {
        traffic_policy(text.as_deref()).map_err(|problem| reject(Fault::new(field, problem)))
    };
    let external_traffic_policy =
        policy("spec.externalTrafficPolicy", spec.external_traffic_policy)?;
    let health_check_node_port = match spec.health_check_node_port {
        None | Some(0) => None,
        Some(_) if external_traffic_policy == TrafficPolicy::Cluster => None,
        Some(number) => Some(
            fields::port(number)
                .map_err(|problem| reject(Fault::new("spec.healthCheckNodePort", problem)))?,
        ),
    };
    let mut flaws = Vec::new();
    let texts = spec.external_ips.into_iter().flatten().enumerate();
    let texts = texts.map(|(index, text)| (format!("spec.externalIPs[{index}]"), text));
    let external_ips = addresses(texts, &mut flaws);
    let status = object.status.and_then(|status| status.load_balancer);
    let load_balancer_ips = addresses(virtual_ips(status.unwrap_or_default()), &mut flaws);
    Ok(Some(Converted {
        object: Object::Service(Service {
            cluster_ips,
            ports: ports(spec.ports.unwrap_or_default()).map_err(reject)?,
            external_ips,
            load_balancer_ips,
            source_ranges: source_ranges(&spec.load_balancer_source_ranges.unwrap_or_default())
                .map_err(reject)?,
            internal_traffic_policy: policy(
                "spec.internalTrafficPolicy",
                spec.internal_traffic_policy,
            )?,
            external_traffic_policy,
            health_check_node_port,
            affinity_seconds: affinity(
                spec.session_affinity.as_deref().unwrap_or_default(),
                spec.session_affinity_config,
            )
            .map_err(reject)?,
            selector: spec.selector.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
            labels: object.metadata.labels.unwrap_or_default(),
            name,
        }),
        flaws,
    }))
}

/// Converts a ServiceCIDR.
pub fn service_cidr(object: net::ServiceCIDR) -> Conversion {
    let name = fields::cluster(Kind::ServiceCidr, &object.metadata)?;
    let texts = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    let mut flaws = Vec::new();
    let mut cidrs = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse_cidr(text) {
            Ok(cidr) => cidrs.push(cidr),
            Err(problem) => flaws.push(Fault::new(format!("spec.cidrs[{index}]"), problem)),
        }
    }
    let name = name.name;
    let object = Object::ServiceCidr(ServiceCidr { name, cidrs });
    Ok(Some(Converted { object, flaws }))
}

fn affinity(kind: &str, config: Option<api::SessionAffinityConfig>) -> Result<Option<u32>, Fault> {
    /// The API's default and limit.
    const DEFAULT: i32 = 10_800;
    const MOST: u32 = 86_400;
    match kind {
        "" | "None" => return Ok(None),
        "ClientIP" => {}
        other => {
            let problem = Problem::SessionAffinity(other.to_owned());
            return Err(Fault::new("spec.sessionAffinity", problem));
        }
    }
    let config = config.and_then(|config| config.client_ip);
    let seconds = config
        .and_then(|config| config.timeout_seconds)
        .unwrap_or(DEFAULT);
    match u32::try_from(seconds) {
        Ok(seconds @ 1..=MOST) => Ok(Some(seconds)),
        _ => Err(Fault::new(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            Problem::AffinityTimeout(seconds),
        )),
    }
}

/// Ranges, around which the API has let people write spaces. One that cannot be read refuses the Service: without it, others could
/// be let in.
fn source_ranges(texts: &[String]) -> Result<Vec<IpNetwork>, Fault> {
    let read = |(index, text): (usize, &String)| {
        parse_cidr(text.trim()).map_err(|problem| {
            Fault::new(format!("spec.loadBalancerSourceRanges[{index}]"), problem)
        })
    };
    texts.iter().enumerate().map(read).collect()
}

/// Addresses beside the cluster's own: each stands for itself.
fn addresses(texts: impl Iterator<Item = (String, String)>, flaws: &mut Vec<Fault>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (field, text) in texts {
        match parse_ip(&text) {
            Ok(address) => addresses.push(address),
            Err(problem) => flaws.push(Fault::new(field, problem)),
        }
    }
    addresses
}

/// Addresses of load balancers that leave the destination as it is, with their fields. One of mode Proxy sends to nodes or pods
/// by their own addresses, and its address is to be reached through it (KEP-1860).
fn virtual_ips(status: api::LoadBalancerStatus) -> impl Iterator<Item = (String, String)> {
    let ingress = status.ingress.into_iter().flatten().enumerate();
    ingress
        .filter(|(_, ingress)| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|(index, ingress)| Some((index, ingress.ip.filter(|ip| !ip.is_empty())?)))
        .map(|(index, ip)| (format!("status.loadBalancer.ingress[{index}].ip"), ip))
}

fn traffic_policy(text: Option<&str>) -> Result<TrafficPolicy, Problem> {
    match text.unwrap_or_default() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(Problem::TrafficPolicy(other.to_owned())),
    }
}

fn ports(ports: Vec<api::ServicePort>) -> Result<Vec<ServicePort>, Fault> {
    if ports.is_empty() {
        return Err(Fault::new("spec.ports", Problem::NoPorts));
    }
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    ports
        .into_iter()
        .enumerate()
        .map(|(index, port)| {
            let fault =
                |field: &str, problem| Fault::new(format!("spec.ports[{index}].{field}"), problem);
            let port = service_port(port, fault)?;
            if !numbers.insert((port.protocol, port.port)) {
                let problem = Problem::DuplicatePort {
                    port: port.port,
                    protocol: port.protocol,
                };
                return Err(fault("port", problem));
            }
            if !names.insert(port.name.clone()) {
                return Err(fault("name", Problem::DuplicatePortName(port.name)));
            }
            Ok(port)
        })
        .collect()
}

fn service_port(
    port: api::ServicePort,
    fault: impl Fn(&str, Problem) -> Fault,
) -> Result<ServicePort, Fault> {
    let number = fields::port(port.port).map_err(|problem| fault("port", problem))?;
    let protocol =
        fields::protocol(port.protocol.as_deref()).map_err(|problem| fault("protocol", problem))?;
    let target_port = match port.target_port {
        // The API server puts the port where the target is missing, 0 or empty.
        None | Some(IntOrString::Int(0)) => number.to_string(),
        Some(IntOrString::String(name)) if name.is_empty() => number.to_string(),
        Some(IntOrString::Int(target)) => fields::port(target)
            .map_err(|problem| fault("targetPort", problem))?
            .to_string(),
        Some(IntOrString::String(name)) => name,
    };
    let node_port = match port.node_port {
        None | Some(0) => None,
        Some(number) => Some(fields::port(number).map_err(|problem| fault("nodePort", problem))?),
    };
    Ok(ServicePort {
        name: port.name.unwrap_or_default(),
        protocol,
        port: number,
        node_port,
        target_port,
    })
}
