//! `cargo xtask demo`: a shop on two nodes of network namespaces, served and guarded by real agents.
//!
//! Acts show something and note what they saw; the end holds it against what was expected (`data/demo/expected.txt`, written
//! by hand). What is seen is seen by plain sockets, which know nothing of that.

mod acts;
mod expected;
mod ledger;
mod matrix;
mod play;
mod screen;
mod shop;
mod stop;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use weir_tests::topology::Shape;

use ledger::Ledger;
use screen::Screen;
use shop::Shop;
use stop::Stop;

/// Shows Weir at work on this machine: two nodes of network namespaces, real clients, no cluster. Needs root.
#[derive(Parser)]
#[command(name = "weir-demo")]
struct Args {
    /// Leave everything up for playing, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Take the programs off again after the agents have started: the demo must then fail
    #[arg(long)]
    sabotage: bool,
    /// How pods are wired to their nodes
    #[arg(long, value_enum, default_value = "ptp")]
    shape: ShapeArg,
    /// How agents attach programs
    #[arg(long, default_value = "auto", value_parser = ["auto", "tcx", "clsact"])]
    attach: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShapeArg {
    Ptp,
    Bridge,
}

/// What an act works with.
struct Demo {
    shop: Shop,
    screen: Screen,
    ledger: Ledger,
    stop: Stop,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: the demo makes network namespaces and loads programs: run it as root");
        return ExitCode::FAILURE;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays all acts; whether everything was as expected.
fn run(args: &Args) -> Result<bool> {
    let begun = Instant::now();
    // Before any thread, so that signals come to the one that waits for them.
    let stop = Stop::on_signals()?;
    let screen = Screen::new();
    let shape = match args.shape {
        ShapeArg::Ptp => Shape::Ptp,
        ShapeArg::Bridge => Shape::Bridge {
            call_iptables: true,
        },
    };
    let mut shop = Shop::open(shape, &args.attach).context("build the shop")?;
    screen.title("The shop");
    screen.table(&["POD", "NAMESPACE", "NODE", "IPV4", "IPV6"], &shop.pods());
    shop.cluster.start_agents().context("start the agents")?;
    screen.text(&format!(
        "An agent runs on each node: weir {}",
        shop.cluster.agent_args("node1").join(" ")
    ));
    if args.sabotage {
        sabotage(&mut shop)?;
        screen.text("Sabotage: the agents are killed, and their programs taken off again.");
    }
    let mut demo = Demo {
        shop,
        screen,
        ledger: Ledger::default(),
        stop,
    };
    for (title, act) in acts::ALL {
        demo.stop.check()?;
        demo.screen.title(title);
        if let Err(error) = act(&mut demo) {
            demo.stop.check()?;
            demo.screen.text(&format!("{error:#}"));
            demo.ledger
                .note(title, "played to its end", &format!("broke off: {error}"));
        }
    }
    demo.screen.title("Expected against observed");
    let good = demo.ledger.show(&demo.screen);
    demo.screen
        .text(&format!("{:.0} seconds.", begun.elapsed().as_secs_f64()));
    if args.keep {
        play::keep(&demo);
    }
    Ok(good)
}

/// Agents put programs back that somebody takes away, so they go first.
fn sabotage(shop: &mut Shop) -> Result<()> {
    shop.cluster.kill_agents()?;
    ["node1", "node2"]
        .iter()
        .try_for_each(|node| shop.cluster.cleanup(node))
}
