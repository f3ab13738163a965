//! Puts the kernel programs into the agent, and makes Rust of others' interfaces.
//!
//! `cargo xtask build` names the object in `WEIR_EBPF_OBJECT`. Without it, the agent gets an empty one, so that
//! `cargo check`, clippy and unit tests need no BPF toolchain; such an agent refuses to load programs and says why.

use std::path::PathBuf;
use std::{env, fs};

const OBJECT: &str = "WEIR_EBPF_OBJECT";

/// Where these interfaces are, and what of them is served.
const INTERFACES: &str = "proto";
const SERVED: &str = "observer/observer.proto";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    interfaces();
    programs();
}

fn interfaces() {
    println!("cargo::rerun-if-changed={INTERFACES}");
    let files = protox::compile([SERVED], [INTERFACES]);
    let files = files.unwrap_or_else(|error| panic!("{INTERFACES}/{SERVED}: {error}"));
    let made = tonic_prost_build::configure()
        // Connections are the caller's: tests have their own.
        .build_transport(false)
        .compile_fds(files);
    made.unwrap_or_else(|error| panic!("{INTERFACES}/{SERVED}: {error}"));
}

fn programs() {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let copy = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("weir.o");
    let bytes = match env::var_os(OBJECT).map(PathBuf::from) {
        None => Vec::new(),
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            fs::read(&object)
                .unwrap_or_else(|error| panic!("{OBJECT}={}: {error}", object.display()))
        }
    };
    fs::write(&copy, bytes).unwrap_or_else(|error| panic!("writing {}: {error}", copy.display()));
}
