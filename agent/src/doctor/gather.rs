//! Looks at the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Device, Facts};
use crate::datapath::{self, Programs};
use crate::netlink::{self, Details, Family, LinkKind, LinkTable, Tunnel, netfilter};
use crate::takeover::{self, Ipvs, Remains};

/// What a file system for BPF is told by (linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Why the node cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Devices cannot be listed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Rules cannot be read.
    #[error(
        "cannot read the rules of nf_tables ({0}): run this as root in the node's network namespace"
    )]
    Rules(#[source] io::Error),
    /// Programs cannot be listed.
    #[error(transparent)]
    Programs(#[from] datapath::Error),
}

/// What an agent of this node knows; without one, it is guessed from routes.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Devices of pods.
    pub pods: BTreeSet<u32>,
    /// Uplinks and tunnels.
    pub nets: BTreeSet<u32>,
    /// Addresses of pods by device.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Uplinks that are to have a program at XDP.
    pub xdp: BTreeSet<u32>,
    /// Cgroup whose sockets are served.
    pub cgroup: Option<PathBuf>,
    /// Whether the kernel does not tell which of them are the node's own.
    pub lacks_cookie: bool,
}

/// Looks at the node. `known`: what its agent says, if one answers; `bpffs`: the directory of its pins.
///
/// # Errors
/// When the kernel does not tell.
pub async fn gather(known: Option<Known>, bpffs: &Path) -> Result<Facts, Error> {
    let table = netlink::links().await?;
    let ruleset = netfilter::ruleset().map_err(Error::Rules)?;
    let served = known.is_some();
    let known = known.unwrap_or_else(|| guess(&table));
    let details = netlink::details(&known.pods).await?;
    let programs = match Programs::of(bpffs)? {
        // An agent has pins: those of another directory than this, and nobody's programs can be told from its own.
        None if served => None,
        programs => Some(programs.unwrap_or_default()),
    };
    let mut devices = Vec::new();
    for ifindex in known.pods.iter().chain(&known.nets) {
        let (Some(mut device), Some(found)) =
            (device(&table, *ifindex, &known), details.get(ifindex))
        else {
            continue;
        };
        device.mtu = found.mtu;
        device.room = found
            .tunnel
            .and_then(|tunnel| room(tunnel, &known, &details));
        device.peer.clone_from(&found.peer);
        if let Some(programs) = &programs {
            add_programs(&mut device, programs, *ifindex, found)?;
        }
        devices.push(device);
    }
    let sockets = match (&programs, &known.cgroup) {
        // The agent may see other files than this process does.
        (Some(programs), Some(cgroup)) if cgroup.is_dir() => programs.at_cgroup(cgroup)?,
        _ => Vec::new(),
    };
    let pods = known
        .addresses
        .iter()
        .filter_map(|(address, ifindex)| Some((*address, seen_by_netfilter(&table, *ifindex)?)));
    let remains = Remains::of(&ruleset);
    Ok(Facts {
        served,
        kube_proxy: takeover::kube_proxy(),
        remains: remains.parts(),
        foreign: remains.foreign().to_vec(),
        ipvs: Ipvs::of(&table),
        devices,
        pods: pods.collect(),
        forwards_v4: setting("ipv4/ip_forward") != Some(0),
        forwards_v6: setting("ipv6/conf/all/forwarding") != Some(0),
        rp_filter: setting("ipv4/conf/all/rp_filter").unwrap_or_default(),
        bridges_v4: setting("bridge/bridge-nf-call-iptables").map(|value| value != 0),
        bridges_v6: setting("bridge/bridge-nf-call-ip6tables").map(|value| value != 0),
        bpffs: missing_bpffs(bpffs),
        lacks_cookie: known.lacks_cookie,
        sockets,
        ruleset,
    })
}

