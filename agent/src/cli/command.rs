//! Carries out commands.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::{
    Command, ConfigCommand, ConntrackCommand, DocumentFormat, ListCommand, LiveQuery, MapCommand,
    OutputFormat, Query, Scope, ServiceCommand,
};
use super::{Outcome, check, cni, colour, doctor, offline, print, takeover, write_out};
use crate::admin::{self, Audit, Client, FlowRow, MapDump, PodRow, PolicyRow, Status};
use crate::cni::Installation;
use crate::config::{self, Effective, LogFormat, RunConfig, admin_socket};
use crate::datapath;
use crate::explain::{self, Explanation, Question, Translation, Verdict};
use crate::flows::{self, Record};

pub(super) fn execute(command: Command) -> Result<Outcome> {
    match command {
        Command::Run(given) => return run(*given),
        Command::Config(command) => configuration(*command)?,
        Command::Init { mount } => init(&mount)?,
        Command::Status { query } => status(&query)?,
        Command::Service(ServiceCommand::List { scope, query }) => services(&scope, &query)?,
        Command::Endpoint(ListCommand::List { scope, query }) => endpoints(&scope, &query)?,
        Command::Policy(ListCommand::List { scope, query }) => policies(&scope, &query)?,
        Command::Explain {
            source,
            destination,
            fix,
            query,
        } => return explain(&source, &destination, fix, &query),
        Command::Check(asked) => return check::execute(&asked),
        Command::Map(MapCommand::Dump { canonical, query }) => {
            let canonical = if canonical { "true" } else { "false" };
            let dump: MapDump = ask(&query, "/v1/map-dump", &[("canonical", canonical)])?;
            object(query.output, "MapDump", &dump, print::map_dump)?;
        }
        Command::Conntrack(ConntrackCommand::List { query }) => {
            let flows: Vec<FlowRow> = ask(&query, "/v1/flows", &[])?;
            list(query.output, "FlowList", &flows, print::flows)?;
        }
        Command::Flows {
            last,
            dropped,
            query,
        } => flow_records(last, dropped, &query)?,
        Command::Audit { query } => return audit(&query),
        Command::Doctor { bpffs, query } => return doctor::execute(&bpffs, &query),
        Command::Takeover(asked) => takeover::execute(&asked)?,
        Command::Cni { command } => return cni::execute(command),
        Command::Cleanup { bpffs, run_dir } => cleanup(&bpffs, &run_dir)?,
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

fn status(query: &Query) -> Result<()> {
    if query.manifests.is_some() {
        bail!("status is that of a running agent: leave --manifests out");
    }
    let status: Status = ask(&query.live, "/v1/status", &[])?;
    object(query.live.output, "Status", &status, print::status)
}

fn services(scope: &Scope, query: &Query) -> Result<()> {
    let mut rows: Vec<Translation> = match &query.manifests {
        Some(directory) => explain::services(&offline::load(directory, query)?),
        None => ask(&query.live, "/v1/services", &[])?,
    };
    rows.retain(|row| scope.holds(&row.service.namespace));
    list(query.live.output, "ServiceList", &rows, print::services)
}

fn endpoints(scope: &Scope, query: &Query) -> Result<()> {
    let mut rows: Vec<PodRow> = match &query.manifests {
        Some(directory) => admin::pods(&offline::load(directory, query)?),
        None => ask(&query.live, "/v1/endpoints", &[])?,
    };
    rows.retain(|row| scope.holds(&row.pod.namespace));
    list(query.live.output, "EndpointList", &rows, print::pods)
}

fn policies(scope: &Scope, query: &Query) -> Result<()> {
    let mut rows: Vec<PolicyRow> = match &query.manifests {
        Some(directory) => admin::policies(&offline::load(directory, query)?),
        None => ask(&query.live, "/v1/policies", &[])?,
    };
    rows.retain(|row| scope.holds(&row.policy.namespace));
    list(query.live.output, "PolicyList", &rows, print::policies)
}

fn explain(source: &str, destination: &str, fix: bool, query: &Query) -> Result<Outcome> {
    let question = Question::parse(source, destination)?;
    let answer: Explanation = match &query.manifests {
        Some(directory) => explain::explain(&offline::load(directory, query)?, &question)?,
        None => ask(
            &query.live,
            "/v1/explain",
            &[("src", source), ("dst", destination)],
        )?,
    };
    if fix {
        write_out(&print::fixes(&answer))?;
    } else {
        object(query.live.output, "Explanation", &answer, |answer| {
            print::explanation(answer, colour())
        })?;
    }
    Ok(match answer.verdict {
        Verdict::Allowed => Outcome::Yes,
        _ => Outcome::No,
    })
}

fn audit(query: &LiveQuery) -> Result<Outcome> {
    let audit: Audit = ask(query, "/v1/audit", &[])?;
    object(query.output, "Audit", &audit, print::audit)?;
    Ok(if audit.differences.is_empty() {
        Outcome::Yes
    } else {
        Outcome::No
    })
}

fn flow_records(last: Option<usize>, dropped: bool, query: &LiveQuery) -> Result<()> {
    let mut records: Vec<Record> = ask(query, "/v1/flow-records", &[])?;
    if dropped {
        records.retain(|record| record.verdict != flows::Outcome::Forwarded);
    }
    let older = records.len().saturating_sub(last.unwrap_or(usize::MAX));
    let newest = &records[older..];
    list(query.output, "FlowRecordList", newest, print::flow_records)
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
    let socket = admin_socket(run_dir);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", socket.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn ask<T: DeserializeOwned>(
    query: &LiveQuery,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<T> {
    let client = Client::new(&admin_socket(&query.run_dir));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    Ok(runtime.block_on(client.get(path, parameters))?)
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
    };
    Ok(write_out(&text)?)
}

fn list<T: Serialize>(
    output: OutputFormat,
    kind: &str,
    items: &[T],
    table: impl FnOnce(&[T]) -> String,
) -> Result<()> {
    object(output, kind, &print::Items { items }, |list| {
        table(list.items)
    })
}
