//! `cargo xtask test`: every suite in order, one closing line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Object};
use crate::process::{self, minutes};
use crate::tally::{Reader, Tally};
use crate::{harness, setup, workspace};

/// Generated cases per property with `--quick`.
const QUICK_CASES: u32 = 100;
/// A compiler may be silent for long, but pipes close when a program ends; what a leaked child holds open is not waited for.
const DRAIN: Duration = Duration::from_secs(2);

/// Makes suites take their time; those marked `soak` know it.
const SOAK_ENV: &str = "WEIR_SOAK";
/// How much longer a suite may take then.
const SOAK_PATIENCE: u32 = 10;

/// What `cargo xtask test` takes.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Run this suite only (may be given again): `unit`, `harness`, or a file of tests/tests without `.rs`
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Generated cases per property test [default: what each test sets]
    #[arg(long, value_name = "N")]
    cases: Option<u32>,
    /// Few generated cases, and none of the suites marked slow
    #[arg(long)]
    quick: bool,
}

/// One `cargo test` run.
#[derive(Debug, PartialEq, Eq)]
struct Suite {
    name: String,
    /// What cargo builds and runs.
    target: Vec<String>,
    /// Tests at a time; `None` is one per core.
    threads: Option<usize>,
    limit: Duration,
    /// Left out by `--quick`.
    slow: bool,
    /// Left to a soak, unless it is asked for by name.
    rare: bool,
    /// Does more in a soak.
    soak: bool,
    /// Runs the agent and its programs in namespaces.
    root: bool,
}

/// Runs the suites and prints the closing line.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    run_all(&select(all()?, options)?, options, &[])
}

/// Runs the suites that gain by it for as long as they like, and prints the closing line.
pub(crate) fn soak() -> Result<ExitCode> {
    let mut suites = all()?;
    suites.retain(|suite| suite.soak);
    for suite in &mut suites {
        suite.limit *= SOAK_PATIENCE;
    }
    run_all(&suites, &Options::default(), &[(SOAK_ENV, "1".into())])
}