/// Veths with a route to a single address, or in a bridge, lead to pods; devices with a default route lead out.
fn guess(table: &LinkTable) -> Known {
    let is = |ifindex: &u32, kind| {
        table
            .links
            .get(ifindex)
            .is_some_and(|link| link.kind == kind)
    };
    let routes = table.host_routes.iter().flat_map(|(address, devices)| {
        let devices = devices.iter().filter(|ifindex| is(ifindex, LinkKind::Veth));
        devices.map(|ifindex| (*address, *ifindex))
    });
    let addresses: BTreeMap<_, _> = routes.collect();
    let links = table.links.iter();
    let ports = links.filter(|(_, link)| {
        let bridge = link.controller;
        link.kind == LinkKind::Veth && bridge.is_some_and(|bridge| is(&bridge, LinkKind::Bridge))
    });
    let ports = ports.map(|(ifindex, _)| *ifindex);
    Known {
        pods: addresses.values().copied().chain(ports).collect(),
        nets: table.default_routes.clone(),
        addresses,
        ..Known::default()
    }
}

/// A bridge takes the packets of its ports.
fn seen_by_netfilter(table: &LinkTable, ifindex: u32) -> Option<String> {
    let link = table.links.get(&ifindex)?;
    let bridge = link.controller.and_then(|bridge| table.links.get(&bridge));
    Some(bridge.unwrap_or(link).name.clone())
}

fn device(table: &LinkTable, ifindex: u32, known: &Known) -> Option<Device> {
    let link = table.links.get(&ifindex)?;
    // It is the bridge that forwards.
    let name = seen_by_netfilter(table, ifindex)?;
    let of = |name: &str, what: &str| setting(&format!("{name}/{what}"));
    // A node without IPv6 need not forward it.
    let mut addresses = known.addresses.keys();
    let v6 = addresses.any(|address| Family::of(*address) == Family::V6);
    Some(Device {
        leads_out: known.nets.contains(&ifindex),
        uplink: known.nets.contains(&ifindex) && link.kind != LinkKind::Tunnel,
        forwards_v4: of(&format!("ipv4/conf/{name}"), "forwarding") != Some(0),
        forwards_v6: if v6 {
            of(&format!("ipv6/conf/{name}"), "forwarding").map(|value| value != 0)
        } else {
            None
        },
        rp_filter: of(&format!("ipv4/conf/{}", link.name), "rp_filter").unwrap_or_default(),
        wants_xdp: known.xdp.contains(&ifindex),
        name: link.name.clone(),
        forwarder: name,
        ..Device::default()
    })
}

/// What fits into a tunnel; where routes decide what it goes through, that may be the widest uplink.
fn room(tunnel: Tunnel, known: &Known, details: &BTreeMap<u32, Details>) -> Option<u32> {
    let below = match tunnel.below {
        Some(below) => details.get(&below).map(|below| below.mtu),
        None => {
            let uplinks = known.nets.iter().filter_map(|ifindex| details.get(ifindex));
            let uplinks = uplinks.filter(|uplink| uplink.tunnel.is_none());
            uplinks.map(|uplink| uplink.mtu).max()
        }
    };
    below?.checked_sub(tunnel.overhead)
}

/// A device that goes meanwhile has none.
fn add_programs(
    device: &mut Device,
    programs: &Programs,
    ifindex: u32,
    details: &Details,
) -> Result<(), datapath::Error> {
    match programs.at_device(ifindex) {
        Err(error) if error.is_device_gone() => {}
        found => [device.ingress, device.egress] = found?,
    }
    let xdp = details.xdp.iter();
    device.xdp = xdp
        .map(|(mode, program)| (*mode, programs.at_xdp(ifindex, *program)))
        .collect();
    Ok(())
}

/// A number under /proc/sys/net of this network namespace; `None` where there is none.
fn setting(name: &str) -> Option<u32> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
    text.trim().parse().ok()
}

/// Where a BPF file system is missing for pins in that directory, which the agent makes where it is not there.
fn missing_bpffs(directory: &Path) -> Option<String> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statfs(existing).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC);
    let mount = directory.parent().unwrap_or(directory);
    (!found).then(|| mount.display().to_string())
}
