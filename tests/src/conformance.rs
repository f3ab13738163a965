//! Weir against upstream's own specs, judged by what kube-proxy does with them.

mod reference;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

pub use reference::Reference;
pub use verdict::problems;

use crate::lab::e2e::{self, Outcome, Selection};
use crate::lab::{Lab, LabSpec};

/// How each spec that was begun ended, by its name.
pub type Outcomes = BTreeMap<String, Outcome>;

/// How a spec ends that finds nothing wrong.
pub const PASSED: &str = "passed";
/// How a spec ends that finds the cluster unfit for it.
pub const SKIPPED: &str = "skipped";

/// A part of upstream's specs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Suite {
    /// Services, Conntrack, EndpointSlice, NoSNAT, Traffic Distribution and Topology Hints of sig-network
    Services,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
        }
    }

    fn selection(self) -> Selection {
        match self {
            Self::Services => Selection {
                focus: r"\[sig-network\] (Services|Conntrack|EndpointSlice|NoSNAT|Traffic Distribution|Topology Hints)",
                skip: r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Feature:LoadBalancer\]",
            },
        }
    }

    /// What is known of kube-proxy and of Weir.
    ///
    /// # Errors
    /// The file of it cannot be read.
    pub fn reference(self) -> Result<Reference> {
        match self {
            Self::Services => Reference::read(include_str!("../data/conformance/services.yaml")),
        }
    }

    /// Where reports are kept: apart for each version of the specs, cluster, proxy and setting of Weir.
    ///
    /// # Errors
    /// There is no directory for caches, or no version.
    pub fn directory(self, spec: &LabSpec) -> Result<PathBuf> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let cluster = format!("{}-{}", name(spec.cni.to_possible_value()), spec.nodes);
        let mut proxy = name(spec.proxy.to_possible_value());
        for setting in &spec.agent_env {
            proxy.push('-');
            proxy.push_str(&setting.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        }
        Ok(crate::cache_dir()?
            .join("conformance")
            .join(format!("{}-{}", self.name(), e2e::version()?))
            .join(cluster)
            .join(proxy))
    }

    /// Runs the specs, `at_once` at a time, on a cluster of their own whose nodes are processes of the program `init`.
    ///
    /// # Errors
    /// The cluster does not come up or loses a program, or the runner breaks off. That specs fail is no error.
    pub fn run(self, spec: &LabSpec, at_once: u8, init: &Path) -> Result<Outcomes> {
        let to = self.directory(spec)?;
        let mut lab = Lab::start(spec, init)?;
        eprintln!("reports and a log go to {}", to.display());
        let outcomes = e2e::run(&mut lab, self.selection(), at_once, &to)?;
        lab.ensure_running()?;
        Ok(outcomes)
    }

    /// How the specs ended when they were run on such a cluster before.
    ///
    /// # Errors
    /// The report cannot be read.
    pub fn earlier(self, spec: &LabSpec) -> Result<Option<Outcomes>> {
        e2e::earlier(&self.directory(spec)?)
    }
}
