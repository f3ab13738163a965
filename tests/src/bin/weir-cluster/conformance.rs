//! Weir against upstream's own specs, side by side with kube-proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use weir_tests::lab::e2e::{self, Outcome, Selection};
use weir_tests::lab::{self, Cni, Lab, LabSpec, MAX_NODES, Proxy};

/// How a spec ends that finds the cluster unfit for it.
const SKIPPED: &str = "skipped";

type Outcomes = BTreeMap<String, Outcome>;

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

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    /// Services, Conntrack, EndpointSlice, NoSNAT, Traffic Distribution and Topology Hints of sig-network
    Services,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
        }
    }

    fn selection(self) -> Selection {
        match self {
            Self::Services => Selection {
                focus: r"\[sig-network\] (Services|Conntrack|EndpointSlice|NoSNAT|Traffic Distribution|Topology Hints)",
                skip: r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Feature:LoadBalancer\]",
            },
        }
    }

    /// Specs that Weir does not pass yet.
    fn exceptions(self) -> Result<Vec<Exception>> {
        let text = match self {
            Self::Services => include_str!("../../../data/conformance/services.yaml"),
        };
        serde_saphyr::from_str(text).context("read which specs are known to fail")
    }
}

/// A spec that Weir does not pass yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    spec: String,
    reason: String,
}

/// Runs the specs with both, where the peer's outcomes are not known yet, and compares.
pub(crate) fn conformance(options: &Options) -> Result<ExitCode> {
    if let Some(missing) = lab::missing() {
        bail!("{missing}");
    }
    let exceptions = options.suite.exceptions()?;
    e2e::build()?;
    let peer = run(options, Proxy::KubeProxyNftables, !options.peer_again)?;
    ensure!(!peer.is_empty(), "no spec was run with kube-proxy");
    let weir = run(options, Proxy::Weir, false)?;
    let problems = show(&peer, &weir, &exceptions);
    for problem in &problems {
        println!("FAILED   {problem}");
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
        agent_env: options.agent_env.clone(),
    };
    let to = directory(options, &spec)?;
    let earlier = if known { e2e::earlier(&to)? } else { None };
    if let Some(earlier) = earlier {
        eprintln!("{proxy:?}: as kept in {}", to.display());
        return Ok(earlier);
    }
    let begun = Instant::now();
    let init = env::current_exe().context("find this program")?;
    let mut lab = Lab::start(&spec, &init)?;
    eprintln!(
        "{proxy:?}: running specs; reports and a log go to {}",
        to.display()
    );
    let outcomes = e2e::run(&mut lab, options.suite.selection(), options.procs, &to)?;
    lab.ensure_running()?;
    eprintln!("{proxy:?}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(outcomes)
}

/// Where reports are kept: apart for each version of the specs, cluster and proxy.
fn directory(options: &Options, spec: &LabSpec) -> Result<PathBuf> {
    let value = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    Ok(weir_tests::cache_dir()?
        .join("conformance")
        .join(format!("{}-{}", options.suite.name(), e2e::version()?))
        .join(format!(
            "{}-{}",
            value(spec.cni.to_possible_value()),
            spec.nodes
        ))
        .join(value(spec.proxy.to_possible_value())))
}

/// Prints both side by side; returns what is wrong.
fn show(peer: &Outcomes, weir: &Outcomes, exceptions: &[Exception]) -> Vec<String> {
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
    let passed = |outcomes: &Outcomes| outcomes.values().filter(|it| it.state == "passed").count();
    println!(
        "{:>16} {:>16}  passed",
        format!("{} of {}", passed(peer), peer.len()),
        format!("{} of {}", passed(weir), weir.len())
    );
    problems(peer, weir, exceptions)
}

/// What is wrong: specs that only one of both ran, those that did not pass although nobody said so, and those that did
/// although somebody said they would not. A spec that calls the cluster too small, and so skips itself, was not run.
fn problems(peer: &Outcomes, weir: &Outcomes, exceptions: &[Exception]) -> Vec<String> {
    let mut problems = Vec::new();
    let known = |spec: &String| exceptions.iter().find(|it| it.spec == *spec);
    let ran = |outcomes: &Outcomes, spec: &String| {
        outcomes.get(spec).is_some_and(|it| it.state != SKIPPED)
    };
    for (spec, outcome) in peer {
        if !["passed", SKIPPED].contains(&outcome.state.as_str()) {
            problems.push(format!("{spec}: {} with kube-proxy", outcome.state));
        }
        if ran(peer, spec) && !ran(weir, spec) {
            problems.push(format!("{spec}: run with kube-proxy only"));
        }
    }
    for (spec, outcome) in weir {
        if ran(weir, spec) && !ran(peer, spec) {
            problems.push(format!("{spec}: run with Weir only"));
        }
        match (outcome.state.as_str(), known(spec)) {
            ("passed", Some(_)) => problems.push(format!(
                "{spec}: passed, so it must not be listed as known to fail"
            )),
            ("passed" | SKIPPED, _) => {}
            (state, Some(exception)) => println!("known    {spec}: {state}: {}", exception.reason),
            (state, None) => {
                let message = outcome.message.lines().next().unwrap_or_default();
                problems.push(format!("{spec}: {state}: {message}"));
            }
        }
    }
    for exception in exceptions {
        if !ran(weir, &exception.spec) {
            problems.push(format!(
                "{}: listed as known to fail, but not run",
                exception.spec
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(states: &[(&str, &str)]) -> Outcomes {
        let outcome = |state: &str| Outcome {
            state: state.to_owned(),
            seconds: 1.0,
            message: String::new(),
        };
        states
            .iter()
            .map(|(spec, state)| ((*spec).to_owned(), outcome(state)))
            .collect()
    }

    fn exception(spec: &str) -> Exception {
        Exception {
            spec: spec.to_owned(),
            reason: "not built yet".to_owned(),
        }
    }

    #[test]
    fn only_the_same_specs_all_passed_are_good() {
        let both = outcomes(&[("a", "passed"), ("b", "passed")]);
        assert!(problems(&both, &both, &[]).is_empty());
        let cases = [
            (
                outcomes(&[("a", "passed")]),
                vec![],
                "b: run with kube-proxy only",
            ),
            (
                outcomes(&[("a", "passed"), ("b", "passed"), ("c", "passed")]),
                vec![],
                "c: run with Weir only",
            ),
            (
                outcomes(&[("a", "passed"), ("b", "skipped")]),
                vec![],
                "b: run with kube-proxy only",
            ),
            (both.clone(), vec![exception("b")], "b: passed, so it"),
            (both.clone(), vec![exception("z")], "z: listed as known"),
        ];
        for (weir, exceptions, expected) in cases {
            let found = problems(&both, &weir, &exceptions);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{expected}: {found:?}"
            );
        }
        let failing = outcomes(&[("a", "passed"), ("b", "failed")]);
        assert!(problems(&both, &failing, &[exception("b")]).is_empty());
        assert_eq!(
            problems(&failing, &both, &[]),
            ["b: failed with kube-proxy"]
        );
    }

    #[test]
    fn exceptions_are_readable() -> Result<()> {
        Suite::Services.exceptions().map(drop)
    }
}
