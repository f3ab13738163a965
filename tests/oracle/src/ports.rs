//! Does a rule's `ports` match a flow?

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{Flow, protocol};

/// Whether any entry matches. No entries: every port of every protocol, also of protocols that
/// have no ports.
///
/// `destination` is the pod that owns the flow's destination address; a port name means what that
/// pod calls so, and nothing where there is no pod.
pub(crate) fn match_flow(
    ports: Option<&[NetworkPolicyPort]>,
    flow: &Flow,
    destination: Option<&Pod>,
) -> bool {
    match ports {
        None | Some([]) => true,
        Some(entries) => entries
            .iter()
            .any(|entry| entry_matches(entry, flow, destination)),
    }
}

fn entry_matches(entry: &NetworkPolicyPort, flow: &Flow, destination: Option<&Pod>) -> bool {
    if protocol_number(entry.protocol.as_deref()) != Some(flow.protocol) {
        return false;
    }
    let port = i32::from(flow.destination_port);
    match (&entry.port, entry.end_port) {
        (None, None) => true,
        (Some(IntOrString::Int(number)), None) => port == *number,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
        (Some(IntOrString::String(name)), None) => {
            destination.is_some_and(|pod| named_port(pod, name, flow.protocol) == Some(port))
        }
        // Validation refuses `endPort` without a number to start from.
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}

/// The port of this protocol that the pod calls `name`, in the first container that does so and
/// serves while the pod runs: regular ones, then init containers that are restarted always
/// (sidecars).
pub(crate) fn named_port(pod: &Pod, name: &str, protocol: u8) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|declared| {
            declared.name.as_deref() == Some(name)
                && protocol_number(declared.protocol.as_deref().filter(|text| !text.is_empty()))
                    == Some(protocol)
        })
        .map(|declared| declared.container_port)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The IP protocol that a policy or container names; TCP where it names none.
fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("TCP") => Some(protocol::TCP),
        Some("UDP") => Some(protocol::UDP),
        Some("SCTP") => Some(protocol::SCTP),
        Some(_) => None,
    }
}
