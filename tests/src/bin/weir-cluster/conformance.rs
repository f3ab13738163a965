//! Weir against upstream's own specs, side by side with kube-proxy.

use std::collections::BTreeSet;
use std::env;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::conformance::{Outcomes, PASSED, Suite, problems};
use weir_tests::lab::e2e::{self, Outcome};
use weir_tests::lab::{self, Cni, LabSpec, MAX_NODES, Proxy};

/// What `weir-cluster conformance` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which specs
    #[arg(value_enum)]
    suite: Suite,
    /// What wires pods to nodes, and nodes to each other
    #[arg(long, value_enum, default_value_t)]
    cni: Cni,
    /// How many nodes; specs about several nodes of a zone want six
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: u8,
    /// How many specs run at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    procs: u8,
    /// A further environment variable for Weir, such as WEIR_SOCKET_LB=all
    #[arg(long, value_name = "NAME=VALUE")]
    agent_env: Vec<String>,
    /// Run them with kube-proxy again, even if that was done before with this version of the specs
    #[arg(long)]
    peer_again: bool,
}

/// Runs the specs with both, where the peer's outcomes are not known yet, and compares.
pub(crate) fn conformance(options: &Options) -> Result<ExitCode> {
    if let Some(missing) = lab::missing() {
        bail!("{missing}");
    }
    let reference = options.suite.reference()?;
    e2e::build()?;
    let peer = run(options, Proxy::KubeProxyNftables, !options.peer_again)?;
    ensure!(!peer.is_empty(), "no spec was run with kube-proxy");
    let weir = run(options, Proxy::Weir, false)?;
    show(&peer, &weir);
    let problems = problems(&peer, &weir, &reference.exceptions);
    for problem in &problems {
        println!("FAILED   {problem}");
    }
    for spec in reference.outdated(&peer) {
        println!("OUTDATED tests/data/conformance says otherwise of kube-proxy: {spec}");
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the specs on a cluster of their own, or, if `known` will do, reads how they ended before.
fn run(options: &Options, proxy: Proxy, known: bool) -> Result<Outcomes> {
    let spec = LabSpec {
        nodes: options.nodes,
        cni: options.cni,
        proxy,
        agent_env: match proxy {
            Proxy::Weir => options.agent_env.clone(),
            _ => Vec::new(),
        },
    };
    if known && let Some(earlier) = options.suite.earlier(&spec)? {
        eprintln!(
            "{proxy:?}: as kept in {}",
            options.suite.directory(&spec)?.display()
        );
        return Ok(earlier);
    }
    let begun = Instant::now();
    let init = env::current_exe().context("find this program")?;
    let outcomes = options.suite.run(&spec, options.procs, &init)?;
    eprintln!("{proxy:?}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(outcomes)
}

/// Prints both side by side.
fn show(peer: &Outcomes, weir: &Outcomes) {
    let specs: BTreeSet<&String> = peer.keys().chain(weir.keys()).collect();
    println!("{:>16} {:>16}  SPEC", "KUBE-PROXY", "WEIR");
    let cell = |outcome: Option<&Outcome>| {
        outcome.map_or_else(
            || "not run".to_owned(),
            |it| format!("{} {:.0} s", it.state, it.seconds),
        )
    };
    for spec in &specs {
        let (peer, weir) = (peer.get(*spec), weir.get(*spec));
        println!("{:>16} {:>16}  {spec}", cell(peer), cell(weir));
    }
    let passed = |outcomes: &Outcomes| outcomes.values().filter(|it| it.state == PASSED).count();
    println!(
        "{:>16} {:>16}  passed",
        format!("{} of {}", passed(peer), peer.len()),
        format!("{} of {}", passed(weir), weir.len())
    );
}
