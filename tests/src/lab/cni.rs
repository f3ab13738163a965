//! Pod networks: what an administrator installs before the first pod.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::spec::Cni;
use crate::netns::Namespace;
use crate::topology::underlay::routes_to;
use crate::topology::{OVERLAY_MTU, overlay, spec};

/// The MTU of the nodes' network.
const MTU: u16 = 1500;

/// The network of all pods.
pub(super) const POD_CIDRS: &str = "10.244.0.0/16,fd10:244::/56";

/// The file in `/etc/cni/net.d` of the node numbered `n`: its name and content. The kubelet calls a node ready once it is there.
pub(super) fn config(cni: Cni, n: u8) -> Result<(&'static str, Vec<u8>)> {
    let (v4, v6) = spec::pod_cidrs(n);
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": v4.to_string()}], [{"subnet": v6.to_string()}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    let main = match cni {
        Cni::Ptp => json!({"type": "ptp", "ipMasq": false, "mtu": MTU, "ipam": ipam}),
        Cni::Bridge | Cni::BridgeNf => bridge(MTU, &ipam),
        // The flannel plugin itself writes such a configuration, and calls this plugin with it.
        Cni::Vxlan | Cni::Flannel => bridge(OVERLAY_MTU, &ipam),
    };
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [main, {"type": "portmap", "capabilities": {"portMappings": true}}],
    });
    Ok(("10-pods.conflist", serde_json::to_vec_pretty(&config)?))
}

fn bridge(mtu: u16, ipam: &Value) -> Value {
    json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "hairpinMode": true,
        "mtu": mtu,
        "ipam": ipam,
    })
}

/// Prepares the node numbered `n` of `nodes`, before its first pod.
pub(super) fn prepare(cni: Cni, node: &Namespace, n: u8, nodes: u8) -> Result<()> {
    let mut others = (1..=nodes).filter(|&other| other != n);
    match cni {
        Cni::Ptp => lead(node, others),
        Cni::Bridge | Cni::BridgeNf => {
            lead(node, others)?;
            frames_pass_netfilter(node, cni == Cni::BridgeNf)
        }
        Cni::Vxlan => {
            frames_pass_netfilter(node, true)?;
            overlay::prepare_node(node, n)?;
            others.try_for_each(|other| overlay::connect(node, other))
        }
        Cni::Flannel => frames_pass_netfilter(node, true),
    }
    .with_context(|| format!("prepare the pod network of node {n}"))
}

/// Leads from a machine to the pods of `nodes` by way of those nodes.
pub(super) fn lead(from: &Namespace, nodes: impl Iterator<Item = u8>) -> Result<()> {
    from.ip(&nodes.map(routes_to).collect::<String>())
}

fn frames_pass_netfilter(node: &Namespace, whether: bool) -> Result<()> {
    for table in ["iptables", "ip6tables"] {
        let setting = format!("net/bridge/bridge-nf-call-{table}");
        node.sysctl(&setting, whether.into())?;
    }
    Ok(())
}
