//! The demo ends well, and does not when the programs are taken off.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::cluster::weir_binary;
use weir_tests::process::Process;
use weir_tests::skip_without_root;

/// It is meant to take less than two minutes; this is for a machine that does other things beside it.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn what_it_shows_is_as_expected() -> Result<()> {
    ends_with(&[], Some(0), "0 different")
}

#[test]
fn it_is_so_on_a_bridge_and_by_clsact() -> Result<()> {
    ends_with(
        &["--shape", "bridge", "--attach", "clsact"],
        Some(0),
        "0 different",
    )
}

#[test]
fn without_programs_it_fails() -> Result<()> {
    ends_with(&["--sabotage"], Some(1), "different")
}

/// Runs the demo; `words` stand in what it prints.
fn ends_with(options: &'static [&str], code: Option<i32>, words: &str) -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    if let Err(missing) = weir_binary() {
        println!("SKIP: {missing}");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("demo.log");
    let mut demo = Process::start("the demo", &log, move || {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_weir-demo")));
        command.args(options);
        command
    })?;
    let status = demo.wait(LIMIT)?;
    let output = demo.logs();
    ensure!(
        status.code() == code && output.contains(words),
        "{status}\n{output}"
    );
    Ok(())
}
