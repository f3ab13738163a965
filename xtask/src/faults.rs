//! `cargo xtask faults`: plants the faults that implementations of this kind have had, one at a time, and sees that a test fails.
//!
//! It works on a copy under target/faults, which has a build directory of its own: what is being worked on is left alone.

mod agent;
mod answers;
mod compiler;
mod copy;
mod ebpf;
mod logic;
mod packets;
mod policies;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::copy::Copy;
use self::trial::{Bench, Outcome};
use crate::process::minutes;
use crate::workspace;

/// A change for the worse, and the test that must fail then.
#[derive(Debug)]
struct Fault {
    /// What is wrong then, in words.
    name: &'static str,
    /// File, from the repository's root.
    file: &'static str,
    /// What is there exactly once.
    find: &'static str,
    /// What stands there instead.
    replace: &'static str,
    /// The test.
    test: Test,
}

/// A test by its whole name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    suite: Suite,
    name: &'static str,
}

/// Where a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suite {
    /// Unit tests of the agent.
    Agent,
    /// A file of tests/tests whose tests need neither root nor kernel programs.
    Simulated(&'static str),
    /// A file of tests/tests that loads the kernel programs, as root.
    Loaded(&'static str),
}

/// A unit test of the agent.
const fn unit(name: &'static str) -> Test {
    let suite = Suite::Agent;
    Test { suite, name }
}

/// A test of a suite that needs no kernel.
const fn simulated(suite: &'static str, name: &'static str) -> Test {
    let suite = Suite::Simulated(suite);
    Test { suite, name }
}

/// A test of a suite that loads the kernel programs.
const fn loaded(suite: &'static str, name: &'static str) -> Test {
    let suite = Suite::Loaded(suite);
    Test { suite, name }
}

/// Areas of the code, with their faults. Those that load programs come last: the object is built anew for each.
const AREAS: [(&str, &[Fault]); 7] = [
    ("logic", logic::FAULTS),
    ("logic", packets::FAULTS),
    ("compiler", compiler::FAULTS),
    ("compiler", policies::FAULTS),
    ("agent", agent::FAULTS),
    ("answers", answers::FAULTS),
    ("ebpf", ebpf::FAULTS),
];

/// Faults that no test is known to notice, each with the reason why that is borne.
const BORNE: [(&str, &str); 2] = [
    (
        "a port is taken from the connection that has it",
        "the port is looked for before: only two processors at once show it, and packets are replayed one by one",
    ),
    (
        "a refused connection of a socket goes on",
        "a kernel that lets the program choose the error (6.1 and later) fails the call by that error alone",
    ),
];

/// What `cargo xtask faults` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Plant those faults only whose name, area or file has these words
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Plant those of one area only: logic, compiler, agent, answers, ebpf
    #[arg(long)]
    area: Option<String>,
    /// Plant every Nth fault only, beginning with the Kth: N machines can share the work
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Longest time to build with a fault, and for its test
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// List the faults, and plant none
    #[arg(long)]
    list: bool,
}

/// One of several equal shares, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    which: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (which, of) = text.split_once('/').context("a shard is K/N, as 1/4")?;
        let (which, of) = (which.parse()?, of.parse()?);
        if which == 0 || which > of {
            bail!("of {of} shards there is no number {which}");
        }
        Ok(Self { which, of })
    }
}

impl Shard {
    fn has(self, index: usize) -> bool {
        index % self.of == self.which - 1
    }
}

/// Faults with their areas.
type Chosen = Vec<(&'static str, &'static Fault)>;

/// Plants the chosen faults and prints what came of each.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let chosen = choose(options);
    if chosen.is_empty() {
        bail!("no fault is chosen; `cargo xtask faults --list` shows all");
    }
    if options.list {
        for (area, fault) in chosen {
            println!(
                "{area:<9} {}\n          {}, {}",
                fault.name, fault.file, fault.test
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let copy = Copy::make(&workspace::root(), &workspace::target().join("faults"))?;
    for (_, fault) in &chosen {
        copy.find(fault)?;
    }
    let mut bench = Bench::new(copy, minutes(options.minutes))?;
    let tests: BTreeSet<Test> = chosen.iter().map(|(_, fault)| fault.test).collect();
    println!("{} tests without any fault", tests.len());
    bench.unbroken(&tests)?;

    let mut results = Vec::new();
    for (area, fault) in chosen {
        let begun = Instant::now();
        let outcome = bench.plant(fault)?;
        tell(area, fault, &outcome, begun.elapsed());
        results.push((area, fault, outcome));
    }
    Ok(close(&results))
}

fn choose(options: &Options) -> Chosen {
    let has = |words: &str, area: &str, fault: &Fault| {
        [area, fault.name, fault.file]
            .iter()
            .any(|text| text.contains(words))
    };
    let all = AREAS
        .iter()
        .flat_map(|(area, faults)| faults.iter().map(move |fault| (*area, fault)));
    all.filter(|(area, fault)| {
        let (words, wanted) = (options.only.as_ref(), options.area.as_ref());
        words.is_none_or(|words| has(words, area, fault))
            && wanted.is_none_or(|wanted| wanted == area)
    })
    .enumerate()
    .filter(|(index, _)| options.shard.is_none_or(|shard| shard.has(*index)))
    .map(|(_, fault)| fault)
    .collect()
}

fn tell(area: &str, fault: &Fault, outcome: &Outcome, took: Duration) {
    println!(
        "{:<9} {area:<9} {} ({:.0} s)",
        outcome.word(),
        fault.name,
        took.as_secs_f64()
    );
    if let Outcome::Broken(why) | Outcome::Skipped(why) = outcome {
        println!("          {}", why.trim_end().replace('\n', "\n          "));
    }
}

/// Prints the closing lines. A survivor that is borne is no failure.
fn close(results: &[(&str, &Fault, Outcome)]) -> ExitCode {
    let mut areas: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (area, _, outcome) in results {
        areas.entry(area).or_default()[outcome.column()] += 1;
    }
    println!("\narea      caught survived broken skipped");
    for (area, [caught, survived, broken, skipped]) in &areas {
        println!("{area:<9} {caught:>6} {survived:>8} {broken:>6} {skipped:>7}");
    }
    let mut failed = false;
    for (area, fault, outcome) in results {
        let borne = BORNE.iter().find(|(name, _)| *name == fault.name);
        match (outcome, borne) {
            (Outcome::Survived, Some((_, reason))) => {
                println!("borne     {area}: {}: {reason}", fault.name);
            }
            (Outcome::Survived, None) => {
                failed = true;
                println!(
                    "SURVIVED  {area}: {}: {} passed with it",
                    fault.name, fault.test
                );
            }
            (Outcome::Broken(_), _) => {
                failed = true;
                println!("BROKEN    {area}: {}", fault.name);
            }
            (Outcome::Caught | Outcome::Skipped(_), _) => {}
        }
    }
    let sum = |column: usize| areas.values().map(|counts| counts[column]).sum::<usize>();
    println!("{} caught, {} survived, {} broken", sum(0), sum(1), sum(2));
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
