//! A node with an agent, and what its doctor says.

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_tests::cluster::{Answer, Cluster, weir_binary};
use weir_tests::netns::{Namespace, Place, run};
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, TopologySpec};

const NODE: &str = "node1";
/// How long the agent may take to hear of a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node that is as it should be.
pub(crate) struct Node {
    cluster: Cluster,
}

/// A finding: its name and its fix.
pub(crate) type Found = (String, String);

impl Node {
    /// With a pod and an agent; `None`, with the reason said, where there can be none.
    pub(crate) fn new(shape: Shape) -> Result<Option<Self>> {
        if skip_without_root() {
            return Ok(None);
        }
        if let Err(missing) = weir_binary() {
            println!("SKIP: {missing}");
            return Ok(None);
        }
        let spec = TopologySpec::new(shape, 1).pod("web", NODE, &[]);
        let mut cluster = Cluster::build(&spec, "auto")?;
        cluster.start_agents()?;
        let node = Self { cluster };
        node.ensure_sound()?;
        Ok(Some(node))
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.cluster.topology().node(NODE).namespace()
    }

    pub(crate) fn place(&self) -> Place {
        AsRef::<Place>::as_ref(self.cluster.topology().node(NODE)).clone()
    }

    /// The device of the pod.
    pub(crate) fn veth(&self) -> &str {
        self.cluster.topology().pod("web").veth()
    }

    fn doctor(&self, output: &str) -> Result<Answer> {
        let bpffs = self.cluster.topology().node(NODE).agent_paths().bpffs;
        // Pins are in the mount itself, whose parent is no BPF file system.
        let bpffs = bpffs.join("weir").display().to_string();
        self.cluster
            .ask(NODE, &["doctor", "-o", output, "--bpffs", &bpffs])
    }

    /// What the doctor finds.
    pub(crate) fn findings(&self) -> Result<Vec<Found>> {
        let answer = self.doctor("json")?;
        let list: Value = serde_json::from_str(&answer.stdout)
            .with_context(|| format!("weir doctor: {answer:?}"))?;
        let items = list["items"].as_array().context("items")?;
        ensure!(
            answer.code == Some(i32::from(!items.is_empty())),
            "{answer:?}"
        );
        let text = |item: &Value, field: &str| item[field].as_str().map(str::to_owned);
        items
            .iter()
            .map(|item| {
                ensure!(text(item, "seen").is_some() && text(item, "why").is_some());
                let name = text(item, "name").context("a name")?;
                Ok((name, text(item, "fix").context("a fix")?))
            })
            .collect()
    }

    /// Fails if anything is found.
    pub(crate) fn ensure_sound(&self) -> Result<()> {
        let findings = self.findings()?;
        ensure!(findings.is_empty(), "{findings:?}");
        let text = self.doctor("table")?.stdout;
        ensure!(text == "nothing stands in Weir's way\n", "{text}");
        Ok(())
    }

    /// Waits until just this is found, so many times; gives the fixes.
    pub(crate) fn wait_for(&self, name: &str, count: usize) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let findings = self.findings()?;
            if findings.len() == count && findings.iter().all(|(found, _)| found == name) {
                let text = self.doctor("table")?.stdout;
                ensure!(
                    findings
                        .iter()
                        .all(|(name, fix)| text.contains(name) && text.contains(fix)),
                    "{text}"
                );
                return Ok(findings.into_iter().map(|(_, fix)| fix).collect());
            }
            if Instant::now() > deadline {
                bail!("instead of {count} {name}: {findings:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a command as an operator on the node does, who has `weir` on the path.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        let paths = self.cluster.topology().node(NODE).agent_paths();
        let binary = weir_binary()?;
        let directory = binary.parent().map(Path::to_owned).unwrap_or_default();
        let path = env::var("PATH").unwrap_or_default();
        run(self
            .place()
            .command("sh")
            .args(["-c", command])
            .env("PATH", format!("{}:{path}", directory.display()))
            .env("WEIR_RUN_DIR", &paths.run)
            .env("WEIR_BPFFS", &paths.bpffs))
    }

    /// Waits for a finding, does as it says, and fails unless nothing is found then.
    pub(crate) fn cure(&self, name: &str, count: usize) -> Result<()> {
        for fix in self.wait_for(name, count)? {
            self.run(&fix).with_context(|| format!("{name}: {fix}"))?;
        }
        self.ensure_sound().with_context(|| format!("after {name}"))
    }
}
