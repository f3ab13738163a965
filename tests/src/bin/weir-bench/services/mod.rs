//! Services on real clusters, Weir beside kube-proxy: all clusters are up at once and asked in turns, since this machine is never
//! twice the same.

mod change;
mod echo;
mod population;
mod rate;
mod start;
mod subject;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use weir_tests::lab::{self, Proxy};

use crate::table::{millis, table};
use population::Population;
use rate::{Rates, Style};
use subject::Subject;

/// What `weir-bench services` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Who serves Services, each on a cluster of its own
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "weir,kube-proxy-nftables,kube-proxy-iptables"
    )]
    proxies: Vec<Proxy>,
    /// How many Services there are besides those that are asked, step by step
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    services: Vec<u32>,
    /// How many endpoints each of them has
    #[arg(long, default_value_t = 25)]
    endpoints: u32,
    /// Rounds, in each of which every way is measured once with every proxy
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds of one measurement
    #[arg(long, default_value_t = 400)]
    millis: u64,
    /// Changes of an endpoint, with each proxy
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// Seconds after which no further change is made
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// Measures step by step, and prints tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(missing) = lab::missing() {
        bail!("{missing}");
    }
    let proxies = args.proxies.iter();
    let mut subjects = proxies
        .map(|&proxy| Subject::start(proxy).with_context(|| format!("a cluster with {proxy:?}")))
        .collect::<Result<Vec<_>>>()?;
    let mut populations: Vec<_> = subjects
        .iter()
        .map(|_| Population::new(args.endpoints))
        .collect();
    for &services in &args.services {
        println!("\n## {services} Services of {} endpoints\n", args.endpoints);
        for (subject, population) in subjects.iter_mut().zip(&mut populations) {
            population
                .grow(subject, services)
                .with_context(|| subject.name().to_owned())?;
        }
        rates(args, &subjects)?;
        changes(args, &mut subjects)?;
        starts(&mut subjects)?;
    }
    Ok(())
}

/// Exchanges a second, and how many of those to the pod itself that is.
fn rates(args: &Args, subjects: &[Subject]) -> Result<()> {
    let time = Duration::from_millis(args.millis);
    let mut rows = Vec::new();
    for style in [Style::Connection, Style::Request] {
        let mut rates: Vec<_> = subjects.iter().map(|_| Rates::default()).collect();
        for _ in 0..args.rounds {
            for (subject, rates) in subjects.iter().zip(&mut rates) {
                rates
                    .round(subject, style, time)
                    .with_context(|| subject.name().to_owned())?;
            }
        }
        for (subject, rates) in subjects.iter().zip(&rates) {
            rows.extend(rates.rows(subject, style));
        }
    }
    let head = [
        "exchange",
        "proxy",
        "to a pod on",
        "direct /s",
        "cluster IP /s",
        "of direct",
        "node port /s",
        "of direct",
    ];
    table(&head, &rows);
    Ok(())
}

/// From the API server's answer to a write to the first packet that takes the new way.
fn changes(args: &Args, subjects: &mut [Subject]) -> Result<()> {
    let patience = Duration::from_secs(args.patience);
    let mut rows = Vec::new();
    for subject in subjects {
        let daemon = subject.daemon()?;
        let before = daemon.processor_time()?;
        let changes = change::measure(subject, args.changes, patience)?;
        let spent = daemon.processor_time()?.saturating_sub(before);
        let each = spent / u32::try_from(changes.len()).unwrap_or(u32::MAX).max(1);
        let at = |percent| millis(change::quantile(&changes, percent));
        let memory = format!("{} MiB", daemon.memory()? >> 20);
        rows.push(vec![
            subject.name().to_owned(),
            changes.len().to_string(),
            at(50),
            at(99),
            at(100),
            millis(each),
            memory,
        ]);
    }
    println!();
    let head = [
        "proxy",
        "changes",
        "p50",
        "p99",
        "most",
        "processor time each",
        "resident",
    ];
    table(&head, &rows);
    Ok(())
}

/// From the start of the process to the first packet by a Service that was made meanwhile.
fn starts(subjects: &mut [Subject]) -> Result<()> {
    let mut rows = Vec::new();
    for subject in subjects {
        let took = start::measure(subject).with_context(|| subject.name().to_owned())?;
        let memory = format!("{} MiB", subject.daemon()?.memory()? >> 20);
        rows.push(vec![subject.name().to_owned(), millis(took), memory]);
    }
    println!();
    table(&["proxy", "cold start", "resident"], &rows);
    Ok(())
}