fn run_all(
    suites: &[Suite],
    options: &Options,
    also: &[(&'static str, PathBuf)],
) -> Result<ExitCode> {
    // Unit tests alone must work with no BPF toolchain.
    let mut environment = if suites.iter().any(|suite| suite.root) {
        prepare()?
    } else {
        Vec::new()
    };
    environment.extend_from_slice(also);
    let mut sum = Tally::default();
    for suite in suites {
        let begun = Instant::now();
        println!("\n=== {}", suite.name);
        let tally = suite.run(options, &environment)?;
        println!(
            "=== {}: {tally} in {:.1} s",
            suite.name,
            begun.elapsed().as_secs_f64()
        );
        sum.add(tally);
    }
    println!();
    for (test, reason) in &sum.skipped {
        println!("skipped  {test}: {reason}");
    }
    for test in &sum.failed {
        println!("FAILED   {test}");
    }
    println!("{sum}");
    Ok(if sum.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds what the suites need, and tells them where it is.
fn prepare() -> Result<Vec<(&'static str, PathBuf)>> {
    let toolchain = setup::toolchain()?;
    for missing in setup::tools() {
        eprintln!("setup: missing: {missing}; tests that need it are skipped");
    }
    let mut environment = harness::under_test(&toolchain)?;
    let log = build::object(&toolchain, Object::Log)?;
    environment.push(("WEIR_EBPF_LOG_OBJECT", log));
    Ok(environment)
}

/// Unit tests first, then the harness's own, then each file of tests/tests by name.
fn all() -> Result<Vec<Suite>> {
    let plain = |name: &str, target: &[&str]| Suite {
        name: name.to_owned(),
        target: target.iter().map(|&arg| arg.to_owned()).collect(),
        threads: None,
        limit: minutes(30),
        slow: false,
        rare: false,
        soak: false,
        root: false,
    };
    let mut suites = vec![
        plain("unit", &[]),
        plain(
            "harness",
            &[
                "--package",
                "weir-tests",
                "--package",
                "weir-fuzz",
                "--lib",
                "--bins",
            ],
        ),
    ];
    let directory = workspace::root().join("tests/tests");
    let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?,
        Err(_) => Vec::new(),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    for file in &files {
        suites.push(
            Suite::of_file(file, &fs::read_to_string(file)?)
                .with_context(|| file.display().to_string())?,
        );
    }
    Ok(suites)
}

fn select(mut suites: Vec<Suite>, options: &Options) -> Result<Vec<Suite>> {
    if options.only.is_empty() {
        suites.retain(|suite| !(suite.rare || options.quick && suite.slow));
        return Ok(suites);
    }
    let names: Vec<String> = suites.iter().map(|suite| suite.name.clone()).collect();
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(only)) {
        bail!(
            "no suite is called {unknown:?}; there are: {}",
            names.join(", ")
        );
    }
    suites.retain(|suite| options.only.contains(&suite.name));
    Ok(suites)
}

impl Suite {
    /// The suite of a file in tests/tests. It runs one test at a time and has 20 minutes, unless a line
    /// `// xtask: threads=N minutes=N slow rare soak` (any of these) at its top says otherwise.
    fn of_file(file: &Path, text: &str) -> Result<Self> {
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a file name that is not UTF-8")?
            .to_owned();
        let target = ["--package", "weir-tests", "--test", &name]
            .map(str::to_owned)
            .to_vec();
        let mut suite = Self {
            name,
            target,
            threads: Some(1),
            limit: minutes(20),
            slow: false,
            rare: false,
            soak: false,
            root: true,
        };
        let wishes = text
            .lines()
            .take(40)
            .filter_map(|line| line.strip_prefix("// xtask:"));
        for wish in wishes.flat_map(str::split_whitespace) {
            match wish.split_once('=') {
                Some(("threads", n)) => suite.threads = Some(n.parse().context(wish.to_owned())?),
                Some(("minutes", n)) => suite.limit = minutes(n.parse().context(wish.to_owned())?),
                None if wish == "slow" => suite.slow = true,
                None if wish == "rare" => suite.rare = true,
                None if wish == "soak" => suite.soak = true,
                _ => bail!(
                    "`// xtask: {wish}` means nothing; known are threads=N, minutes=N, slow, rare, soak"
                ),
            }
        }
        Ok(suite)
    }

    fn run(&self, options: &Options, environment: &[(&str, PathBuf)]) -> Result<Tally> {
        if self.root && !rustix::process::geteuid().is_root() {
            let reason = "needs root: it makes network namespaces and loads programs".to_owned();
            return Ok(Tally {
                skipped: vec![(self.name.clone(), reason)],
                ..Tally::default()
            });
        }
        let mut command = workspace::cargo();
        command
            .args(["test", "--no-fail-fast"])
            .args(&self.target)
            .args(["--", "--show-output"]);
        if let Some(threads) = self.threads {
            command.arg(format!("--test-threads={threads}"));
        }
        command.envs(environment.iter().map(|(name, path)| (name, path)));
        if let Some(cases) = options.cases.or(options.quick.then_some(QUICK_CASES)) {
            // The first is proptest's own; the second is for tests that ask for more than its default.
            command
                .env("PROPTEST_CASES", cases.to_string())
                .env("WEIR_CASES", cases.to_string());
        }
        follow(&mut command, self.limit, Reader::new(&self.name), |line| {
            println!("{line}");
        })
    }
}

/// Runs `cargo test`, counting its lines as they come, and showing those for people.
fn follow(
    command: &mut Command,
    limit: Duration,
    mut reader: Reader,
    show: impl Fn(&str),
) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let mut take = |line: String| {
        if reader.line(&line) {
            show(&line);
        }
    };
    let deadline = Instant::now() + limit;
    let trouble = loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => take(line),
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                if let Some(status) = child.try_wait()? {
                    break (!status.success()).then(|| format!("cargo test ended with {status}"));
                }
            }
        }
        if Instant::now() >= deadline {
            process::stop(&mut child)?;
            break Some(format!("stopped after {} min", limit.as_secs() / 60));
        }
    };
    while let Ok(line) = lines.recv_timeout(DRAIN) {
        take(line);
    }
    Ok(reader.finish(trouble))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_may_say_how_it_wants_to_run() {
        let file = Path::new("tests/tests/kernel.rs");
        let plain = Suite::of_file(file, "//! Old kernels.\n").unwrap();
        assert_eq!(
            (plain.threads, plain.limit, plain.slow),
            (Some(1), minutes(20), false)
        );
        let own = Suite::of_file(
            file,
            "//! Old kernels.\n\n// xtask: threads=2 slow\n// xtask: minutes=7\n",
        )
        .unwrap();
        assert_eq!(
            (own.threads, own.limit, own.slow),
            (Some(2), minutes(7), true)
        );
        assert_eq!(own.target, ["--package", "weir-tests", "--test", "kernel"]);
        assert!(Suite::of_file(file, "// xtask: thread=2\n").is_err());
    }

    #[test]
    fn one_suite_or_the_quick_ones_can_be_chosen() {
        let suites = || {
            let file = |name: &str, text| Suite::of_file(Path::new(name), text).unwrap();
            vec![
                file("a.rs", ""),
                file("b.rs", "// xtask: slow"),
                file("c.rs", "// xtask: rare soak"),
            ]
        };
        let names = |options: &Options| -> Vec<String> {
            select(suites(), options)
                .unwrap()
                .into_iter()
                .map(|suite| suite.name)
                .collect()
        };
        assert_eq!(names(&Options::default()), ["a", "b"]);
        assert_eq!(
            names(&Options {
                quick: true,
                ..Options::default()
            }),
            ["a"]
        );
        assert_eq!(
            names(&Options {
                only: vec!["b".into(), "c".into()],
                quick: true,
                ..Options::default()
            }),
            ["b", "c"]
        );
        let unknown = select(
            suites(),
            &Options {
                only: vec!["b".into(), "d".into()],
                ..Options::default()
            },
        )
        .unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no suite is called \"d\"; there are: a, b, c"
        );
    }

    #[test]
    fn lines_are_counted_and_a_suite_that_hangs_fails() {
        let shell = |script: &str, limit| {
            follow(
                Command::new("sh").args(["-c", script]),
                limit,
                Reader::new("shell"),
                |_| {},
            )
            .unwrap()
        };
        let good = shell(
            "echo 'test result: ok. 7 passed; 0 failed; 0 ignored'",
            minutes(1),
        );
        assert_eq!(good.to_string(), "7 passed, 0 failed");
        let hung = shell("sleep 60", Duration::from_millis(50));
        assert_eq!(hung.failed, ["shell: stopped after 0 min"]);
        let begun = Instant::now();
        let leaked = shell("sleep 20 & exit 3", minutes(1));
        assert_eq!(
            leaked.failed,
            ["shell: cargo test ended with exit status: 3"]
        );
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "waited for a leaked child"
        );
    }
}
