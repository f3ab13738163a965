//! The project's own commands: `cargo xtask --help` explains each.

#[cfg(test)]
mod behaviours;
mod build;
mod ci;
mod faults;
mod fuzz;
mod harness;
mod image;
mod layers;
mod process;
mod setup;
mod tally;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what builds the kernel programs, and the tools the tests use
    ///
    /// Says what it finds, what it installs, and how. A compiler is looked for in this order: a rustup
    /// toolchain with rust-src; Debian's rustc-web with rust-web-src; rust-src added by rustup; Debian's packages installed
    /// by apt-get. bpf-linker is built once and kept under ~/.cache/weir. Every attempt is bounded in time, and
    /// without root it says what is missing instead of installing it.
    Setup,
    /// Build the kernel programs, then the agent with them inside: target/release/weir
    Build(build::Options),
    /// Build the container image: one static binary on an empty base, as an OCI archive, with a list of its contents
    ///
    /// Needs no container engine and no root. `ctr images import`, `docker load` and `skopeo copy oci-archive:` take the archive. The
    /// same commit and toolchain give the same bytes. The C compiler is zig, from the Python package index by pip.
    Image(image::Options),
    /// Run every suite and end with one line: `N passed, N failed`
    ///
    /// Unit and property tests need no root. The suites in tests/tests do, and are reported as skipped without it. A test
    /// that cannot run here prints a line that begins with SKIP and is counted as skipped, not passed.
    Test(test::Options),
    /// Run for hours what `test` runs for minutes: more generated cases, more killed agents, more on other kernels (root)
    Soak,
    /// Run what a change must pass: formatting, layers, lints, licences, then every suite
    Ci,
    /// Plant faults that others have had, one at a time, and see that a test fails: a survivor is a test that is missing
    ///
    /// Works on a copy under target/faults, with a build directory of its own. The table is in xtask/src/faults; faults whose test
    /// loads the kernel programs need root, and are skipped without it.
    Faults(faults::Options),
    /// Look for inputs with which what tests/fuzz says of packets, manifests, the CNI plugin, its socket and the admin socket does not hold
    ///
    /// Guided by coverage (libFuzzer): needs a C++ compiler, and minutes to build. A finding is kept under target/fuzz/findings.
    Fuzz(fuzz::Options),
    /// Check which stage of the agent uses which, where `unsafe` is, and how long files are
    LintLayers,
    /// Show Weir at work on this machine: two nodes of network namespaces, real clients, no cluster (root)
    Demo(harness::Demo),
    /// Real Kubernetes clusters on this machine: up, down, status, shell (root)
    Cluster(harness::Cluster),
    /// Run upstream's specs of Services with kube-proxy and with Weir on real clusters, and compare (root)
    Conformance(harness::Conformance),
    /// Measure nanoseconds per packet of the loaded programs (root)
    Bench(harness::Bench),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Setup => setup::everything(),
        Command::Build(options) => build::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Soak => test::soak(),
        Command::Ci => ci::run(),
        Command::Faults(options) => faults::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::LintLayers => layers::run(),
        Command::Demo(options) => harness::demo(&options),
        Command::Conformance(options) => harness::conformance(&options),
        Command::Cluster(options) => harness::cluster(&options),
        Command::Bench(options) => harness::bench(&options),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
