//! `weir check` as people and pipelines run it: files in, an answer and an exit code out.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::cluster::weir_binary;

const REPOSITORY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: front}
spec: {template: {metadata: {labels: {app: front}}, spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {namespace: shop, name: back}
spec: {template: {metadata: {labels: {app: back}}, spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}}}
";

/// Lets `front` open connections to `back` and nothing else: no lookup of a name either.
const FORGETFUL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: front}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: back}}}]}]
";

/// What the former lacks.
const LOOKUPS: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: lookups}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53}]
";

/// Files of a test, in whose directory commands run.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        fs::create_dir_all(files.0.path().join("repository/apps"))?;
        files.write("repository/apps/shop.yaml", REPOSITORY)?;
        files.write("change.yaml", FORGETFUL)?;
        Ok(files)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.path().join(name), text)?)
    }

    fn check(&self, binary: &Path, arguments: &str, input: &str) -> Result<Output> {
        let mut child = Command::new(binary)
            .arg("check")
            .args(arguments.split(' '))
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("input")?
            .write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }
}

/// The agent; says why where there is none.
fn binary() -> Option<std::path::PathBuf> {
    let binary = weir_binary();
    if let Err(missing) = &binary {
        println!("SKIP: {missing}");
    }
    binary.ok()
}

#[test]
fn exit_codes_tell_a_pipeline_what_to_do() -> Result<()> {
    let Some(binary) = binary() else {
        return Ok(());
    };
    let files = Files::new()?;
    let against = "--manifests repository -R";
    for (arguments, input, code, expected) in [
        ("-f change.yaml", "", 1, "dns"),
        ("-f change.yaml --allow dns", "", 0, "deploy/front"),
        ("-f -", FORGETFUL, 1, "dns"),
        ("-f -", &format!("{FORGETFUL}{LOOKUPS}"), 0, "deploy/front"),
        // A typing error is found, though nothing is cut off by it.
        (
            "-f -",
            &LOOKUPS.replace(
                "podSelector: {}",
                "podSelector: {matchLabels: {app: frnot}}",
            ),
            1,
            "did you mean app=front",
        ),
        (
            "-f -",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: 3}\n",
            1,
            "refused",
        ),
    ] {
        let output = files.check(&binary, &format!("{arguments} {against}"), input)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(code) && said.contains(expected),
            "{arguments}: {output:?}"
        );
    }
    for arguments in [
        "-f nowhere.yaml --manifests repository -R",
        "-f change.yaml --manifests nowhere",
        "-f change.yaml --run-dir .",
    ] {
        let output = files.check(&binary, arguments, "")?;
        ensure!(
            output.status.code() == Some(2)
                && output.stdout.is_empty()
                && !output.stderr.is_empty(),
            "{arguments}: {output:?}"
        );
    }
    Ok(())
}

#[test]
fn what_is_there_is_linted() -> Result<()> {
    let Some(binary) = binary() else {
        return Ok(());
    };
    let files = Files::new()?;
    let lint = |arguments: &str| {
        let mut command = Command::new(&binary);
        command.args(["policy", "lint"]).args(arguments.split(' '));
        command.current_dir(&files.0).output()
    };
    for (policies, arguments, code, expected) in [
        (
            "",
            "--manifests repository/apps",
            0,
            "nothing that is probably not meant\n",
        ),
        (
            FORGETFUL,
            "--manifests repository/apps",
            1,
            "dns: shop/deploy/front cannot look names up",
        ),
        (
            FORGETFUL,
            "--manifests repository/apps -o json",
            1,
            "\"guard\": \"dns\"",
        ),
        (
            FORGETFUL,
            "--manifests repository/apps -n other",
            0,
            "nothing",
        ),
        (
            &format!("{FORGETFUL}{LOOKUPS}"),
            "--manifests repository/apps",
            0,
            "nothing",
        ),
    ] {
        files.write("repository/apps/policies.yaml", policies)?;
        let output = lint(arguments)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(code) && said.contains(expected),
            "{policies}{arguments}: {output:?}"
        );
    }
    ensure!(lint("--manifests nowhere")?.status.code() == Some(2));
    Ok(())
}

#[test]
fn findings_stand_at_their_lines_for_code_scanning() -> Result<()> {
    let Some(binary) = binary() else {
        return Ok(());
    };
    let files = Files::new()?;
    let output = files.check(
        &binary,
        "-f change.yaml --manifests repository -R -o sarif",
        "",
    )?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let log: Value = serde_json::from_slice(&output.stdout)?;
    let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    ensure!(
        place["artifactLocation"]["uri"] == "change.yaml" && place["region"]["startLine"] == 2,
        "{log}"
    );
    Ok(())
}
