//! Programs of others: those that keep Weir from something, and those that may.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use weir_tests::foreign::{Foreign, Purpose};
use weir_tests::topology::{Shape, TopologySpec};

use crate::node::Node;

/// `BPF_F_BEFORE`: before all others.
const BEFORE: u32 = 1 << 3;
/// `TC_ACT_UNSPEC` (-1) for those who only look, `XDP_PASS`, and what allows a socket to go on.
const NEXT: u32 = u32::MAX;
const PASS: u32 = 2;
const ALLOW: u32 = 1;

fn spec() -> TopologySpec {
    TopologySpec::new(Shape::Ptp, 1)
}

/// Links a program to a device of the node.
fn link(node: &Node, purpose: Purpose, result: u32, device: &str, flags: u32) -> Result<OwnedFd> {
    node.place().run(|| {
        let program = Foreign::load(purpose, result)?;
        Ok(program.link(if_nametoindex(device)?, flags)?)
    })
}

/// Loads a program for the tools, which take it by a pin.
fn pin(node: &Node, purpose: Purpose, result: u32) -> Result<PathBuf> {
    let path = node.paths().bpffs.join("foreign");
    // A second one takes the place of the first.
    let _ = fs::remove_file(&path);
    Foreign::load(purpose, result)?.pin(&path)?;
    Ok(path)
}

const DIRECTIONS: [(Purpose, &str); 2] = [
    (Purpose::TcxIngress, "ingress"),
    (Purpose::TcxEgress, "egress"),
];

#[test]
fn those_that_packets_meet_first() -> Result<()> {
    let Some(node) = Node::new(Shape::Ptp)? else {
        return Ok(());
    };
    for device in ["eth0", node.veth()] {
        for (purpose, _) in DIRECTIONS {
            let _link = link(&node, purpose, NEXT, device, BEFORE)?;
            node.cure("tc-program-before", 1)?;
        }
    }
    Ok(())
}

#[test]
fn those_that_packets_meet_first_under_clsact() -> Result<()> {
    let Some(mut node) = Node::build(spec(), "clsact")? else {
        return Ok(());
    };
    node.start(&[])?;
    node.ensure_sound()?;
    for device in ["eth0", node.veth()] {
        for (purpose, direction) in DIRECTIONS {
            let link = link(&node, purpose, NEXT, device, 0)?;
            node.cure("tc-program-before", 1)?;
            drop(link);
            let path = pin(&node, purpose, NEXT)?;
            let path = path.display();
            // Of one priority the newest is first.
            node.run(&format!(
                "tc filter add dev {device} {direction} protocol all pref 1 bpf da object-pinned {path}"
            ))?;
            node.cure("tc-program-before", 1)?;
        }
    }
    Ok(())
}

#[test]
fn those_that_packets_meet_after() -> Result<()> {
    for attach in ["tcx", "clsact"] {
        let Some(mut node) = Node::build(spec(), attach)? else {
            return Ok(());
        };
        node.start(&[])?;
        for (purpose, direction) in DIRECTIONS {
            let path = pin(&node, purpose, NEXT)?;
            let path = path.display();
            node.run(&format!("tc qdisc replace dev eth0 clsact; tc filter add dev eth0 {direction} protocol all bpf da object-pinned {path}"))?;
            node.cure_possible("tc-program-after", 1)?;
            if attach == "tcx" {
                let _link = link(&node, purpose, NEXT, "eth0", 0)?;
                node.cure_possible("tc-program-after", 1)?;
            }
        }
    }
    Ok(())
}

#[test]
fn those_in_drivers() -> Result<()> {
    let Some(node) = Node::new(Shape::Ptp)? else {
        return Ok(());
    };
    let path = pin(&node, Purpose::Xdp, PASS)?;
    for mode in ["xdpdrv", "xdpgeneric"] {
        node.run(&format!(
            "ip link set dev eth0 {mode} pinned {}",
            path.display()
        ))?;
        node.cure_possible("xdp-program", 1)?;
    }
    let _link = link(&node, Purpose::Xdp, PASS, "eth0", 0)?;
    node.cure_possible("xdp-program", 1)
}

