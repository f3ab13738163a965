//! `cargo xtask cluster`: real clusters on this machine, several at once if wanted.
//!
//! A cluster belongs to one process in the background and ends with it, however it ends: the kernel ends what that
//! process started, and namespaces, cgroups and files of a process that is gone are removed by `down`.

mod conformance;
mod serve;
mod state;
mod up;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use weir_tests::lab::{Init, LabSpec};
use weir_tests::topology::sweep;

use state::{Home, State};

/// How long an orderly end may take; then it is killed, which leaves nothing either.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Real Kubernetes clusters on this machine: up in a minute, gone without a trace. Needs root.
#[derive(Parser)]
#[command(name = "weir-cluster", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Action,
}

/// Which cluster.
#[derive(clap::Args)]
struct Name {
    /// The cluster's name
    #[arg(long, default_value = "weir", value_name = "NAME")]
    name: String,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster and wait until it works
    Up {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        spec: LabSpec,
    },
    /// End a cluster and remove all of it, also what a crash left behind
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Show all clusters
    Status,
    /// Run a command with `kubectl` and its KUBECONFIG, or on a node; a shell if none is given
    Shell {
        #[command(flatten)]
        name: Name,
        /// Run it on this node, in all its namespaces
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Give the images of an archive to every node
    Load {
        #[command(flatten)]
        name: Name,
        /// As `docker save` writes it, or in OCI's layout
        archive: PathBuf,
    },
    /// Run upstream's specs with kube-proxy and with Weir, and compare
    Conformance(conformance::Options),
    /// Be a cluster, in the foreground
    #[command(hide = true)]
    Serve {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        spec: LabSpec,
    },
    /// Be the first process of a node
    #[command(hide = true)]
    Init { file: PathBuf },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    ensure!(
        geteuid().is_root(),
        "clusters are made of namespaces: run it as root"
    );
    match action {
        Action::Up { name, spec } => up::up(&name.name, &spec)?,
        Action::Down { name } => down(&name.name)?,
        Action::Status => status()?,
        Action::Shell {
            name,
            node,
            command,
        } => {
            return shell(&running(&name)?, node.as_deref(), &command);
        }
        Action::Load { name, archive } => {
            for (node, entrance) in running(&name)?.nodes {
                entrance.import(&archive).context(node)?;
            }
        }
        Action::Conformance(options) => return conformance::conformance(&options),
        Action::Serve { name, spec } => serve::serve(&name.name, &spec)?,
        Action::Init { file } => Init::begin(&file).map(|never| match never {})?,
    }
    Ok(ExitCode::SUCCESS)
}

fn running(name: &Name) -> Result<State> {
    let state = Home::of(&name.name)?.running();
    state.with_context(|| format!("cluster {}", name.name))
}

fn down(name: &str) -> Result<()> {
    let home = Home::of(name)?;
    if !home.exists() {
        println!("there is no cluster {name}");
        return Ok(());
    }
    if home.try_lock()?.is_none() {
        let pid = home.holder()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // Nobody holds the lock any more: it has ended by itself.
            if home.try_lock()?.is_none() {
                kill(Pid::from_raw(pid), signal)
                    .with_context(|| format!("send {signal} to process {pid}"))?;
            }
            if home.wait_free(END_LIMIT)? {
                break;
            }
        }
        ensure!(
            home.try_lock()?.is_some(),
            "process {pid} of cluster {name} does not end"
        );
    }
    sweep()?;
    home.remove()?;
    println!("cluster {name} is down");
    Ok(())
}

fn status() -> Result<()> {
    for name in state::names()? {
        let home = Home::of(&name)?;
        let up = home.try_lock()?.is_none();
        let Some(state) = home.read()?.filter(|_| up) else {
            let what = if up {
                "is starting"
            } else {
                "has crashed: take it down"
            };
            println!("cluster {name} {what} ({})", home.log().display());
            continue;
        };
        let spec = &state.spec;
        println!(
            "cluster {name} is up: {:?} pods, Services by {:?}, process {}",
            spec.cni, spec.proxy, state.pid
        );
        for logs in &state.logs {
            println!("  logs in {}", logs.display());
        }
        let nodes = control(&state, &["kubectl", "get", "nodes", "-o", "wide"]).status();
        nodes.context("ask the API server for nodes")?;
    }
    Ok(())
}

/// A command where the API server can be reached.
fn control(state: &State, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", state.network))
        .arg("--")
        .args(words)
        .env("KUBECONFIG", &state.kubeconfig);
    let paths = env::var_os("PATH").unwrap_or_default();
    let kubectl = state.kubectl.parent().map(Path::to_owned);
    if let Ok(paths) = env::join_paths(kubectl.into_iter().chain(env::split_paths(&paths))) {
        command.env("PATH", paths);
    }
    command
}

fn shell(state: &State, node: Option<&str>, words: &[String]) -> Result<ExitCode> {
    let shell = env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let words: Vec<&str> = match words {
        [] => vec![&shell],
        words => words.iter().map(String::as_str).collect(),
    };
    let mut command = match node {
        None => control(state, &words),
        Some(node) => {
            let found = state.nodes.iter().find(|(name, _)| name == node);
            let (_, entrance) = found.with_context(|| format!("the cluster has no {node}"))?;
            let mut command = entrance.command();
            command.args(&words);
            command
        }
    };
    let status = command.status().with_context(|| format!("run {words:?}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
