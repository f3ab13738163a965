//! What a running agent answers to commands that look back, or at everything.

use std::fs::File;
use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::probe::Protocol::Tcp;

use crate::fixture::{ALL, Fixture, each};
use crate::isolation::policy;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a command prints.
fn asked(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let answer = fixture.cluster.ask("node1", arguments)?;
    ensure!(answer.code == Some(0), "{arguments:?}: {answer:?}");
    Ok(answer.stdout)
}

/// The line of an answer that has all words, once there is one.
fn line(fixture: &Fixture, arguments: &[&str], words: &[&str]) -> Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = asked(fixture, arguments)?;
        let mut lines = text.lines();
        if let Some(line) = lines.find(|line| words.iter().all(|word| line.contains(word))) {
            return Ok(line.to_owned());
        }
        if Instant::now() > until {
            bail!("{arguments:?} has no line with {words:?}: {text}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_came_of_a_policy_is_answered() -> Result<()> {
    each(&[ALL[0]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.cluster.replace_agent("node1", &["--flow-ends=1"])?;
        let rules = "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}, {from: [{podSelector: {matchLabels: {app: nobody}}}]}]";
        fixture.apply("near.yaml", &policy("near", "near", rules))?;
        fixture.ensure_reaches("client", Tcp, fixture.server("near"), &["near"])?;
        fixture.ensure_silence("other", Tcp, fixture.server("near"))?;

        line(
            &fixture,
            &["history"],
            &["NetworkPolicy default/near", "raised"],
        )?;
        let coverage = ["policy", "coverage"];
        line(
            &fixture,
            &coverage,
            &["default/near", "ingress[1]", "matches nobody now"],
        )?;
        line(&fixture, &coverage, &["default/near", "ingress, no rule"])?;
        // Once the connection is told to be over.
        let hit = line(&fixture, &coverage, &["default/near", "ingress[0]", " 2 "])?;
        ensure!(!hit.contains("never hit"), "{hit}");

        let matrix = ["matrix", "-n", "default", "--port", "8080/TCP"];
        let sources = asked(&fixture, &matrix)?;
        let column = |pod: &str| -> Result<usize> {
            let mut lines = sources.lines().skip(1);
            lines
                .position(|line| line.contains(&format!("default/{pod} ")))
                .with_context(|| format!("{pod} is not in {sources}"))
        };
        let reaches = |from: &str| -> Result<String> {
            let row = sources.lines().nth(column(from)? + 1).unwrap_or_default();
            let cell = row.split_whitespace().nth(3 + column("near")?);
            Ok(cell.unwrap_or_default().to_owned())
        };
        let (client, other) = (reaches("client")?, reaches("other")?);
        ensure!((&*client, &*other) == ("+", "x"), "{sources}");

        line(
            &fixture,
            &["policy", "list", "-o", "wide"],
            &["near", "pods app=near"],
        )?;
        let shown = asked(&fixture, &["policy", "show", "default/near"])?;
        ensure!(shown.contains("default/client"), "{shown}");
        let listed = asked(
            &fixture,
            &["endpoint", "list", "-l", "app in (client)", "--no-headers"],
        )?;
        ensure!(
            listed.lines().count() == 1 && listed.contains(" client "),
            "{listed}"
        );
        Ok(())
    })
}

#[test]
fn a_bundle_holds_what_an_agent_knows() -> Result<()> {
    each(&[ALL[0]], |variant| {
        let fixture = Fixture::new(variant)?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("bundle.tar.gz");
        let path = file.to_str().context("a path")?;
        asked(&fixture, &["bundle", "-o", path])?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&file)?));
        let mut names = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.display().to_string();
            let mut content = String::new();
            entry.read_to_string(&mut content)?;
            ensure!(!content.is_empty(), "{name} is empty");
            names.push(name);
        }
        let of_node = [
            "status.json",
            "maps.json",
            "connections.json",
            "audit.json",
            "history.json",
            "hits.json",
            "metrics.txt",
        ];
        let mut wanted = of_node.map(|name| format!("this-node/{name}")).to_vec();
        wanted.extend(["README.md", "version.json", "doctor.json"].map(str::to_owned));
        for wanted in wanted {
            let is_there = names.contains(&format!("weir-bundle/{wanted}"));
            ensure!(is_there, "{wanted} is not in {names:?}");
        }
        Ok(())
    })
}
