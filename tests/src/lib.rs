//! Harness of the Weir test suites.

pub mod cluster;
pub mod conformance;
pub mod controlplane;
pub mod fixture;
pub mod foreign;
pub mod hubble;
pub mod kernel;
pub mod lab;
pub mod netns;
pub mod packages;
pub mod packets;
pub mod policy;
pub mod probe;
pub mod process;
mod programs;
pub mod random;
pub mod simulator;
pub mod supervised;
pub mod topology;
pub mod vm;
pub mod xdp;

use nix::unistd::geteuid;

pub use programs::cache_dir;

/// Whether this process may create namespaces; says why a suite is skipped where it may not.
///
/// A suite that needs root starts with `if weir_tests::skip_without_root() { return Ok(()) }`.
#[must_use]
pub fn skip_without_root() -> bool {
    let skip = !geteuid().is_root();
    if skip {
        println!("SKIP: network namespaces need root");
    }
    skip
}

/// Whether suites take their time (`cargo xtask soak` sets `WEIR_SOAK`): more generated cases, more kills, slower machines.
#[must_use]
pub fn soaks() -> bool {
    std::env::var_os("WEIR_SOAK").is_some()
}
