//! Nanoseconds per packet of the loaded programs, by `BPF_PROG_TEST_RUN`, as a table in Markdown.
//!
//! Two methods. *repeat*: the kernel runs the program many times over one packet and tells the mean, so caches and branch predictors
//! are warm; only for packets that the program leaves as they are. *single*: one run per system call, median of many, which adds
//! what the call leaves cold. Each method has its own floor, the program that does nothing, measured in the same rounds; what a
//! case costs above its floor can be compared between the methods.

mod case;
pub(crate) mod flows;
pub(crate) mod forward;
mod world;

use anyhow::{Context as _, Result, ensure};
use weir::datapath::{Floor, KernelDatapath, TestRun};
use weir_common::abi::{Counter, Hook};
use weir_common::reason::Reason;
use weir_tests::kernel::Place;

use case::{Case, Method, cases};
use world::World;

/// What `weir-bench datapath` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which every case and both floors are measured
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Runs of one case in one round by the method `single`
    #[arg(long, default_value_t = 2_000)]
    calls: u32,
    /// Runs of one case in one round by the method `repeat`
    #[arg(long, default_value_t = 200_000)]
    repeat: u32,
    /// Flows in the table in the second half
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
}

/// Measures, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let place = Place::new().context("measuring needs root and an agent with kernel programs")?;
    let mut world = World::new(&place)?;
    println!(
        "| case | flows | method | median ns | min | max | x floor | above floor | with floor of `repeat` | target |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|");
    for flows in [1, args.flows] {
        world.fill(flows)?;
        measure(args, &world, flows)?;
    }
    Ok(())
}

/// Nanoseconds of one case in each round.
struct Series(Vec<f64>);

impl Series {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted[sorted.len() / 2]
    }

    fn row(&self, name: &str, flows: u32, method: Method) -> String {
        let sorted = self.sorted();
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        let median = self.median();
        format!("| {name} | {flows} | {method} | {median:.0} | {min:.0} | {max:.0} |")
    }
}

fn measure(args: &Args, world: &World, flows: u32) -> Result<()> {
    let cases = cases();
    let floor_packet = case::established(false, 0);
    let mut floors = [Method::Repeat, Method::Single].map(|method| (method, Series(Vec::new())));
    let mut series: Vec<Series> = cases.iter().map(|_| Series(Vec::new())).collect();
    for round in 0..args.rounds {
        for (method, series) in &mut floors {
            series
                .0
                .push(floor(args, &world.floor, *method, &floor_packet)?);
        }
        for (case, series) in cases.iter().zip(&mut series) {
            let nanoseconds = one(args, world, case, round as u32)
                .with_context(|| format!("case `{}`", case.name))?;
            series.0.push(nanoseconds);
        }
    }
    let floor_of = |wanted: Method| {
        let mut all = floors.iter();
        all.find(|(method, _)| *method == wanted)
            .map_or(0.0, |(_, series)| series.median())
    };
    for (method, series) in &floors {
        println!(
            "{} 1.0 | 0 | | |",
            series.row("empty program", flows, *method)
        );
    }
    for (case, series) in cases.iter().zip(&series) {
        let (median, floor) = (series.median(), floor_of(case.method));
        let above = median - floor;
        let target = case
            .target
            .map_or(String::new(), |target| target.to_string());
        println!(
            "{} {:.1} | {above:.0} | {:.0} | {target} |",
            series.row(case.name, flows, case.method),
            median / floor,
            above + floor_of(Method::Repeat),
        );
    }
    Ok(())
}

fn floor(args: &Args, floor: &Floor, method: Method, packet: &[u8]) -> Result<f64> {
    let run = TestRun::new(packet, 0, 0);
    match method {
        Method::Repeat => {
            let repeat = args.repeat;
            let output = floor.test_run(&TestRun { repeat, ..run })?;
            Ok(f64::from(output.nanoseconds))
        }
        Method::Single => median((0..args.calls).map(|_| Ok(floor.test_run(&run)?.nanoseconds))),
    }
}

/// Measures a case, and makes sure that every packet went the way that the case means to measure.
fn one(args: &Args, world: &World, case: &Case, round: u32) -> Result<f64> {
    (case.prepare)(world)?;
    let before = counted(&world.datapath, case)?;
    let (runs, nanoseconds) = match case.method {
        Method::Repeat => repeated(args, world, case)?,
        Method::Single => {
            let first = round * args.calls;
            let calls = first..first + args.calls;
            let nanoseconds = median(calls.map(|number| {
                let packet = (case.packet)(world, number);
                let run = TestRun::new(&packet, world.device, world.device);
                let output = world.datapath.test_run(case.hook, &run)?;
                (case.clean)(world, number)?;
                Ok(output.nanoseconds)
            }))?;
            (args.calls, nanoseconds)
        }
    };
    let counted = counted(&world.datapath, case)?.packets - before.packets;
    ensure!(
        counted == u64::from(runs),
        "{counted} of {runs} packets were {}",
        case.reason.name()
    );
    Ok(nanoseconds)
}

/// In batches after which the events are read, since a full ring buffer would make sending cheaper.
fn repeated(args: &Args, world: &World, case: &Case) -> Result<(u32, f64)> {
    const BATCH: u32 = 4_000;
    let packet = (case.packet)(world, 0);
    let run = TestRun::new(&packet, world.device, world.device);
    let mut events = world.datapath.events()?;
    let batch = if case.reason.is_drop() {
        BATCH
    } else {
        args.repeat
    };
    let batches = (args.repeat / batch).max(1);
    let mut sum = 0.0;
    for _ in 0..batches {
        while events.next().is_some() {}
        let run = TestRun {
            repeat: batch,
            ..run
        };
        let output = world.datapath.test_run(case.hook, &run)?;
        sum += f64::from(output.nanoseconds);
    }
    while events.next().is_some() {}
    Ok((batches * batch, sum / f64::from(batches)))
}

fn median(samples: impl Iterator<Item = Result<u32>>) -> Result<f64> {
    let mut samples = samples.collect::<Result<Vec<_>>>()?;
    samples.sort_unstable();
    Ok(f64::from(samples[samples.len() / 2]))
}

fn counted(datapath: &KernelDatapath, case: &Case) -> Result<Counter> {
    let counters = datapath.counters()?;
    let mut counters = counters.into_iter();
    let wanted = |hook: Hook, reason: Reason| hook == case.hook && reason == case.reason;
    let found = counters.find(|(hook, reason, _)| wanted(*hook, *reason));
    Ok(found.map(|(_, _, counter)| counter).unwrap_or_default())
}
