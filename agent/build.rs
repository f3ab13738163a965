//! Puts the kernel programs into the agent.
//!
//! `cargo xtask build` names the object in `WEIR_EBPF_OBJECT`. Without it, the agent gets an empty one, so that
//! `cargo check`, clippy and unit tests need no BPF toolchain; such an agent refuses to load programs and says why.

use std::path::PathBuf;
use std::{env, fs};

const OBJECT: &str = "WEIR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
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
