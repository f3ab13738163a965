//! `cargo xtask lint-layers`: the architecture as a test.
//!
//! Data flows one way through the stages of the agent. This reads the code's own `crate::` paths and fails on a stage that
//! uses one it must not know, on a library outside the stage it belongs to, on `unsafe` elsewhere than at the border to
//! the kernel, and on a file grown too long to have one job.

mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::workspace;
use scan::{Scan, scan};

/// Each module of the agent and what it may use: a module, or one item of a module.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("config", &[]),
    ("source", &[]),
    ("state", &[]),
    ("netlink", &[]),
    ("takeover", &["netlink"]),
    ("doctor", &["netlink", "takeover", "datapath"]),
    ("compile", &[]),
    ("plan", &["compile"]),
    ("datapath", &["plan"]),
    ("explain", &["state", "compile"]),
    ("flows", &["state", "compile", "plan", "explain"]),
    ("review", &["state", "compile", "explain", "flows"]),
    ("metrics", &["state", "compile", "plan", "explain", "flows"]),
    (
        "admin",
        &["state", "compile", "plan", "explain", "flows", "metrics"],
    ),
    (
        "hubble",
        &[
            "state", "compile", "plan", "explain", "flows", "metrics", "admin",
        ],
    ),
    ("cni", &["config", "state"]),
    (
        "cli",
        &[
            "config",
            "source",
            "state",
            "netlink",
            "takeover",
            "doctor",
            "compile",
            "plan",
            "datapath",
            "explain",
            "review",
            "flows",
            "metrics",
            "admin",
            "cni",
            "runtime::run",
        ],
    ),
    (
        "runtime",
        &[
            "config", "source", "state", "netlink", "compile", "plan", "datapath", "explain",
            "flows", "metrics", "admin", "hubble", "cni",
        ],
    ),
];

/// Plain types, without behaviour: for every module.
const FOR_ALL: [&str; 2] = ["model", "error"];

/// Libraries that belong to one border of the program, and the places that may name them.
const LIBRARIES: [(&str, &[&str]); 6] = [
    (
        "kube",
        &[
            "agent/src/source",
            "agent/src/config",
            "agent/src/runtime",
            "agent/src/cli",
        ],
    ),
    (
        "k8s_openapi",
        &[
            "agent/src/source",
            "agent/src/config",
            "agent/src/runtime",
            "agent/src/cli",
        ],
    ),
    ("aya", &["agent/src/datapath", "common/src/abi"]),
    ("aya_log", &["agent/src/datapath"]),
    // Classic filters are set, and sockets are ended, by netlink messages: there, netlink is the way to the kernel that bpf(2) is
    // elsewhere.
    (
        "rtnetlink",
        &[
            "agent/src/netlink",
            "agent/src/datapath/clsact",
            "agent/src/datapath/sock_diag",
        ],
    ),
    ("netlink_packet_route", &["agent/src/netlink"]),
];

/// Where `unsafe` may be: the border to the kernel, kernel code itself, and the harness that makes namespaces.
const UNSAFE: [&str; 5] = [
    "agent/src/datapath",
    "agent/src/netlink",
    "common/src/abi",
    "ebpf",
    "tests",
];

const CRATES: [&str; 5] = ["agent", "common", "ebpf", "tests", "xtask"];
/// Lines: noted above the first, refused above the second.
const LONG: usize = 400;
const TOO_LONG: usize = 800;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Prints every problem.
pub(crate) fn run() -> Result<ExitCode> {
    let problems = problems()?;
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks the whole repository, printing notes and problems.
pub(crate) fn problems() -> Result<Vec<Problem>> {
    let root = workspace::root();
    let mut files = Vec::new();
    for name in CRATES {
        collect(&root, &root.join(name), &mut files)?;
    }
    files.sort();
    let mut problems = Vec::new();
    for (file, text) in &files {
        let lines = text.lines().count();
        if (LONG + 1..=TOO_LONG).contains(&lines) {
            println!("note: {file} has {lines} lines");
        }
        problems.extend(check(file, text).with_context(|| format!("reading {file}"))?);
    }
    for problem in &problems {
        println!("{problem}");
    }
    Ok(problems)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name == "target" || name.to_string_lossy().starts_with('.'));
        if hidden || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push((
                path.strip_prefix(root)?.display().to_string(),
                fs::read_to_string(&path)?,
            ));
        }
    }
    Ok(())
}

/// What is wrong with one file; `file` is its path from the repository's root.
fn check(file: &str, text: &str) -> Result<Vec<Problem>> {
    let problem = |line, what| Problem {
        file: file.to_owned(),
        line,
        what,
    };
    let Scan {
        uses,
        libraries,
        unsafes,
    } = scan(text, depth(file))?;
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > TOO_LONG {
        problems.push(problem(
            lines,
            format!("{lines} lines; split it by job before {TOO_LONG}"),
        ));
    }
    if !within(file, &UNSAFE) {
        problems.extend(
            unsafes
                .into_iter()
                .map(|line| problem(line, format!("`unsafe` outside {}", UNSAFE.join(", ")))),
        );
    }
    // Tests may build their input with any stage.
    if is_test(file) {
        return Ok(problems);
    }
    for (line, library) in libraries {
        let places = LIBRARIES
            .iter()
            .find(|(name, _)| *name == library)
            .map(|(_, places)| *places);
        if let Some(places) = places
            && !within(file, places)
            && (file.starts_with("agent/src/") || file.starts_with("common/src/"))
        {
            problems.push(problem(
                line,
                format!("`{library}` belongs to {}", places.join(", ")),
            ));
        }
    }
    if let Some(module) = module(file) {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            if !FOR_ALL.contains(&module) {
                let what = format!(
                    "module `{module}` has no row in the layer table of xtask/src/layers.rs"
                );
                problems.push(problem(1, what));
            }
            return Ok(problems);
        };
        for (line, path) in uses {
            if !may_use(module, allowed, &path) {
                problems.push(problem(
                    line,
                    format!("`{module}` must not use `{}`", path.join("::")),
                ));
            }
        }
    }
    Ok(problems)
}

fn may_use(module: &str, allowed: &[&str], path: &[String]) -> bool {
    let Some(used) = path.first() else {
        return true;
    };
    // What is no module of the table is an item of the root, or a module that fails by itself.
    let known = MAY_USE.iter().any(|(name, _)| name == used);
    let item = path
        .iter()
        .take(2)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("::");
    !known
        || used == module
        || FOR_ALL.contains(&used.as_str())
        || allowed.iter().any(|it| it == used || *it == item)
}

/// Whether `file` is one of `places`, or under it.
fn within(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        file.strip_prefix(place)
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    })
}

/// The agent's module that `file` belongs to; none for the roots and for other crates.
fn module(file: &str) -> Option<&str> {
    let path = file.strip_prefix("agent/src/")?;
    let name = path.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!["lib", "main", "bin"].contains(&name)).then_some(name)
}

/// How many modules deep a file is: so many `super` lead to the crate's root.
fn depth(file: &str) -> usize {
    let path = file.split_once("/src/").map_or(file, |(_, path)| path);
    let parts = path.trim_end_matches(".rs").split('/');
    parts
        .filter(|part| !["lib", "main", "mod"].contains(part))
        .count()
}

fn is_test(file: &str) -> bool {
    file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("/tests.rs")
}
