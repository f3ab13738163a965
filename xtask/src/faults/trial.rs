//! Running tests with a fault and without.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use super::copy::Copy;
use super::{Fault, Suite, Test};
use crate::build::{self, OBJECT_ENV, Object};
use crate::tally::Reader;
use crate::toolchain::Toolchain;
use crate::{process, setup, workspace};

/// Lines of a failed build that are shown.
const SHOWN: usize = 25;

/// What came of a fault.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its test failed, or did not end.
    Caught,
    /// Its test passed.
    Survived,
    /// It was not tried: it does not compile, or no such test ran.
    Broken(String),
    /// Its test cannot run here.
    Skipped(String),
}

impl Outcome {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Survived => "SURVIVED",
            Self::Broken(_) => "BROKEN",
            Self::Skipped(_) => "SKIP",
        }
    }

    /// Place in a table.
    pub(super) const fn column(&self) -> usize {
        match self {
            Self::Caught => 0,
            Self::Survived => 1,
            Self::Broken(_) => 2,
            Self::Skipped(_) => 3,
        }
    }
}

impl Suite {
    /// What cargo builds.
    fn target(self) -> Vec<&'static str> {
        match self {
            Self::Agent => vec!["--package", "weir", "--lib"],
            Self::Simulated(name) | Self::Loaded(name) => {
                vec!["--package", "weir-tests", "--test", name]
            }
        }
    }

    /// Where cargo runs it.
    const fn directory(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Simulated(_) | Self::Loaded(_) => "tests",
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suite {
            Suite::Agent => write!(f, "weir: {}", self.name),
            Suite::Simulated(suite) | Suite::Loaded(suite) => write!(f, "{suite}: {}", self.name),
        }
    }
}

/// Where faults are tried.
#[derive(Debug)]
pub(super) struct Bench {
    copy: Copy,
    /// Longest time of a build, and of a test.
    limit: Duration,
    /// Found when programs are to be loaded for the first time.
    toolchain: Option<Toolchain>,
    log: PathBuf,
}

impl Bench {
    pub(super) fn new(copy: Copy, limit: Duration) -> Result<Self> {
        fs::create_dir_all(&copy.build)?;
        let log = copy.build.join("faults.log");
        Ok(Self {
            copy,
            limit,
            toolchain: None,
            log,
        })
    }

    /// Runs tests as they are: each must pass, else its failing would say nothing.
    pub(super) fn unbroken(&mut self, tests: &BTreeSet<Test>) -> Result<()> {
        let mut suites: BTreeMap<Suite, Vec<&str>> = BTreeMap::new();
        for test in tests {
            suites.entry(test.suite).or_default().push(test.name);
        }
        // The first build is of everything.
        let limit = self.limit;
        self.limit *= 4;
        for (suite, names) in suites {
            match self.ask(suite, &names)? {
                Outcome::Survived | Outcome::Skipped(_) => {}
                Outcome::Caught => bail!("tests fail without any fault: {}", self.output()?),
                Outcome::Broken(why) => bail!("tests do not run without any fault: {why}"),
            }
        }
        self.limit = limit;
        Ok(())
    }

    /// Tries a fault.
    pub(super) fn plant(&mut self, fault: &Fault) -> Result<Outcome> {
        let Test { suite, name } = fault.test;
        // Borrowed apart: the copy stands still meanwhile.
        let toolchain = self.toolchain_for(suite)?;
        self.copy
            .with(fault, || self.answer(suite, &[name], toolchain.as_ref()))
    }

    fn ask(&mut self, suite: Suite, names: &[&str]) -> Result<Outcome> {
        let toolchain = self.toolchain_for(suite)?;
        self.answer(suite, names, toolchain.as_ref())
    }

    fn toolchain_for(&mut self, suite: Suite) -> Result<Option<Toolchain>> {
        if !matches!(suite, Suite::Loaded(_)) || !is_root() {
            return Ok(None);
        }
        if self.toolchain.is_none() {
            self.toolchain = Some(setup::toolchain()?);
        }
        Ok(self.toolchain.clone())
    }

