//! Tunnels between nodes, as flannel's vxlan backend makes them, and its masquerading of what leaves the cluster.
//!
//! Pods of each family have a device of their own, which tunnels over the underlay's same family. Nothing is learned or
//! flooded: for each other node there is one route, one neighbour and one forwarding entry.

use anyhow::Result;

use super::spec::{self, DualStack};
use crate::netns::Namespace;

/// The device that carries IPv4 pods over IPv4.
pub const TUNNEL_V4: &str = "flannel.1";
/// The device that carries IPv6 pods over IPv6.
pub const TUNNEL_V6: &str = "flannel-v6.1";

/// The MTU of pods behind the overlay, which know no family: what fits through the narrower tunnel. The underlay's 1500 bytes
/// less Ethernet (14), VXLAN (8), UDP (8) and IPv6 (40).
pub const OVERLAY_MTU: u16 = 1430;
/// The same with IPv4 (20).
const MTU_V4: u16 = 1450;

/// Flannel's choice, and Linux's own before there was an assigned port.
const PORT: u16 = 8472;
const VNI: u8 = 1;

/// Gives the node numbered `n` its ends of all tunnels.
pub(crate) fn prepare_node(node: &Namespace, n: u8) -> Result<()> {
    let (DualStack { v4, v6 }, local, mac) = (spec::pod(n, 0), spec::node(n), mac(n));
    node.ip(&format!(
        "link add {TUNNEL_V4} address {mac} mtu {MTU_V4} type vxlan id {VNI} dstport {PORT} local {0} dev eth0 nolearning\n\
         link add {TUNNEL_V6} address {mac} mtu {OVERLAY_MTU} type vxlan id {VNI} dstport {PORT} local {1} dev eth0 nolearning\n\
         addr add {v4}/32 dev {TUNNEL_V4}\n\
         addr add {v6}/128 dev {TUNNEL_V6} nodad\n\
         link set {TUNNEL_V4} up\n\
         link set {TUNNEL_V6} up\n",
        local.v4, local.v6
    ))?;
    node.nft(&masquerade(n))
}

/// Leads from a node through the tunnels to the pods of the node numbered `n`.
pub(crate) fn connect(node: &Namespace, n: u8) -> Result<()> {
    let (gateway, remote, mac) = (spec::pod(n, 0), spec::node(n), mac(n));
    let (v4, v6) = spec::pod_cidrs(n);
    node.ip(&format!(
        "neigh add {0} lladdr {mac} dev {TUNNEL_V4} nud permanent\n\
         neigh add {1} lladdr {mac} dev {TUNNEL_V6} nud permanent\n\
         route add {v4} via {0} dev {TUNNEL_V4} onlink\n\
         route add {v6} via {1} dev {TUNNEL_V6} onlink\n",
        gateway.v4, gateway.v6
    ))?;
    node.bridge(&format!(
        "fdb add {mac} dev {TUNNEL_V4} dst {} self permanent\n\
         fdb add {mac} dev {TUNNEL_V6} dst {} self permanent\n",
        remote.v4, remote.v6
    ))
}

/// Has a pod, and its veth's end on the node, send no more than fits through a tunnel. A bridge follows its ports.
pub(crate) fn lower_mtu(node: &Namespace, veth: &str, pod: &Namespace) -> Result<()> {
    node.ip(&format!("link set {veth} mtu {OVERLAY_MTU}\n"))?;
    pod.ip(&format!("link set eth0 mtu {OVERLAY_MTU}\n"))
}

/// The address of both devices of the node numbered `n`.
fn mac(n: u8) -> String {
    format!("02:00:00:00:01:{n:02x}")
}

/// What pods send out of the cluster gets the node's address, and what the node forwards to other nodes' pods from elsewhere
/// too, for the answer to come back this way.
fn masquerade(n: u8) -> String {
    let (pods, cluster) = (spec::pod_cidrs(n), spec::cluster_cidrs());
    let rules = |family, pods: &str, cluster: &str, multicast| {
        format!(
            "{family} saddr {pods} {family} daddr {cluster} return
             {family} saddr {cluster} {family} daddr {pods} return
             {family} saddr != {cluster} {family} daddr {pods} return
             {family} saddr {cluster} {family} daddr != {multicast} masquerade fully-random
             {family} saddr != {cluster} {family} daddr {cluster} masquerade fully-random\n"
        )
    };
    let v4 = rules(
        "ip",
        &pods.0.to_string(),
        &cluster.0.to_string(),
        "224.0.0.0/4",
    );
    let v6 = rules(
        "ip6",
        &pods.1.to_string(),
        &cluster.1.to_string(),
        "ff00::/8",
    );
    format!(
        "table inet flannel {{ chain postrouting {{ type nat hook postrouting priority srcnat;\n{v4}{v6}}}; }}"
    )
}