#[test]
fn those_in_drivers_where_weir_is_to_be() -> Result<()> {
    let mut spec = spec();
    spec.wires = true;
    let Some(mut node) = Node::build(spec, "auto")? else {
        return Ok(());
    };
    let path = pin(&node, Purpose::Xdp, PASS)?;
    node.run(&format!(
        "ip link set dev eth0 xdpdrv pinned {}",
        path.display()
    ))?;
    node.start(&["--xdp=auto"])?;
    node.cure("xdp-program", 1)
}

/// As by `kubectl exec`: the kernel does not tell then what links there are.
#[test]
fn those_seen_with_the_rights_of_the_agent() -> Result<()> {
    let Some(node) = Node::new(Shape::Ptp)? else {
        return Ok(());
    };
    let sound = node.doctor_as_agent()?;
    ensure!(sound == "nothing stands in Weir's way\n", "{sound}");
    let _links = [
        link(&node, Purpose::TcxIngress, NEXT, "eth0", BEFORE)?,
        link(&node, Purpose::Xdp, PASS, "eth0", 0)?,
        link_to(&node.paths().cgroup)?,
    ];
    let line = format!("link set {} mtu 1400\n", node.veth());
    node.namespace().ip(&line)?;
    let found = node.doctor_as_agent()?;
    for part in [
        "tc-program-before",
        "fix   bpftool link detach id ",
        "xdp-program (may do harm)",
        "fix   ip link set dev eth0 xdpdrv off # if a link holds it",
        "cgroup-program-after (may do harm)",
        "fix   bpftool cgroup detach ",
        "veth-mtu",
    ] {
        ensure!(found.contains(part), "{part}: {found}");
    }
    Ok(())
}

/// Weir's own there are no finding.
#[test]
fn weirs_own_in_drivers() -> Result<()> {
    let mut spec = spec();
    spec.wires = true;
    let Some(mut node) = Node::build(spec, "auto")? else {
        return Ok(());
    };
    node.start(&["--xdp=auto"])?;
    let shown = node.run("ip -d link show dev eth0")?;
    ensure!(shown.contains("xdp_net"), "{shown}");
    node.ensure_sound()
}

/// Has the tools attach a program to a cgroup.
fn attach_to(node: &Node, cgroup: &Path) -> Result<()> {
    let path = pin(node, Purpose::Connect4, ALLOW)?;
    let (cgroup, path) = (cgroup.display(), path.display());
    node.run(&format!(
        "bpftool cgroup attach {cgroup} connect4 pinned {path} multi"
    ))?;
    Ok(())
}

fn link_to(cgroup: &Path) -> Result<OwnedFd> {
    let directory = File::open(cgroup).context("open a cgroup")?;
    let program = Foreign::load(Purpose::Connect4, ALLOW)?;
    Ok(program.link(directory.as_raw_fd().cast_unsigned(), 0)?)
}

#[test]
fn those_that_sockets_meet_after() -> Result<()> {
    let Some(node) = Node::new(Shape::Ptp)? else {
        return Ok(());
    };
    let cgroup = node.paths().cgroup;
    attach_to(&node, &cgroup)?;
    node.cure_possible("cgroup-program-after", 1)?;
    let _link = link_to(&cgroup)?;
    node.cure_possible("cgroup-program-after", 1)
}

#[test]
fn those_that_sockets_meet_first() -> Result<()> {
    let Some(mut node) = Node::build(spec(), "auto")? else {
        return Ok(());
    };
    let cgroup = node.paths().cgroup;
    attach_to(&node, &cgroup)?;
    let _link = link_to(&cgroup)?;
    node.start(&[])?;
    node.cure("cgroup-program-before", 2)
}

/// A cgroup that ends before the one that it is in.
struct Below(PathBuf);

impl Drop for Below {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

#[test]
fn those_of_cgroups_above() -> Result<()> {
    let Some(mut node) = Node::build(spec(), "auto")? else {
        return Ok(());
    };
    let above = node.paths().cgroup;
    let below = Below(above.join("below"));
    fs::create_dir(&below.0)?;
    let cgroup = below.0.display().to_string();
    node.start(&["--cgroup-root", &cgroup])?;
    node.ensure_sound()?;
    attach_to(&node, &above)?;
    let fixes = node.wait_for("cgroup-program-after", false, 1)?;
    ensure!(
        fixes[0].contains(&format!("detach {} ", above.display())),
        "{fixes:?}"
    );
    node.cure_possible("cgroup-program-after", 1)?;
    let _link = link_to(&above)?;
    node.cure_possible("cgroup-program-after", 1)
}
