//! Benchmarks: numbers for people, as tables in Markdown. None of them is a test.

mod changes;
mod datapath;
mod policies;
mod process;
mod scrape;
mod services;
mod table;

use anyhow::Result;
use clap::{Parser, Subcommand};
use weir_tests::lab::Init;

/// Measure Weir
#[derive(Parser)]
#[command(name = "weir-bench")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Nanoseconds per packet of the loaded programs
    Datapath(datapath::Args),
    /// Packets per second that a node forwards from outside to another node, through its network stack and past it
    Forward(datapath::forward::Args),
    /// What it costs the agent to tell the ends of connections, and how many of them go untold
    Flows(datapath::flows::Args),
    /// What a change of an endpoint costs in the agent, however many Services there are
    Changes(changes::Args),
    /// What policies cost, however many pods and policies there are: changes in the agent and in the kernel, packets, memory
    Policies(policies::Args),
    /// What a scrape of metrics takes, however many Services there are
    Scrape(scrape::Args),
    /// Connections, changes, memory and start on real clusters, side by side with kube-proxy
    Services(services::Args),
    /// Be the first process of a node
    #[command(hide = true)]
    Init {
        /// What the node is like
        file: std::path::PathBuf,
    },
}

fn main() -> Result<()> {
    match Args::parse().what {
        What::Datapath(args) => datapath::run(&args),
        What::Forward(args) => datapath::forward::run(&args),
        What::Flows(args) => datapath::flows::run(&args),
        What::Changes(args) => changes::run(&args),
        What::Policies(args) => policies::run(&args),
        What::Scrape(args) => scrape::run(&args),
        What::Services(args) => services::run(&args),
        What::Init { file } => Init::begin(&file).map(|never| match never {}),
    }
}
