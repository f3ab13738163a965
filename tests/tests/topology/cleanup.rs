//! Nothing outlives its test.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::netns::{self, Namespace};
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, Topology, leftovers, sweep};

use crate::{everyone_reaches_everyone, spec};

/// Whether anything on the machine still has the name of something of this topology.
fn traces(
    names: &[String],
    mounts: &[std::path::PathBuf],
    cgroups: &[std::path::PathBuf],
) -> Result<Vec<String>> {
    let mut traces: Vec<_> = netns::names()?
        .into_iter()
        .filter(|name| names.contains(name))
        .collect();
    let (all_mounts, all_cgroups) = leftovers()?;
    let left = |all: Vec<std::path::PathBuf>, ours: &[std::path::PathBuf]| {
        all.into_iter()
            .filter(|path| ours.contains(path))
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    traces.extend(left(all_mounts, mounts));
    traces.extend(left(all_cgroups, cgroups));
    traces.extend(
        mounts
            .iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    Ok(traces)
}

#[test]
fn teardown_leaves_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let mut names: Vec<_> = topology
        .pods()
        .map(|pod| pod.namespace().name().to_owned())
        .collect();
    names.extend(
        topology
            .nodes()
            .map(|node| node.namespace().name().to_owned()),
    );
    names.push(topology.host("outside").namespace().name().to_owned());
    let mounts: Vec<_> = topology
        .nodes()
        .map(|node| node.agent_paths().bpffs)
        .collect();
    let cgroups: Vec<_> = topology
        .nodes()
        .map(|node| node.agent_paths().cgroup)
        .collect();
    everyone_reaches_everyone(&topology)?;
    let while_up = traces(&names, &mounts, &cgroups)?.len();
    ensure!(
        while_up == 6 + 3 * 2,
        "6 namespaces; a mount, its directory and a cgroup per node: {while_up}"
    );
    // Even when a test panics.
    let panic = std::panic::catch_unwind(move || {
        let _topology = topology;
        panic!("on purpose");
    });
    ensure!(panic.is_err());
    let left = traces(&names, &mounts, &cgroups)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn panics_inside_a_namespace_reach_the_test() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let namespace = Namespace::new("panic")?;
    let path = namespace.path();
    let place = AsRef::<netns::Place>::as_ref(&namespace).clone();
    let panic = std::panic::catch_unwind(|| place.run(|| panic!("inside")));
    ensure!(panic.is_err());
    drop(namespace);
    ensure!(!Path::exists(&path));
    Ok(())
}

/// Set in the process that plays the killed test.
const VICTIM: &str = "WEIR_TEST_VICTIM";

#[test]
fn what_a_killed_test_leaves_is_swept() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    if std::env::var_os(VICTIM).is_some() {
        let topology = Topology::build(&spec(Shape::Ptp))?;
        let agent = topology.spawn_agent("node1", "/bin/sleep", ["60"])?;
        println!("\nVICTIM {}", agent.pid());
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "cleanup::what_a_killed_test_leaves_is_swept",
            "--nocapture",
        ])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(victim.stdout.take().context("a piped output")?).lines();
    let agent = lines.find_map(|line| line.ok()?.strip_prefix("VICTIM ").map(str::to_owned));
    let pid = victim.id();
    ensure!(
        remains(pid)? >= 6 + 3 * 2,
        "the victim built a topology: {}",
        remains(pid)?
    );
    victim.kill()?;
    victim.wait()?;
    let agent = Path::new("/proc").join(agent.context("the victim started no agent")?);
    let deadline = Instant::now() + Duration::from_secs(5);
    // Tests that run beside this one sweep too, and may have removed half of it by now.
    while agent.exists() || remains(pid)? > 0 {
        ensure!(
            Instant::now() < deadline,
            "the agent, or {} other things, outlive the test",
            remains(pid)?
        );
        sweep()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// How many namespaces, mounts, cgroups and directories of that process there are.
fn remains(pid: u32) -> Result<usize> {
    let ours = |name: &str| name.contains(&format!("{}{pid}-", netns::PREFIX));
    let names = netns::names()?.iter().filter(|name| ours(name)).count();
    let (mounts, cgroups) = leftovers()?;
    let paths = mounts
        .iter()
        .chain(&cgroups)
        .filter(|path| ours(&path.to_string_lossy()))
        .count();
    let dirs = std::fs::read_dir(std::env::temp_dir())?;
    let dirs = dirs
        .filter(|entry| {
            entry
                .as_ref()
                .is_ok_and(|entry| ours(&entry.file_name().to_string_lossy()))
        })
        .count();
    Ok(names + paths + dirs)
}
