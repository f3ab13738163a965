//! Devices whose MTUs do not go together.

use anyhow::{Context as _, Result, ensure};
use weir_tests::topology::{Shape, TopologySpec};

use crate::node::{Node, SHAPES};

#[test]
fn ends_of_a_veth() -> Result<()> {
    for shape in SHAPES {
        let Some(node) = Node::new(shape)? else {
            return Ok(());
        };
        for mtu in [1400, 1600] {
            let line = format!("link set {} mtu {mtu}\n", node.veth());
            node.namespace().ip(&line)?;
            node.cure("veth-mtu", 1)?;
        }
    }
    Ok(())
}

#[test]
fn pods_that_send_what_no_uplink_can() -> Result<()> {
    for shape in SHAPES {
        let Some(node) = Node::new(shape)? else {
            return Ok(());
        };
        let line = format!("link set {} mtu 9000\n", node.veth());
        node.namespace().ip(&line)?;
        node.pod().ip("link set eth0 mtu 9000\n")?;
        node.cure_possible("pod-mtu", 1)?;
    }
    Ok(())
}

/// Behind flannel, for instance, when the network below turns out to be narrower.
#[test]
fn uplinks_with_too_little_room_for_a_tunnel() -> Result<()> {
    for shape in SHAPES {
        let spec = TopologySpec::new(shape, 1).overlay();
        let Some(mut node) = Node::build(spec, "auto")? else {
            return Ok(());
        };
        node.start(&[])?;
        node.ensure_sound()?;
        node.namespace().ip("link set eth0 mtu 1480\n")?;
        for fix in node.wait_for("tunnel-mtu", true, 2)? {
            node.run(&fix).context(fix)?;
        }
        // Pods sent what fitted the tunnels as they were.
        node.cure_possible("pod-mtu", 1)?;
    }
    Ok(())
}

#[test]
fn tunnels_without_a_device_below() -> Result<()> {
    let Some(node) = Node::new(Shape::Ptp)? else {
        return Ok(());
    };
    // What each packet of the first goes through, only who sends it knows.
    node.namespace().ip(
        "link add tunnel0 mtu 1500 type vxlan external dstport 4790\n\
         link add tunnel1 mtu 1500 type vxlan id 1 dstport 4791 remote 172.30.0.99\n\
         link add tunnel2 mtu 1500 type vxlan id 2 dstport 4792 remote fd10:30::99\n",
    )?;
    let fixes = node.wait_for("tunnel-mtu", true, 2)?;
    ensure!(
        fixes
            == [
                "ip link set dev tunnel1 mtu 1450",
                "ip link set dev tunnel2 mtu 1430"
            ],
        "{fixes:?}"
    );
    for fix in fixes {
        node.run(&fix).context(fix)?;
    }
    node.cure_possible("pod-mtu", 1)
}
