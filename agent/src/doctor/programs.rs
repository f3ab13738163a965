//! Programs of others at hooks where Weir has its own. Weir wants to be first, and lets others have what it passes on.

use super::{Device, Facts, Finding, Harm};
use crate::datapath::{Attached, Holder, OnSockets};
use crate::netlink::XdpMode;

/// For a program that a link may hold.
const IF_LINK: &str =
    " # if a link holds it: `bpftool link detach id` with what `bpftool link show` tells";
/// For a program at tcx without a link.
const NEW_BPFTOOL: &str = " # takes the last one there; bpftool 7.5 or newer";

pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    for device in &facts.devices {
        at_tc(device, "ingress", &device.ingress, findings);
        at_tc(device, "egress", &device.egress, findings);
        at_xdp(device, findings);
    }
    at_sockets(&facts.sockets, findings);
}

fn at_tc(device: &Device, direction: &str, programs: &[Attached], findings: &mut Vec<Finding>) {
    let own = programs.iter().position(|program| program.own);
    for (place, program) in foreign(programs) {
        let name = &device.name;
        let at = format!("{} at {direction} of {name}", called(program));
        let first = own.is_some_and(|own| place < own);
        findings.push(Finding {
            name: if first {
                "tc-program-before"
            } else {
                "tc-program-after"
            },
            harm: if first { Harm::Certain } else { Harm::Possible },
            seen: match own {
                Some(_) if first => format!("{at} runs before Weir's"),
                Some(_) => format!("{at} runs after Weir's"),
                None => at,
            },
            why: if first {
                "Services that it translates and packets that it redirects are kept from Weir, and so from policies"
            } else {
                "what Weir lets pass it may drop, or redirect past the programs at the other end"
            },
            fix: match program.by {
                Holder::Link(link) => link_detach(link),
                Holder::Filter { priority, handle } => {
                    format!("tc filter del dev {name} {direction} pref {priority} handle {handle:#x} bpf")
                }
                Holder::Hook | Holder::Unknown => {
                    format!("bpftool net detach tcx_{direction} dev {name}{NEW_BPFTOOL}")
                }
            },
        });
    }
}

fn at_xdp(device: &Device, findings: &mut Vec<Finding>) {
    let foreign = device.xdp.iter().filter(|(_, program)| !program.own);
    for (mode, program) in foreign {
        let name = &device.name;
        let mode = match mode {
            XdpMode::Driver => "xdpdrv",
            XdpMode::Generic => "xdpgeneric",
            XdpMode::Offload => "xdpoffload",
        };
        let off = format!("ip link set dev {name} {mode} off");
        findings.push(Finding {
            name: "xdp-program",
            harm: if device.wants_xdp {
                Harm::Certain
            } else {
                Harm::Possible
            },
            seen: format!("{} at XDP of {name}", called(program)),
            why: if device.wants_xdp {
                "Weir's own, asked for by --xdp, cannot be there"
            } else {
                "what it drops or sends on by itself Weir does not see"
            },
            fix: match program.by {
                Holder::Link(link) => link_detach(link),
                Holder::Unknown => format!("{off}{IF_LINK}"),
                Holder::Hook | Holder::Filter { .. } => off,
            },
        });
    }
}

/// New programs come after those that are there.
fn at_sockets(programs: &[OnSockets], findings: &mut Vec<Finding>) {
    for (
        place,
        OnSockets {
            hook,
            cgroup,
            attached,
        },
    ) in programs.iter().enumerate()
    {
        if attached.own {
            continue;
        }
        let mut earlier = programs[..place].iter();
        let first = !earlier.any(|other| other.hook == *hook && other.attached.own);
        let (order, cgroup) = (if first { "before" } else { "after" }, cgroup.display());
        let detach = format!(
            "bpftool cgroup detach {cgroup} {hook} id {}",
            attached.program
        );
        findings.push(Finding {
            name: if first {
                "cgroup-program-before"
            } else {
                "cgroup-program-after"
            },
            harm: if first { Harm::Certain } else { Harm::Possible },
            seen: format!("{} at {hook} of cgroup {cgroup} runs {order} Weir's", called(attached)),
            why: if first {
                "Services that it translates are kept from Weir: it has them led where Weir does not know"
            } else {
                "it may refuse or change the backend that Weir has chosen for processes of the node"
            },
            fix: match attached.by {
                Holder::Link(link) => link_detach(link),
                Holder::Unknown => format!("{detach}{IF_LINK}"),
                Holder::Hook | Holder::Filter { .. } => detach,
            },
        });
    }
}

fn foreign(programs: &[Attached]) -> impl Iterator<Item = (usize, &Attached)> {
    programs
        .iter()
        .enumerate()
        .filter(|(_, program)| !program.own)
}

fn called(program: &Attached) -> String {
    match &program.name {
        Some(name) => format!("program {} ({name})", program.program),
        None => format!("program {}", program.program),
    }
}

fn link_detach(link: u32) -> String {
    format!("bpftool link detach id {link}")
}
