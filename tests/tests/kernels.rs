//! The kernels of Debian 12, beside the one that runs here: 6.1 has no tcx, 6.12 is what its backports bring.
//!
//! Each boots in a virtual machine, where the suites that need nothing but a kernel run as they are: every program passes the
//! verifier, parity with the simulator, and sockets that reach Services. Needs no root; QEMU and, the first time, Debian's archive.

// xtask: threads=2 minutes=35 slow soak

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_tests::vm::{self, Job};

/// Suites that run in the machines. The last makes devices by the hundred, for which an emulated machine needs minutes, and is
/// left to `cargo xtask soak`.
const SUITES: [&str; 4] = ["verifier", "parity", "sockets", "datapath"];
/// Sequences of packets for parity: an emulated machine is slow.
const SEQUENCES: u32 = 300;
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Where the machines find the programs.
const OBJECT: &str = "/weir.o";

#[test]
fn debian_12() {
    passes_on("6.1", "clsact");
}

#[test]
fn debian_12_backports() {
    passes_on("6.12", "tcx");
}

fn passes_on(series: &str, attach: &str) {
    let missing = vm::missing_programs();
    if !missing.is_empty() {
        return println!("SKIP: virtual machines need {}", missing.join(", "));
    }
    let Some(object) =
        std::env::var_os("WEIR_EBPF_OBJECT").filter(|_| weir::datapath::is_embedded())
    else {
        return println!(
            "SKIP: needs an agent with kernel programs (cargo xtask build), and WEIR_EBPF_OBJECT to name their file"
        );
    };
    let kernel = match vm::kernel(series) {
        Ok(kernel) => kernel,
        Err(error) => return println!("SKIP: no kernel {series}: {error:#}"),
    };
    let suites = &SUITES[..if weir_tests::soaks() { 4 } else { 3 }];
    let job = Job {
        executables: suites.iter().copied().map(executable).collect(),
        arguments: vec!["--test-threads=1".to_owned(), "--show-output".to_owned()],
        environment: vec![
            ("WEIR_PARITY_SEQUENCES".to_owned(), SEQUENCES.to_string()),
            ("WEIR_EBPF_OBJECT".to_owned(), OBJECT.to_owned()),
        ],
        files: vec![(object.into(), OBJECT.to_owned())],
    };
    let outputs = vm::run(&kernel, &job, LIMIT).expect("virtual machine");
    for output in &outputs {
        println!(
            "--- Linux {}, {}\n{}",
            kernel.release, output.name, output.text
        );
    }
    for (suite, output) in suites.iter().zip(&outputs) {
        assert_eq!(
            output.status, 0,
            "{suite} failed on Linux {}",
            kernel.release
        );
        let passed = passed(&output.text).expect("a result");
        assert!(passed > 0, "{suite} ran no test");
        assert!(!output.text.contains("SKIP"), "{suite} left something out");
    }
    let attaches = format!("attaches by {attach}\n");
    assert!(
        outputs.iter().any(|output| output.text.contains(&attaches)),
        "nothing {attaches}"
    );
}

/// How many tests passed, where none failed.
fn passed(output: &str) -> Option<u32> {
    let result = output
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "))?;
    result.split_whitespace().next()?.parse().ok()
}

/// The executable of a suite of this package, which cargo has just built or builds now.
fn executable(suite: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--message-format=json", "--test", suite])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8(output.stdout).expect("messages");
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter(|message| {
        message["target"]["name"] == suite && message["target"]["kind"][0] == "test"
    });
    let executable = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.unwrap_or_else(|| panic!("cargo names no executable of {suite}"))
}