    fn answer(
        &self,
        suite: Suite,
        names: &[&str],
        toolchain: Option<&Toolchain>,
    ) -> Result<Outcome> {
        let mut environment = Vec::new();
        if matches!(suite, Suite::Loaded(_)) {
            let Some(toolchain) = toolchain else {
                return Ok(Outcome::Skipped("needs root: it loads programs".to_owned()));
            };
            match build::object_of(
                &self.copy.source,
                &self.copy.build,
                toolchain,
                Object::Release,
            ) {
                Ok(object) => environment.push((OBJECT_ENV, object)),
                Err(error) => return Ok(Outcome::Broken(format!("{error:#}"))),
            }
        }
        let Some(program) = self.build(suite, &environment)? else {
            return Ok(Outcome::Broken(self.output()?));
        };
        let mut command = Command::new(program);
        command
            .args(["--exact", "--show-output", "--test-threads=1"])
            .args(names)
            .envs(environment)
            // Generated cases: what one fault taught must not be used for the next.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("INSTA_UPDATE", "no")
            .env("WEIR_PARITY_SEQUENCES", "1000")
            .env(
                "CARGO_MANIFEST_DIR",
                self.copy.source.join(suite.directory()),
            )
            .current_dir(self.copy.source.join(suite.directory()));
        let passed = self.logged(&mut command)?;
        Ok(judge(&self.output()?, passed, names.len()))
    }

    /// Builds a suite; `None` if that fails.
    fn build(&self, suite: Suite, environment: &[(&str, PathBuf)]) -> Result<Option<PathBuf>> {
        let messages = self.copy.build.join("faults.json");
        let mut cargo = workspace::cargo();
        cargo
            .args([
                "test",
                "--locked",
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .args(suite.target())
            .env("CARGO_TARGET_DIR", &self.copy.build)
            .envs(environment.iter().map(|(name, path)| (name, path)))
            .current_dir(&self.copy.source)
            .stdin(Stdio::null())
            .stdout(File::create(&messages)?)
            .stderr(File::create(&self.log)?);
        let mut child = cargo.spawn().context("starting cargo")?;
        if !process::wait(&mut child, self.limit)?.is_some_and(|status| status.success()) {
            return Ok(None);
        }
        let programs = Message::parse_stream(BufReader::new(File::open(messages)?));
        for message in programs {
            if let Message::CompilerArtifact(artifact) = message?
                && artifact.profile.test
                && let Some(program) = artifact.executable
            {
                return Ok(Some(program.into()));
            }
        }
        bail!("cargo names no program for {suite:?}")
    }

    /// Runs a program with its output in the log; whether it succeeded in time.
    fn logged(&self, command: &mut Command) -> Result<bool> {
        let log = File::create(&self.log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let name = process::describe(command);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let status = process::wait(&mut child, self.limit)?;
        Ok(status.is_some_and(|status| status.success()))
    }

    fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }
}

/// What the output of tests comes to, `wanted` of which were to run.
pub(super) fn judge(output: &str, passed: bool, wanted: usize) -> Outcome {
    let mut reader = Reader::new("");
    let mut ran = None;
    for line in output.lines() {
        reader.line(line);
        let running = line
            .strip_prefix("running ")
            .and_then(|rest| rest.split_once(" test"));
        ran = ran.or_else(|| running?.0.parse().ok());
    }
    if ran != Some(wanted) {
        let end: Vec<&str> = output.lines().rev().take(SHOWN).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        return Outcome::Broken(format!("not exactly {wanted} ran\n{}", end.join("\n")));
    }
    if !passed {
        return Outcome::Caught;
    }
    match reader.finish(None).skipped.pop() {
        Some((_, reason)) => Outcome::Skipped(reason),
        None => Outcome::Survived,
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
