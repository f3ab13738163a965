//! Pods come and go, others' devices are left alone, and cleaning up leaves nothing.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::devices;
use weir_tests::probe::Protocol::Tcp;
use weir_tests::probe::{Outcome, Probe};

use crate::fixture::{ALL, DENY, FEW, Fixture, each, vip};

/// More than an agent lets pass before it looks again.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn programs_follow_pods_and_leave_with_cleanup() -> Result<()> {
    each(&ALL, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("deny.yaml", DENY)?;
        pods_come_and_go(&mut fixture)?;
        other_devices_are_left_alone(&mut fixture)?;
        a_pod_without_an_object_stays_guarded(&mut fixture)?;
        cleanup_leaves_nothing(&mut fixture)
    })
}

/// By an operator, or by another agent that clears a device for itself.
#[test]
fn programs_that_are_taken_away_come_back() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("deny.yaml", DENY)?;
        let near = fixture.server("near");
        fixture.ensure_silence("client", Tcp, near)?;
        let node = fixture.cluster.topology().node("node1");
        let veth = fixture.cluster.topology().pod("near").veth();
        if variant.attach == "tcx" {
            let shown = node
                .namespace()
                .ip_output(&["-o", "link", "show", "dev", veth])?;
            let (ifindex, _) = shown.split_once(':').context("an index")?;
            let versions: Vec<_> =
                fs::read_dir(node.agent_paths().bpffs)?.collect::<Result<_, _>>()?;
            let mut links = versions.iter().map(|version| version.path().join("links"));
            let links = links.find(|links| links.exists()).context("links")?;
            fs::remove_file(links.join(format!("{ifindex}_to_pod")))?;
        } else {
            fixture.tc("node1", &["qdisc", "del", "dev", veth, "clsact"])?;
        }
        fixture.ensure_reaches("client", Tcp, near, &["near"])?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fixture.ensure_silence("client", Tcp, near) {
            ensure!(Instant::now() < deadline, "{error:#}");
        }
        Ok(())
    })
}

/// A static pod's object may be deleted and come back; the pod runs all the while.
fn a_pod_without_an_object_stays_guarded(fixture: &mut Fixture) -> Result<()> {
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    fixture.cluster.lose_pod("near")?;
    // Its device still has its programs, or this fails.
    fixture.cluster.settle()?;
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    fixture.ensure_silence("near", Tcp, fixture.server("client"))?;
    fixture.cluster.restore_pods()?;
    fixture.cluster.settle()?;
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    fixture.ensure_reaches("near", Tcp, fixture.server("client"), &["client"])
}

fn pods_come_and_go(fixture: &mut Fixture) -> Result<()> {
    fixture.add("late", &[("tier", "back")])?;
    fixture.cluster.settle()?;
    let late = fixture.server("late");
    let veth = fixture.cluster.topology().pod("late").veth().to_owned();
    ensure!(devices(&fixture.cluster.status("node2")?).contains(&veth));
    fixture.ensure_silence("client", Tcp, late)?;
    fixture.ensure_silence("spare", Tcp, late)?;
    // It has Services, too.
    fixture.ensure_reaches("late", Tcp, vip("client", 80), &["client"])?;

    fixture.stop_serving();
    fixture.cluster.remove_pod("late")?;
    fixture.cluster.settle()?;
    ensure!(!devices(&fixture.cluster.status("node2")?).contains(&veth));
    // A pod of another kind gets the address; nothing is remembered of the old one.
    fixture.add("later", &[])?;
    fixture.cluster.settle()?;
    ensure!(fixture.server("later") == late);
    fixture.ensure_reaches("client", Tcp, late, &["later"])
}

fn other_devices_are_left_alone(fixture: &mut Fixture) -> Result<()> {
    let node = fixture.cluster.topology().node("node1").namespace();
    node.ip("link add foreign0 type veth peer name foreign1\n\
         addr add 192.0.2.1/24 dev foreign0\n\
         link set foreign0 up\n\
         link set foreign1 up\n")?;
    // Settling fails if any device but the pods' has programs.
    fixture.cluster.settle()?;
    let node = fixture.cluster.topology().node("node1").namespace();
    for device in ["foreign0", "foreign1"] {
        let line = node.ip_output(&["-d", "link", "show", "dev", device])?;
        ensure!(!line.contains("clsact") && !line.contains("xdp"), "{line}");
    }
    ensure!(!devices(&fixture.cluster.status("node1")?).contains("foreign0"));
    node.ip("link del foreign0\n")
}

fn cleanup_leaves_nothing(fixture: &mut Fixture) -> Result<()> {
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    let pins = |fixture: &Fixture, node: &str| -> Result<usize> {
        let bpffs = fixture.cluster.topology().node(node).agent_paths().bpffs;
        let mut pins = 0;
        for entry in fs::read_dir(&bpffs).with_context(|| bpffs.display().to_string())? {
            // The kernel's own files have a dot in their names, which a pin cannot have.
            if !entry?.file_name().to_string_lossy().contains('.') {
                pins += 1;
            }
        }
        Ok(pins)
    };
    ensure!(pins(fixture, "node1")? > 0);
    fixture.cluster.kill_agents()?;
    // Without an agent, nothing changes.
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    fixture.ensure_reaches("client", Tcp, vip("client", 80), &["client"])?;
    for node in ["node1", "node2"] {
        fixture.cluster.cleanup(node)?;
        ensure!(pins(fixture, node)? == 0, "pins are left on {node}");
        let qdiscs = fixture.tc(node, &["qdisc", "show"])?;
        ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
        // Twice is as good as once.
        fixture.cluster.cleanup(node)?;
    }
    fixture.ensure_reaches("client", Tcp, fixture.server("near"), &["near"])?;
    fixture.ensure_reaches("client", Tcp, fixture.server("far"), &["far"])?;
    nobody_is_behind_the_service(fixture)
}

/// The underlay's router knows no Services; with masquerading its refusal finds the way back.
fn nobody_is_behind_the_service(fixture: &Fixture) -> Result<()> {
    for to in vip("client", 80) {
        let outcome = Probe::tcp(to).run(&fixture.place("client"));
        ensure!(
            matches!(outcome, Outcome::Timeout | Outcome::Unreachable),
            "{to}: {outcome:?}"
        );
    }
    Ok(())
}
