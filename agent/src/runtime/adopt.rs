//! Connections that were opened before Weir served here, by way of kube-proxy or of nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::datapath::KernelDatapath;
use crate::model::Snapshot;
use crate::netlink::netfilter;

/// Enters what netfilter tracks. Without it the connections are judged as if their next packet opened them, and those to Services
/// may get another backend, which knows nothing of them.
pub(super) fn connections(datapath: &KernelDatapath, snapshot: &Snapshot) {
    let node = snapshot.nodes.get(&snapshot.node_name);
    let addresses: BTreeSet<IpAddr> = node
        .map(|node| node.addresses.iter().copied().collect())
        .unwrap_or_default();
    let tracked = match netfilter::connections() {
        Ok(tracked) => tracked,
        Err(error) => {
            tracing::warn!("cannot list the connections that netfilter tracks: {error}");
            return;
        }
    };
    match datapath.adopt(&tracked, &addresses) {
        Ok(0) => {}
        Ok(entered) => tracing::info!(entered, "entered connections that netfilter tracks"),
        Err(error) => tracing::warn!("{error}"),
    }
}
