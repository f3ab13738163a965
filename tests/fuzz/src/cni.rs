//! The CNI plugin: whatever the runtime says, it answers as the specification wants, and writes nowhere but in its directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir::cni::{Config, Environment, answer};

/// The specification's own codes, and none of those that are kept for plugins.
const CODES: std::ops::RangeInclusive<u64> = 1..=99;

thread_local! {
    static NODE: TempDir = tempfile::tempdir().expect("a temporary directory");
}

/// Lines `NAME=value` up to an empty one are the environment, the rest is standard input.
pub(crate) fn check(bytes: &[u8]) {
    let (variables, input) = split(bytes);
    NODE.with(|node| {
        if let Some(input) = harmless(input, node.path()) {
            ask(&variables, &input);
            only_in(node.path());
        }
    });
}

fn split(bytes: &[u8]) -> (BTreeMap<String, String>, &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, input) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &bytes[bytes.len()..]),
    };
    let head = String::from_utf8_lossy(head);
    let variables = head.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    (variables.collect(), input)
}

/// The input with a directory of ours for the agent's, where nobody answers and nobody is waited for; `None` if that cannot be said.
fn harmless(input: &[u8], node: &Path) -> Option<Vec<u8>> {
    match serde_json::from_slice(input) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("runDir".to_owned(), json!(node.join("run")));
            fields.insert("waitSeconds".to_owned(), json!(0));
            serde_json::to_vec(&fields).ok()
        }
        _ => Config::parse(input).is_err().then(|| input.to_owned()),
    }
}

fn ask(variables: &BTreeMap<String, String>, input: &[u8]) {
    let environment = Environment::read(|name| variables.get(name).cloned());
    let (text, done) = answer(&environment, input);
    let command = variables.get("CNI_COMMAND").map_or("", String::as_str);
    if done && !matches!(command, "ADD" | "VERSION") {
        assert_eq!(text, "", "{command} has no result");
        return;
    }
    let object: Value = serde_json::from_str(&text).expect("JSON");
    let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    if done {
        assert!(object.is_object(), "{object}");
        if command == "VERSION" {
            assert!(object["supportedVersions"].is_array(), "{object}");
            assert!(!text("cniVersion").is_empty(), "{object}");
        }
    } else {
        assert!(
            object["code"]
                .as_u64()
                .is_some_and(|code| CODES.contains(&code)),
            "{object}"
        );
        assert!(
            object["cniVersion"].is_string() && !text("msg").is_empty(),
            "{object}"
        );
    }
}

/// Whatever it was told, the plugin has written into the agent's directory only; the next input finds it empty.
fn only_in(node: &Path) {
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let run = node.join("run");
    assert!(
        names(node).iter().all(|name| name == "run"),
        "{:?}",
        names(node)
    );
    assert!(
        names(&run).iter().all(|name| name == "sandboxes"),
        "{:?}",
        names(&run)
    );
    for entry in fs::read_dir(run.join("sandboxes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        assert!(entry.path().is_file(), "{}", entry.path().display());
    }
    let _ = fs::remove_dir_all(run);
}
