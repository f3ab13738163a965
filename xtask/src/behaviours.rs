//! `tests/behaviours.md` says which test proves what: each test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

/// Tests of upstream, by words of their names; they are listed, not written, here.
const UPSTREAM: &str = "conformance";

/// Tests that a cell names, each with its suite: `suite: `test`, `test`; suite: ...`.
fn named(cell: &str) -> Vec<(String, String)> {
    let mut suite = "";
    let mut tests = Vec::new();
    for (place, part) in cell.split('`').enumerate() {
        let code = place % 2 == 1;
        if code && !part.starts_with("cargo xtask ") {
            tests.push((suite.to_owned(), part.to_owned()));
        } else if let Some(before) = part.trim_end().strip_suffix(':') {
            suite = before.rsplit(' ').next().unwrap_or_default();
        }
    }
    tests
}

/// Whether a test, or for `*` a file of tests, is there.
pub(crate) fn exists(root: &Path, suite: &str, test: &str) -> bool {
    if suite == UPSTREAM {
        return listed(&root.join("tests/data/conformance"), test);
    }
    let (directory, top) = match suite {
        "lib" => (root.join("agent/src"), root.join("agent/src/lib.rs")),
        "oracle" => {
            let tests = root.join("tests/oracle/tests");
            (tests.join("behaviour"), tests.join("behaviour/main.rs"))
        }
        _ => {
            let tests = root.join("tests/tests");
            (tests.join(suite), tests.join(format!("{suite}.rs")))
        }
    };
    let (modules, function) = test.rsplit_once("::").unwrap_or(("", test));
    let (file, inner) = file_of(&directory, top, modules);
    let text = fs::read_to_string(file).unwrap_or_default();
    let inside = inner
        .iter()
        .all(|name| text.contains(&format!("mod {name} {{")));
    inside
        && match function {
            "*" => text.contains("#[test]"),
            _ => is_test(&text, function),
        }
}

/// Whether a function is there, and a test: what stands between it and an empty line before says so.
fn is_test(text: &str, function: &str) -> bool {
    let found = text.split_once(&format!("fn {function}("));
    let before = found.and_then(|(before, _)| before.rsplit("\n\n").next());
    before.is_some_and(|before| before.contains("test]"))
}

/// The file of a module, and the modules that are to be inside it.
fn file_of<'a>(directory: &Path, top: PathBuf, modules: &'a str) -> (PathBuf, Vec<&'a str>) {
    let modules: Vec<_> = modules
        .split("::")
        .filter(|name| !name.is_empty())
        .collect();
    for length in (1..=modules.len()).rev() {
        let path = directory.join(modules[..length].join("/"));
        let files = [path.with_extension("rs"), path.join("mod.rs")];
        if let Some(file) = files.into_iter().find(|file| file.exists()) {
            return (file, modules[length..].to_vec());
        }
    }
    (top, modules)
}

/// Whether a file in the directory has these words.
fn listed(directory: &Path, words: &str) -> bool {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.any(|text| text.contains(words))
}

/// Whether a line is a behaviour: its first cell begins with a letter and a number.
fn is_row(line: &str) -> bool {
    let name = line.strip_prefix("| ").unwrap_or_default();
    let number = name.trim_start_matches(|letter: char| letter.is_ascii_uppercase());
    number.len() < name.len() && number.starts_with(|digit: char| digit.is_ascii_digit())
}

#[test]
fn behaviours_name_tests_that_there_are() {
    let root = workspace::root();
    let text = fs::read_to_string(root.join("tests/behaviours.md")).unwrap();
    let mut rows = 0;
    let mut missing = Vec::new();
    for line in text.lines().filter(|line| is_row(line)) {
        rows += 1;
        let proof = line.trim_end_matches(['|', ' ']).rsplit(" | ").next();
        let proof = proof.unwrap_or_default();
        let tests = named(proof);
        if tests.is_empty() && !proof.contains("the same") {
            missing.push(line.to_owned());
        }
        for (suite, test) in tests {
            if !exists(&root, &suite, &test) {
                let row = line.split(" | ").next().unwrap_or_default();
                missing.push(format!("{suite}: {test} of {row}"));
            }
        }
    }
    assert!(rows > 150, "{rows} rows");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn tests_that_there_are_not_are_found() {
    let root = workspace::root();
    let there = |suite, test| exists(&root, suite, test);
    assert!(there("logic", "external_errors::*"));
    assert!(there("oracle", "isolation::both_ends_must_allow"));
    assert!(there(
        "lib",
        "runtime::health::tests::health_follows_the_contract_of_kube_proxy"
    ));
    for (suite, test) in [
        ("logic", "no_such_test"),
        ("logic", "no_such_module::*"),
        ("nodes", "external::at"),
        ("oracle", "both_ends_must_allow"),
        ("no_such_suite", "any_bytes_get_a_verdict"),
        ("nodes", "any_bytes_get_a_verdict"),
        ("lib", "state::tests::no_such_test"),
        (
            "lib",
            "runtime::health::other::health_follows_the_contract_of_kube_proxy",
        ),
        (UPSTREAM, "should do what nobody wants"),
    ] {
        assert!(!there(suite, test), "{suite}: {test}");
    }
    assert!(is_row("| S15, S60 | of a Service |"));
    for line in ["| | behaviour |", "|---|---|", "| Some |", "text"] {
        assert!(!is_row(line), "{line}");
    }
    let cell = "logic: `a::b`, `c`; with packets: nodes: `d`; `cargo xtask conformance services`";
    let pair = |suite: &str, test: &str| (suite.to_owned(), test.to_owned());
    assert_eq!(
        named(cell),
        [
            pair("logic", "a::b"),
            pair("logic", "c"),
            pair("nodes", "d")
        ]
    );
}
