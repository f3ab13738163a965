//! Carries out commands.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use jiff::Timestamp;
use serde::Serialize;

use super::args::{
    Cli, Command, ConfigCommand, ConntrackCommand, DocumentFormat, ListCommand, LiveQuery,
    MapCommand, OutputFormat, PolicyCommand, ServiceCommand,
};
use super::ask::{ask, ask_all, ask_node};
use super::print::NodeAudit;
use super::{
    Outcome, admin_proxy, bundle, check, cni, coverage, doctor, explain, flows, history, lists,
    print, show, takeover, top, write_out,
};
use crate::admin::{Audit, MapDump};
use crate::cni::Installation;
use crate::config::{self, Effective, HUBBLE_SOCKET, LogFormat, RunConfig, admin_socket};
use crate::datapath;

/// What completion scripts and manual pages are for.
const PROGRAM: &str = "weir";

pub(super) fn execute(command: Command) -> Result<Outcome> {
    match command {
        Command::Run(given) => return run(*given),
        Command::Config(command) => configuration(*command)?,
        Command::Init { mount } => init(&mount)?,
        Command::Status {
            watch,
            headers,
            query,
        } => lists::status(watch, headers, &query)?,
        Command::Service(ServiceCommand::List { listing, query }) => {
            lists::services(&listing, &query)?;
        }
        Command::Service(ServiceCommand::Show { name, query }) => show::service(&name, &query)?,
        Command::Policy(PolicyCommand::Coverage { scope, query }) => {
            coverage::execute(&scope, &query)?;
        }
        Command::Policy(PolicyCommand::Show { name, query }) => show::policy(&name, &query)?,
        Command::Endpoint(ListCommand::List { listing, query }) => {
            lists::endpoints(&listing, &query)?;
        }
        Command::Policy(PolicyCommand::List { listing, query }) => {
            lists::policies(&listing, &query)?;
        }
        Command::Policy(PolicyCommand::Lint { scope, query }) => {
            return check::lint(&scope, &query);
        }
        Command::Explain {
            source,
            destination,
            fix,
            query,
        } => return explain::execute(&source, &destination, fix, &query),
        Command::Matrix { scope, port, query } => show::matrix(&scope, port, &query)?,
        Command::Check(asked) => return check::execute(&asked),
        Command::Map(MapCommand::Dump { canonical, query }) => {
            let canonical = if canonical { "true" } else { "false" };
            let dump: MapDump = ask_node(&query.whom, "/v1/map-dump", &[("canonical", canonical)])?;
            object(query.output, "MapDump", &dump, print::map_dump)?;
        }
        Command::Conntrack(ConntrackCommand::List {
            watch,
            headers,
            query,
        }) => lists::connections(watch, headers, &query)?,
        Command::Flows {
            follow,
            last,
            wanted,
            query,
        } => {
            let filter = wanted.filter(Timestamp::now());
            if follow {
                flows::follow(&filter, &query)?;
            } else {
                flows::list(&filter, last, &query)?;
            }
        }
        Command::Top(asked) => top::execute(&asked)?,
        Command::History {
            last,
            headers,
            query,
        } => history::execute(last, headers, &query)?,
        Command::Bundle {
            output,
            bpffs,
            whom,
        } => bundle::execute(output, &bpffs, &whom)?,
        Command::Audit { query } => return audit(&query),
        Command::Doctor { bpffs, query } => return doctor::execute(&bpffs, &query),
        Command::Takeover(asked) => takeover::execute(&asked)?,
        Command::Cni { command } => return cni::execute(command),
        Command::AdminProxy { run_dir } => admin_proxy::execute(&run_dir)?,
        Command::Cleanup { bpffs, run_dir } => cleanup(&bpffs, &run_dir)?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
            write_out(&String::from_utf8_lossy(&script))?;
        }
        Command::Man { directory } => clap_mangen::generate_to(Cli::command(), &directory)
            .with_context(|| format!("cannot write manual pages to {}", directory.display()))?,
        Command::Version { output } => {
            let version = print::Version::current();
            object(output, "Version", &version, print::version)?;
        }
    }
    Ok(Outcome::Yes)
}

fn run(given: Effective) -> Result<Outcome> {
    given.validate()?;
    let Effective {
        config, ignored, ..
    } = given;
    init_logging(&config)?;
    for ignored in ignored {
        let (file, field, value) = (ignored.place.location(), ignored.place.field, ignored.value);
        tracing::warn!(file, field, %value, reason = ignored.reason, "a field has no effect");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(crate::runtime::run(config))?;
    Ok(Outcome::Yes)
}

fn init(mount: &Path) -> Result<()> {
    let done = if datapath::mount_bpffs(mount)? {
        "mounted a BPF file system"
    } else {
        "there is a BPF file system"
    };
    Ok(write_out(&format!("{done} at {}\n", mount.display()))?)
}

/// Logs go to standard error: standard output belongs to answers.
fn init_logging(config: &RunConfig) -> Result<()> {
    let filter: tracing_subscriber::EnvFilter = config.log_level.parse()?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let result = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

fn configuration(command: ConfigCommand) -> Result<()> {
    let text = match command {
        ConfigCommand::Check { given } => {
            given.validate()?;
            return Ok(());
        }
        ConfigCommand::Reference => config::reference(),
        ConfigCommand::Print {
            effective,
            output,
            given,
        } => match output {
            _ if !effective => config::defaults(),
            DocumentFormat::Yaml => given.to_yaml(),
            DocumentFormat::Json => print::json("EffectiveConfiguration", &given.to_json())?,
        },
    };
    Ok(write_out(&text)?)
}

fn audit(query: &LiveQuery) -> Result<Outcome> {
    let clean = if query.whom.is_of_all() {
        let answers = ask_all::<Audit>(&query.whom, "/v1/audit", &[])?;
        let given = answers.given.iter();
        let rows: Vec<_> = given
            .map(|(node, audit)| NodeAudit { node, audit })
            .collect();
        list(query.output, "AuditList", &rows, print::audits)?;
        let clean = rows.iter().all(|row| row.audit.differences.is_empty());
        answers.complete()?;
        clean
    } else {
        let audit: Audit = ask(&query.whom, "/v1/audit", &[])?;
        object(query.output, "Audit", &audit, print::audit)?;
        audit.differences.is_empty()
    };
    Ok(if clean { Outcome::Yes } else { Outcome::No })
}

fn cleanup(bpffs: &Path, run_dir: &Path) -> Result<()> {
    datapath::cleanup(bpffs)?;
    crate::takeover::remove_own()?;
    // What cannot be read as a network configuration names no plugin of ours.
    if Installation::of_node().is_installed().unwrap_or(false) {
        eprintln!(
            "the CNI plugin is still installed, and lets no pod start without an agent: `weir cni uninstall` takes it out"
        );
    }
    for socket in [admin_socket(run_dir), run_dir.join(HUBBLE_SOCKET)] {
        if let Err(error) = fs::remove_file(&socket)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
    }
    Ok(())
}

pub(super) fn object<T: Serialize>(
    output: OutputFormat,
    kind: &str,
    answer: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    let text = match output {
        OutputFormat::Table => table(answer),
        OutputFormat::Json => print::json(kind, answer)?,
        OutputFormat::Yaml => print::yaml(kind, answer)?,
    };
    Ok(write_out(&text)?)
}

pub(super) fn list<T: Serialize>(
    output: OutputFormat,
    kind: &str,
    items: &[T],
    table: impl FnOnce(&[T]) -> String,
) -> Result<()> {
    object(output, kind, &print::Items { items }, |list| {
        table(list.items)
    })
}
