//! What on a node stands in Weir's way, and how to remove it.
//!
//! [`gather`] looks, [`findings`] judges: the latter is a function of what the former saw, and of nothing else.

mod bridge;
mod forward;
mod gather;
mod mtu;
mod programs;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use gather::{Error, Known, gather};

use crate::datapath::{Attached, OnSockets};
use crate::netlink::netfilter::Ruleset;
use crate::netlink::{Peer, XdpMode};
use crate::takeover::{Foreign, Ipvs, Part, Running};

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether an agent serves here.
    pub served: bool,
    /// kube-proxy, if it runs.
    pub kube_proxy: Option<Running>,
    /// Rules of kube-proxy in nf_tables.
    pub remains: Vec<Part>,
    /// Rules of others that lead to those.
    pub foreign: Vec<Foreign>,
    /// What its mode `ipvs` left besides.
    pub ipvs: Ipvs,
    /// All rules in nf_tables.
    pub ruleset: Ruleset,
    /// Devices that Weir serves, or would.
    pub devices: Vec<Device>,
    /// Pods, each with the device by which netfilter sees its packets.
    pub pods: Vec<(IpAddr, String)>,
    /// Whether new devices forward IPv4 packets.
    pub forwards_v4: bool,
    /// The same for IPv6.
    pub forwards_v6: bool,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter: u32,
    /// Whether netfilter sees IPv4 packets within bridges; `None` where the kernel cannot have it so.
    pub bridges_v4: Option<bool>,
    /// The same for IPv6.
    pub bridges_v6: Option<bool>,
    /// Where a BPF file system is missing.
    pub bpffs: Option<String>,
    /// Whether the node's own sockets are to be served, and the kernel does not tell which these are.
    pub lacks_cookie: bool,
    /// Programs for the sockets that Weir serves, by hook in the order in which they run.
    pub sockets: Vec<OnSockets>,
}

/// A device.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Name of the device that forwards what it gets: itself, or its bridge.
    pub forwarder: String,
    /// Whether it leads out of the node.
    pub leads_out: bool,
    /// Whether it does so, and is no tunnel.
    pub uplink: bool,
    /// Most bytes of a packet that it carries.
    pub mtu: u32,
    /// What a tunnel's MTU may be at most, as far as that is known.
    pub room: Option<u32>,
    /// Its other end in a pod.
    pub peer: Option<Peer>,
    /// Whether that forwards IPv4 packets.
    pub forwards_v4: bool,
    /// Whether it forwards IPv6 packets; `None` where it has no IPv6.
    pub forwards_v6: Option<bool>,
    /// Its own `rp_filter`.
    pub rp_filter: u32,
    /// Programs that see what comes in by it, in the order in which they run.
    pub ingress: Vec<Attached>,
    /// The same for what goes out by it.
    pub egress: Vec<Attached>,
    /// Programs at XDP.
    pub xdp: Vec<(XdpMode, Attached)>,
    /// Whether Weir is to have one there.
    pub wants_xdp: bool,
}

/// Whether what was found does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Harm {
    /// It does.
    Certain,
    /// That depends on what cannot be seen.
    Possible,
}

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What kind it is.
    pub name: &'static str,
    /// Whether it does harm.
    pub harm: Harm,
    /// What was seen.
    pub seen: String,
    /// Why it matters.
    pub why: &'static str,
    /// A command that removes it.
    pub fix: String,
}

/// What stands in Weir's way, in the order in which to remove it.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    bpffs(facts, &mut findings);
    kube_proxy(facts, &mut findings);
    forwarding(facts, &mut findings);
    cookie(facts, &mut findings);
    findings.extend(forward::finding(facts));
    findings.extend(bridge::finding(facts));
    reverse_path(facts, &mut findings);
    mtu::findings(facts, &mut findings);
    programs::findings(facts, &mut findings);
    findings
}

fn bpffs(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(mount) = &facts.bpffs {
        findings.push(Finding {
            name: "no-bpf-file-system",
            harm: Harm::Certain,
            seen: format!("no BPF file system is mounted at {mount}"),
            why: "programs and connections would not outlive the agent; it does not start",
            fix: format!("weir init --mount {mount}"),
        });
    }
}

fn kube_proxy(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(running) = &facts.kube_proxy {
        findings.push(Finding {
            name: "kube-proxy-runs",
            harm: Harm::Certain,
            seen: running.to_string(),
            why: "it makes its rules again whenever they are removed, and holds the health and metrics ports",
            fix: running.end(),
        });
    }
    if !facts.remains.is_empty() {
        let seen: Vec<_> = facts.remains.iter().map(ToString::to_string).collect();
        findings.push(Finding {
            name: "kube-proxy-rules",
            harm: Harm::Certain,
            seen: seen.join(", "),
            why: "what Weir leaves alone they send to endpoints that are outdated, and every packet passes them",
            fix: takeover(facts).to_owned(),
        });
    }
    ipvs(facts, findings);
    // Beside kube-proxy these are as they should be.
    if facts.kube_proxy.is_some() {
        return;
    }
    for foreign in &facts.foreign {
        findings.push(Finding {
            name: "rule-into-kube-proxy",
            harm: Harm::Possible,
            seen: format!("{foreign}, of which {} are kube-proxy's", foreign.keeps.join(", ")),
            why: "it works as long as these stay, so `weir takeover` leaves them; without kube-proxy nobody makes them again",
            fix: format!("{} && {}", foreign.delete(), takeover(facts)),
        });
    }
}

