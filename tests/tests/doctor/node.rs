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
use weir_tests::topology::{AgentPaths, Shape, TopologySpec, least_privilege};

const NODE: &str = "node1";
/// How long the agent may take to hear of a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ways in which pods are wired.
pub(crate) const SHAPES: [Shape; 2] = [
    Shape::Ptp,
    Shape::Bridge {
        call_iptables: true,
    },
];

/// A node that is as it should be.
pub(crate) struct Node {
    cluster: Cluster,
}

/// A finding.
#[derive(Debug)]
pub(crate) struct Found {
    name: String,
    fix: String,
    certain: bool,
}

impl Node {
    /// With a pod and an agent; `None`, with the reason said, where there can be none.
    pub(crate) fn new(shape: Shape) -> Result<Option<Self>> {
        let Some(mut node) = Self::build(TopologySpec::new(shape, 1), "auto")? else {
            return Ok(None);
        };
        node.start(&[])?;
        node.ensure_sound()?;
        Ok(Some(node))
    }

    /// With a pod, and no agent yet; `attach` is what it will be given.
    pub(crate) fn build(spec: TopologySpec, attach: &str) -> Result<Option<Self>> {
        if skip_without_root() {
            return Ok(None);
        }
        if let Err(missing) = weir_binary() {
            println!("SKIP: {missing}");
            return Ok(None);
        }
        let cluster = Cluster::build(&spec.pod("web", NODE, &[]), attach)?;
        Ok(Some(Self { cluster }))
    }

    /// Starts the agent with more options.
    pub(crate) fn start(&mut self, options: &[&str]) -> Result<()> {
        self.cluster.set_options(options);
        self.cluster.start_agents()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.cluster.topology().node(NODE).namespace()
    }

    pub(crate) fn place(&self) -> Place {
        AsRef::<Place>::as_ref(self.cluster.topology().node(NODE)).clone()
    }

    /// The pod's network.
    pub(crate) fn pod(&self) -> &Namespace {
        self.cluster.topology().pod("web").namespace()
    }

    /// The device of the pod.
    pub(crate) fn veth(&self) -> &str {
        self.cluster.topology().pod("web").veth()
    }

    /// Where the agent keeps what.
    pub(crate) fn paths(&self) -> AgentPaths {
        self.cluster.topology().node(NODE).agent_paths()
    }

    fn doctor(&self, output: &str) -> Result<Answer> {
        let bpffs = self.paths().bpffs.display().to_string();
        self.cluster
            .ask(NODE, &["doctor", "-o", output, "--bpffs", &bpffs])
    }

    /// What the doctor finds with no more rights than the agent has, as text.
    pub(crate) fn doctor_as_agent(&self) -> Result<String> {
        let words = least_privilege(&weir_binary()?).join(" ");
        let bpffs = self.paths().bpffs;
        // The exit code says only that something is found.
        self.run(&format!(
            "{words} doctor --bpffs {} || test $? = 1",
            bpffs.display()
        ))
    }

    /// What the doctor finds.
    pub(crate) fn findings(&self) -> Result<Vec<Found>> {
        let answer = self.doctor("json")?;
        let list: Value = serde_json::from_str(&answer.stdout)
            .with_context(|| format!("weir doctor: {answer:?}"))?;
        let items = list["items"].as_array().context("items")?;
        let certain = |item: &Value| item["harm"] == "certain";
        ensure!(
            answer.code == Some(i32::from(items.iter().any(certain))),
            "{answer:?}"
        );
        let text = |item: &Value, field: &str| item[field].as_str().map(str::to_owned);
        items
            .iter()
            .map(|item| {
                ensure!(text(item, "seen").is_some() && text(item, "why").is_some());
                Ok(Found {
                    name: text(item, "name").context("a name")?,
                    fix: text(item, "fix").context("a fix")?,
                    certain: certain(item),
                })
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
    pub(crate) fn wait_for(&self, name: &str, certain: bool, count: usize) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let findings = self.findings()?;
            let wanted = |found: &Found| found.name == name && found.certain == certain;
            if findings.len() == count && findings.iter().all(wanted) {
                let text = self.doctor("table")?.stdout;
                ensure!(
                    findings
                        .iter()
                        .all(|found| text.contains(&found.name) && text.contains(&found.fix)),
                    "{text}"
                );
                return Ok(findings.into_iter().map(|found| found.fix).collect());
            }
            if Instant::now() > deadline {
                bail!("instead of {count} {name}: {findings:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a command as an operator on the node does, who has `weir` on the path.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        let paths = self.paths();
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
        self.treat(name, true, count)
    }

    /// The same for what may do harm.
    pub(crate) fn cure_possible(&self, name: &str, count: usize) -> Result<()> {
        self.treat(name, false, count)
    }

    fn treat(&self, name: &str, certain: bool, count: usize) -> Result<()> {
        for fix in self.wait_for(name, certain, count)? {
            self.run(&fix).with_context(|| format!("{name}: {fix}"))?;
        }
        self.ensure_sound().with_context(|| format!("after {name}"))
    }
}
