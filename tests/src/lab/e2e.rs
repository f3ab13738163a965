//! Upstream's own specs, run against a cluster: `k8s.io/kubernetes/test/e2e` of the pinned release, by ginkgo.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Lab;
use crate::netns::Place;
use crate::process::Process;
use crate::programs::{KUBERNETES, Part, Set};

const PROGRAMS: Set = Set {
    name: "e2e",
    parts: &[
        (
            &KUBERNETES,
            Part::Commands(&["github.com/onsi/ginkgo/v2/ginkgo"]),
        ),
        (
            &KUBERNETES,
            Part::Tests("e2e.test", "k8s.io/kubernetes/test/e2e"),
        ),
    ],
};

/// The longest a run may take.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// What ginkgo writes, in the directory of a run.
const JSON: &str = "report.json";
/// See [`JSON`].
const JUNIT: &str = "junit.xml";

/// Which specs to run.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// A regular expression of what they are called.
    pub focus: &'static str,
    /// A regular expression of what they are not called.
    pub skip: &'static str,
}

/// How a spec ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// As ginkgo calls it: `passed`, `failed`, `skipped`, `timedout`, ...
    pub state: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why, where it did not pass.
    pub message: String,
}

/// Builds the specs, where the cache does not have them.
///
/// # Errors
/// There is no Go, or it cannot fetch or build the modules.
pub fn build() -> Result<()> {
    PROGRAMS.directory().map(drop)
}

/// The version of the specs.
pub fn version() -> Result<&'static str> {
    KUBERNETES.version()
}

/// Runs specs, several at a time; ginkgo's reports and its log stay in the directory `to`.
///
/// # Errors
/// ginkgo breaks off. That specs fail is no error.
pub fn run(
    lab: &mut Lab,
    selection: Selection,
    at_once: u8,
    to: &Path,
) -> Result<BTreeMap<String, Outcome>> {
    let programs = PROGRAMS.directory()?;
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let nodes = lab.nodes().len();
    let control = lab.control();
    let args = [
        format!("--procs={at_once}"),
        "--no-color".to_owned(),
        format!("--timeout={}s", LIMIT.as_secs()),
        format!("--focus={}", selection.focus),
        format!("--skip={}", selection.skip),
        format!("--output-dir={}", to.display()),
        format!("--json-report={JSON}"),
        format!("--junit-report={JUNIT}"),
        programs.join("e2e.test").display().to_string(),
        "--".to_owned(),
        "--provider=skeleton".to_owned(),
        format!("--kubeconfig={}", control.kubeconfig().display()),
        format!("--num-nodes={nodes}"),
        "--allowed-not-ready-nodes=0".to_owned(),
        "--node-os-distro=debian".to_owned(),
    ];
    // Some specs run kubectl.
    let kubectl = control.kubectl_program().parent().map(Path::to_owned);
    let paths = env::var_os("PATH").unwrap_or_default();
    let paths = env::join_paths(kubectl.into_iter().chain(env::split_paths(&paths)))?;
    let (place, ginkgo) = (
        AsRef::<Place>::as_ref(control).clone(),
        programs.join("ginkgo"),
    );
    // Whatever an earlier run left must not be taken for this one's.
    let report = to.join(JSON);
    fs::remove_file(&report).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error).context("remove an earlier report"),
    })?;
    let mut ginkgo = Process::start("ginkgo", &to.join("ginkgo.log"), move || {
        let mut command = place.command(&ginkgo);
        command.args(&args).env("PATH", &paths);
        command
    })?;
    ginkgo.wait(LIMIT + Duration::from_secs(120))?;
    let text = fs::read(&report)
        .with_context(|| format!("ginkgo wrote no {}: {}", report.display(), ginkgo.logs()))?;
    outcomes(&text)
}

/// The report of an earlier run, if there was one.
pub fn earlier(to: &Path) -> Result<Option<BTreeMap<String, Outcome>>> {
    let report = to.join(JSON);
    if !report.exists() {
        return Ok(None);
    }
    let text = fs::read(&report).with_context(|| format!("read {}", report.display()))?;
    outcomes(&text).map(Some)
}

/// A report as ginkgo writes it with `--json-report`: one for each suite.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    spec_reports: Option<Vec<SpecReport>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// In nanoseconds.
    run_time: u64,
    num_attempts: u32,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: Option<String>,
}

/// The specs that were begun; those that were not selected are in a report too.
fn outcomes(text: &[u8]) -> Result<BTreeMap<String, Outcome>> {
    let reports: Vec<Report> = serde_json::from_slice(text).context("read ginkgo's report")?;
    let specs = reports.into_iter().flat_map(|report| report.spec_reports);
    let begun = specs
        .flatten()
        .filter(|spec| spec.leaf_node_type == "It" && spec.num_attempts > 0);
    Ok(begun
        .map(|spec| {
            let mut name = spec.container_hierarchy_texts.unwrap_or_default();
            name.push(spec.leaf_node_text);
            let outcome = Outcome {
                state: spec.state,
                seconds: Duration::from_nanos(spec.run_time).as_secs_f64(),
                message: spec.failure.and_then(|it| it.message).unwrap_or_default(),
            };
            (name.join(" "), outcome)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_specs_that_were_begun_count() -> Result<()> {
        let report = r#"[{"SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "should serve",
             "State": "failed", "RunTime": 1500000000, "NumAttempts": 1, "Failure": {"Message": "no answer"}},
            {"ContainerHierarchyTexts": ["[sig-network] Other"], "LeafNodeType": "It", "LeafNodeText": "was not selected",
             "State": "skipped", "RunTime": 0, "NumAttempts": 0},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "",
             "State": "passed", "RunTime": 1, "NumAttempts": 1}
        ]}]"#;
        let outcomes = outcomes(report.as_bytes())?;
        let outcome = Outcome {
            state: "failed".to_owned(),
            seconds: 1.5,
            message: "no answer".to_owned(),
        };
        let expected = [("[sig-network] Services should serve".to_owned(), outcome)];
        assert_eq!(outcomes, expected.into());
        Ok(())
    }
}