fn ipvs(facts: &Facts, findings: &mut Vec<Finding>) {
    let Ipvs { device, servers } = &facts.ipvs;
    if let Some(device) = device {
        findings.push(Finding {
            name: "kube-proxy-ipvs-device",
            harm: Harm::Certain,
            seen: format!("device {} has {} addresses", device.name, device.addresses),
            why: "the node takes these for its own, also those that no Service has any more",
            fix: takeover(facts).replacen("weir takeover", "weir takeover --ipvs", 1),
        });
    }
    if *servers > 0 {
        findings.push(Finding {
            name: "ipvs-servers",
            harm: Harm::Possible,
            seen: format!("IPVS has {servers} virtual servers"),
            why: "if they are kube-proxy's, they send what Weir leaves alone to endpoints that are outdated",
            fix: "ipvsadm --clear # all of them: others', too, if there are any".to_owned(),
        });
    }
}

fn takeover(facts: &Facts) -> &'static str {
    if facts.served {
        "weir takeover"
    } else {
        // Services must not lose the only one who serves them.
        "weir takeover # once `weir status` answers"
    }
}

fn forwarding(facts: &Facts, findings: &mut Vec<Finding>) {
    const WHY: &str = "packets to and from pods are dropped after Weir has let them pass";
    let names = |without: &dyn Fn(&Device) -> bool| {
        let devices = facts.devices.iter().filter(|device| without(device));
        let names: BTreeSet<_> = devices.map(|device| device.forwarder.clone()).collect();
        (!names.is_empty()).then(|| Vec::from_iter(names))
    };
    if let Some(off) = names(&|device| !device.forwards_v4) {
        findings.push(Finding {
            name: "forwarding-off-v4",
            harm: Harm::Certain,
            seen: format!("IPv4 forwarding is off on {}", off.join(", ")),
            why: WHY,
            fix: turned_on("ipv4", facts.forwards_v4, "net.ipv4.ip_forward=1", &off),
        });
    }
    if let Some(off) = names(&|device| device.forwards_v6 == Some(false)) {
        let all = "net.ipv6.conf.all.forwarding=1";
        findings.push(Finding {
            name: "forwarding-off-v6",
            harm: Harm::Certain,
            seen: format!("IPv6 forwarding is off on {}", off.join(", ")),
            why: WHY,
            fix: turned_on("ipv6", facts.forwards_v6, all, &off),
        });
    }
}

/// Devices take the setting of all only when that changes.
fn turned_on(family: &str, all_on: bool, all: &str, devices: &[String]) -> String {
    if !all_on {
        return format!("sysctl -w {all}");
    }
    let settings = devices
        .iter()
        .map(|name| format!(" net.{family}.conf.{}.forwarding=1", dotted(name)));
    format!("sysctl -w{}", settings.collect::<String>())
}

/// A device's name as a part of a setting's, whose parts have dots between them.
fn dotted(name: &str) -> String {
    name.replace('.', "/")
}

fn cookie(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.lacks_cookie {
        findings.push(Finding {
            name: "no-netns-cookie",
            harm: Harm::Certain,
            seen: "the kernel does not tell the node's own sockets from pods' (SO_NETNS_COOKIE)"
                .to_owned(),
            why: "processes of the node, those of host-network pods among them, do not reach Services",
            fix: "reboot # into Linux 5.14 or newer".to_owned(),
        });
    }
}

/// One uplink is well with it: what comes in by it goes out by it (measured, see DESIGN.md).
fn reverse_path(facts: &Facts, findings: &mut Vec<Finding>) {
    const STRICT: u32 = 1;
    const LOOSE: u32 = 2;
    let uplinks = facts.devices.iter().filter(|device| device.uplink);
    if uplinks.clone().count() < 2 {
        return;
    }
    // The kernel goes by the greater of the two (ip-sysctl: rp_filter).
    for device in uplinks.filter(|device| device.rp_filter.max(facts.rp_filter) == STRICT) {
        let name = &device.name;
        findings.push(Finding {
            name: "strict-reverse-path",
            harm: Harm::Certain,
            seen: format!("rp_filter is strict on {name}, one of several uplinks"),
            why: "the kernel drops clients of Services that come by another uplink than the one that leads back to them",
            fix: format!("sysctl -w net.ipv4.conf.{}.rp_filter={LOOSE}", dotted(name)),
        });
    }
}
