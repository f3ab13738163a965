//! Packets that fit the device that they start at, and not their way.

use std::collections::BTreeMap;

use super::{Device, Facts, Finding, Harm};
use crate::netlink::Peer;

pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    for device in &facts.devices {
        tunnel(device, findings);
        ends(device, findings);
    }
    findings.extend(way(facts));
}

/// The kernel checks a tunnel's MTU when that is set, not when the device below changes.
fn tunnel(device: &Device, findings: &mut Vec<Finding>) {
    let Some(room) = device.room else { return };
    let (name, mtu) = (&device.name, device.mtu);
    if mtu > room {
        findings.push(Finding {
            name: "tunnel-mtu",
            harm: Harm::Certain,
            seen: format!("{name} has MTU {mtu}, and room for {room} in packets of the device below"),
            why: "packets of pods go in fragments, each lost where the network has no room for it or takes none",
            fix: set(name, room),
        });
    }
}

/// A device sends what its own MTU allows, and receives what its own MTU allows.
fn ends(device: &Device, findings: &mut Vec<Finding>) {
    let Some(peer) = &device.peer else { return };
    let (name, mtu) = (&device.name, device.mtu);
    if mtu != peer.mtu {
        findings.push(Finding {
            name: "veth-mtu",
            harm: Harm::Certain,
            seen: format!(
                "{name} has MTU {mtu}, its other end in the pod {}",
                peer.mtu
            ),
            why: "the kernel drops what fits one end and not the other, and tells nobody",
            fix: set(name, peer.mtu),
        });
    }
}

/// Whether pods send packets that the narrowest device out of the node cannot.
fn way(facts: &Facts) -> Option<Finding> {
    let nets = facts.devices.iter().filter(|device| device.leads_out);
    let narrow = nets.min_by_key(|device| device.mtu)?;
    let pods = facts.devices.iter().filter(|device| !device.leads_out);
    let wide: BTreeMap<_, _> = pods
        .filter(|pod| sends(pod) > narrow.mtu)
        .map(|pod| (&pod.name, pod.peer.as_ref()))
        .collect();
    let names: Vec<_> = wide.keys().map(|name| name.as_str()).collect();
    let fixes = wide.iter().flat_map(|(name, peer)| {
        let inside = peer.map(|peer| set_inside(peer, narrow.mtu));
        inside.into_iter().chain([set(name, narrow.mtu)])
    });
    (!names.is_empty()).then(|| Finding {
        name: "pod-mtu",
        harm: Harm::Possible,
        seen: format!("pods behind {} send packets of more than {} bytes, the MTU of {}", names.join(", "), narrow.mtu, narrow.name),
        why: "their connections hang where the ICMP errors that tell of it are lost; new pods get their MTU from the network plugin's configuration",
        fix: fixes.collect::<Vec<_>>().join(" && "),
    })
}

/// Most bytes of a packet that gets out of a pod.
fn sends(pod: &Device) -> u32 {
    let peer = pod.peer.as_ref();
    peer.map_or(pod.mtu, |peer| peer.mtu.min(pod.mtu))
}

fn set(device: &str, mtu: u32) -> String {
    format!("ip link set dev {device} mtu {mtu}")
}

/// The same in a pod, whose namespace `ip` knows by a name that this node's files tell.
fn set_inside(peer: &Peer, mtu: u32) -> String {
    let Peer { netns, name, .. } = peer;
    format!(
        "ip -n $(ip netns list-id nsid {netns} | sed 's/.*: //; s/)//') link set dev {name} mtu {mtu}"
    )
}
