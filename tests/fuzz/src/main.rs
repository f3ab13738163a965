//! The search for bytes with which something does not hold, by libFuzzer: `cargo xtask fuzz` builds this with coverage and runs it.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{Target, target};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
        target(&name).expect("WEIR_FUZZ_TARGET names a target")
    });
    (chosen.check)(bytes);
});
