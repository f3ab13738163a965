//! `cargo xtask build --bpf-log`: one line a packet, and not a trace of it in release objects.
//!
//! Needs root and both objects (`WEIR_EBPF_OBJECT`, `WEIR_EBPF_LOG_OBJECT`, set by `cargo xtask test`); says SKIP otherwise.

use std::sync::Mutex;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, tcp};

const LOG_MAP: &str = "AYA_LOGS";

/// Keeps what is logged.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0
            .lock()
            .expect("no panic while logging")
            .push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// The object that an environment variable names.
fn object(variable: &str) -> Option<Vec<u8>> {
    if weir_tests::skip_without_root() {
        return None;
    }
    let Ok(path) = std::env::var(variable) else {
        println!("SKIP: {variable} names no object (cargo xtask test sets it)");
        return None;
    };
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

fn load(bytes: &[u8]) -> Ebpf {
    EbpfLoader::new()
        .map_max_entries("flow", 64)
        .map_max_entries("backend", 64)
        .load(bytes)
        .expect("object")
}

#[test]
fn a_logging_object_writes_one_line_for_a_packet() {
    let Some(bytes) = object("WEIR_EBPF_LOG_OBJECT") else {
        return;
    };
    let mut object = load(&bytes);
    let lines: &'static Lines = Box::leak(Box::default());
    let mut logger = EbpfLogger::init_with_logger(&mut object, lines).expect("log");
    let program: &mut SchedClassifier = object
        .program_mut("from_pod")
        .expect("program")
        .try_into()
        .expect("classifier");
    program.load().expect("load");
    let content = Content::Tcp {
        source: 4000,
        destination: 80,
        flags: tcp::SYN,
        payload: 0,
    };
    let packet = Packet::new(address("10.0.1.1"), address("10.96.0.10"), content).bytes();
    let mut out = vec![0; packet.len() + 64];
    let options = TestRunOptions {
        data_in: Some(&packet),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    program.test_run(options).expect("run");
    logger.flush();
    // Without maps no pod has that address.
    let expected = format!(
        "hook 0 verdict 1 reason {} protocol 6 ::ffff:10.0.1.1 4000 -> ::ffff:10.96.0.10 80 rule 0",
        Reason::SpoofedSource as u8
    );
    assert_eq!(*lines.0.lock().expect("lines"), [expected]);
}

#[test]
fn a_release_object_has_no_log() {
    let Some(bytes) = object("WEIR_EBPF_OBJECT") else {
        return;
    };
    assert!(load(&bytes).map(LOG_MAP).is_none());
}
