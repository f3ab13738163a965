//! How pods are wired to their node: what a CNI plugin leaves behind.

use anyhow::Result;

use super::spec::{self, DualStack, Shape};
use crate::netns::Namespace;

/// Prepares the node numbered `n` for pods.
pub(crate) fn prepare_node(node: &Namespace, n: u8, shape: Shape) -> Result<()> {
    let Shape::Bridge { call_iptables } = shape else {
        return Ok(());
    };
    let DualStack { v4, v6 } = spec::pod(n, 1);
    node.ip(&format!(
        "link add cni0 type bridge\n\
         addr add {v4}/24 dev cni0\n\
         addr add {v6}/64 dev cni0 nodad\n\
         link set cni0 up\n"
    ))?;
    for table in ["iptables", "ip6tables"] {
        node.sysctl(
            &format!("net/bridge/bridge-nf-call-{table}"),
            call_iptables.into(),
        )?;
    }
    Ok(())
}

/// The bridge that pods are ports of, where there is one.
pub(crate) fn bridge_of(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Ptp => None,
        Shape::Bridge { .. } => Some("cni0"),
    }
}

/// Joins `pod` by a veth named `veth` in the node numbered `n`.
pub(crate) fn connect_pod(
    node: &Namespace,
    n: u8,
    shape: Shape,
    pod: &Namespace,
    veth: &str,
    addresses: DualStack,
) -> Result<()> {
    node.ip(&format!(
        "link add {veth} type veth peer name eth0 netns {}\n",
        pod.name()
    ))?;
    match shape {
        Shape::Ptp => ptp(node, n, pod, veth, addresses),
        Shape::Bridge { .. } => bridge(node, n, pod, veth, addresses),
    }
}

/// The node is the pod's only neighbour: it holds the gateway address on every veth and a host route to the pod,
/// and the pod reaches even its own subnet through the gateway.
fn ptp(
    node: &Namespace,
    n: u8,
    pod: &Namespace,
    veth: &str,
    DualStack { v4, v6 }: DualStack,
) -> Result<()> {
    let gateway = spec::pod(n, 1);
    let (subnet4, subnet6) = spec::pod_cidrs(n);
    node.ip(&format!(
        "addr add {0}/32 dev {veth}\n\
         addr add {1}/128 dev {veth} nodad\n\
         link set {veth} up\n\
         route add {v4}/32 dev {veth} scope link\n\
         route add {v6}/128 dev {veth}\n",
        gateway.v4, gateway.v6
    ))?;
    pod.ip(&format!(
        "addr add {v4}/24 dev eth0 noprefixroute\n\
         addr add {v6}/64 dev eth0 nodad noprefixroute\n\
         link set eth0 up\n\
         route add {0} dev eth0 scope link\n\
         route add {subnet4} via {0} src {v4}\n\
         route add default via {0}\n\
         route add {1} dev eth0\n\
         route add {subnet6} via {1} src {v6}\n\
         route add ::/0 via {1}\n",
        gateway.v4, gateway.v6
    ))
}

/// Pods of a node are neighbours of each other; the bridge is their gateway.
fn bridge(
    node: &Namespace,
    n: u8,
    pod: &Namespace,
    veth: &str,
    DualStack { v4, v6 }: DualStack,
) -> Result<()> {
    let gateway = spec::pod(n, 1);
    node.ip(&format!("link set {veth} master cni0 up\n"))?;
    pod.ip(&format!(
        "addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {}\n\
         route add ::/0 via {}\n",
        gateway.v4, gateway.v6
    ))
}
