//! Pods in every state that changes what policies do with them.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::random::Random;
use super::{lattice, node_name};

/// What is special about a generated pod.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    /// Has been given a node but no address yet.
    WithoutAddress,
    HostNetwork,
    /// Is over, and still shows an address that may be a live pod's by now.
    Over,
    /// Is being deleted, its containers still run.
    Terminating,
    /// Shows the address of another live pod, as for a moment when an address changes hands.
    Twin,
}

const KINDS: [Kind; 12] = {
    use Kind::{HostNetwork, Over, Plain, Terminating, Twin, WithoutAddress};
    [
        Plain,
        Plain,
        Plain,
        Plain,
        Plain,
        Plain,
        WithoutAddress,
        HostNetwork,
        Over,
        Over,
        Terminating,
        Twin,
    ]
};

/// Pods spread over the namespaces and nodes, most of them with addresses of both families.
pub(super) fn pods(random: &mut Random, namespaces: &[&str], nodes: usize) -> Vec<Pod> {
    let count = random.between(5, 9);
    let mut pods = Vec::with_capacity(count);
    // Where live pods are, for others to show the same addresses.
    let mut places: Vec<(usize, Vec<String>)> = Vec::new();
    for number in 0..count {
        // The first two are plain, so that every cluster has somebody to talk.
        let kind = if number < 2 {
            Kind::Plain
        } else {
            *random.pick(&KINDS)
        };
        let node = random.between(1, nodes);
        let (node, addresses) = match kind {
            Kind::WithoutAddress => (node, Vec::new()),
            Kind::HostNetwork => (
                node,
                vec![lattice::node_ipv4(node), lattice::node_ipv6(node)],
            ),
            Kind::Over if random.one_in(2) => (node, fresh_addresses(random, node, number)),
            Kind::Over | Kind::Twin => places[random.below(places.len())].clone(),
            Kind::Plain | Kind::Terminating => {
                places.push((node, fresh_addresses(random, node, number)));
                places[places.len() - 1].clone()
            }
        };
        // Namespaces in turn: each has pods, and equal names meet in several of them.
        let namespace = namespaces[number % namespaces.len()];
        let name = format!("pod-{}", number / namespaces.len());
        pods.push(pod(random, kind, namespace, name, node, addresses));
    }
    // The order of the list must not tell which pod is alive or newer.
    let turn = random.below(count);
    pods.rotate_left(turn);
    pods
}

fn pod(
    random: &mut Random,
    kind: Kind,
    namespace: &str,
    name: String,
    node: usize,
    addresses: Vec<String>,
) -> Pod {
    let second = 1_700_000_000 + random.below(1_000_000) as i64;
    let started = Timestamp::from_second(second).expect("a time in range");
    let metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        uid: Some(format!("{namespace}-{name}")),
        name: Some(name),
        labels: random.labels(),
        creation_timestamp: Some(Time(started)),
        deletion_timestamp: matches!(kind, Kind::Terminating).then_some(Time(started)),
        ..ObjectMeta::default()
    };
    let spec = PodSpec {
        node_name: Some(node_name(node)),
        host_network: match kind {
            Kind::HostNetwork => Some(true),
            _ => random.one_in(2).then_some(false),
        },
        containers: vec![main_container(random)],
        init_containers: init_containers(random),
        ..PodSpec::default()
    };
    let phase = match kind {
        Kind::Over => *random.pick(&["Succeeded", "Failed"]),
        Kind::WithoutAddress => "Pending",
        _ => "Running",
    };
    let status = PodStatus {
        phase: Some(phase.to_owned()),
        pod_ip: addresses.first().cloned(),
        pod_ips: (!addresses.is_empty())
            .then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
        ..PodStatus::default()
    };
    Pod {
        metadata,
        spec: Some(spec),
        status: Some(status),
    }
}

/// Mostly both families, in either order; sometimes one.
fn fresh_addresses(random: &mut Random, node: usize, number: usize) -> Vec<String> {
    let (ipv4, ipv6) = (
        lattice::pod_ipv4(node, number + 2),
        lattice::pod_ipv6(node, number + 2),
    );
    match random.below(8) {
        0 => vec![ipv4],
        1 => vec![ipv6],
        2 => vec![ipv6, ipv4],
        _ => vec![ipv4, ipv6],
    }
}

/// Serves `web` on a number that differs from pod to pod, and maybe `dns` on both protocols or one.
fn main_container(random: &mut Random) -> Container {
    let mut ports = Vec::new();
    if !random.one_in(4) {
        ports.push(port(Some("web"), *random.pick(&[80, 8080]), None));
    }
    match random.below(4) {
        0 => ports.push(port(Some("dns"), 53, Some("UDP"))),
        1 => ports.push(port(Some("dns"), 53, Some("TCP"))),
        2 => ports.push(port(None, 8081, Some("TCP"))),
        _ => {}
    }
    Container {
        name: "main".to_owned(),
        ports: (!ports.is_empty()).then_some(ports),
        ..Container::default()
    }
}

/// A sidecar's port names count, those of an init container that ends do not.
fn init_containers(random: &mut Random) -> Option<Vec<Container>> {
    let (name, restart_policy) = match random.below(4) {
        0 => ("sidecar", Some("Always".to_owned())),
        1 => ("setup", None),
        _ => return None,
    };
    let ports = vec![
        port(Some("metrics"), 9090, None),
        port(Some("dns"), 5353, Some("SCTP")),
        // The main container may give this name, too.
        port(Some("web"), 8443, None),
    ];
    Some(vec![Container {
        name: name.to_owned(),
        ports: Some(ports),
        restart_policy,
        ..Container::default()
    }])
}

fn port(name: Option<&str>, container_port: i32, protocol: Option<&str>) -> ContainerPort {
    ContainerPort {
        container_port,
        name: name.map(str::to_owned),
        protocol: protocol.map(str::to_owned),
        ..ContainerPort::default()
    }
}
