//! The command line: arguments, printers, exit codes. The same binary is the agent, its client and the kubectl plugin.

mod admin_proxy;
mod agents;
mod args;
mod ask;
mod bundle;
mod check;
mod cni;
mod command;
mod coverage;
mod doctor;
mod explain;
mod flows;
mod history;
mod lists;
mod offline;
pub mod print;
mod show;
mod takeover;
#[cfg(test)]
mod tests;
mod top;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::cni::{PLUGIN, plugin};

pub use args::{Cli, Command, OutputFormat, Query};

/// What a command comes to: 0 yes or done, 1 no, 2 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; for a question: yes.
    Yes,
    /// The answer is no.
    No,
}

/// Exit code of every error, usage errors included.
const ERROR: u8 = 2;

/// Runs a command line; the first argument is the name that the program was called by.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    // Its arguments are in the environment; and clap would take longer than its work does.
    if program(&arguments) == Some(OsStr::new(PLUGIN)) {
        return if plugin() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            // Help and version go to stdout, which may be a closed pipe.
            let _ = error.print();
            return ExitCode::from(if failed { ERROR } else { 0 });
        }
    };
    match command::execute(cli.command) {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", in_words(&error));
            ExitCode::from(ERROR)
        }
    }
}

/// Parses a command line. Called as `kubectl-weir`, help speaks of `kubectl weir`.
///
/// # Errors
/// With the text to print; help and version are errors to clap, too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let mut command = Cli::command();
    let is_plugin = program(&arguments) == Some(OsStr::new("kubectl-weir"));
    if is_plugin {
        command = command.bin_name("kubectl weir");
    }
    let matches = command
        .try_get_matches_from_mut(&arguments)
        .map_err(|error| with_variables(error, &command, &arguments))?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let Some(cluster) = cli.command.cluster_mut() {
        cluster.is_plugin = is_plugin;
    }
    Ok(cli)
}

/// The name that the program was called by.
fn program(arguments: &[OsString]) -> Option<&OsStr> {
    arguments.first().map(Path::new).and_then(Path::file_name)
}

/// clap names a flag also where its environment variable gave the value: tell the variable.
fn with_variables(
    mut error: clap::Error,
    command: &clap::Command,
    arguments: &[OsString],
) -> clap::Error {
    let message = error.to_string();
    let tip = |option: &clap::Arg| {
        let flag = format!("--{}", option.get_long()?);
        let variable = option.get_env()?;
        let value = std::env::var_os(variable)?;
        let by_flag = arguments.iter().any(|one| gives(one, &flag));
        let (variable, value) = (variable.display(), value.display());
        (message.contains(&format!("'{flag} ")) && !by_flag)
            .then(|| format!("{flag} is given by the environment: {variable}={value}"))
    };
    let tips: BTreeSet<String> = options(command).filter_map(tip).collect();
    if !tips.is_empty() {
        let tips = tips.into_iter().map(Into::into).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The options of a command and of those below it.
fn options(command: &clap::Command) -> Box<dyn Iterator<Item = &clap::Arg> + '_> {
    let below = command.get_subcommands().flat_map(options);
    Box::new(command.get_opts().chain(below))
}

/// Whether an argument is this flag, with or without its value.
fn gives(argument: &OsStr, flag: &str) -> bool {
    let rest = argument.to_str().and_then(|text| text.strip_prefix(flag));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// An error with its causes, without those that its own text already tells.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

/// Writes an answer.
fn write_out(text: &str) -> io::Result<()> {
    write_on(text).map(drop)
}

/// Writes a part of an answer; tells whether anybody reads on. Whoever closed the pipe has read enough: that is no error.
fn write_on(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// Whether to colour: on a terminal, unless <https://no-color.org> says no.
fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal()
}
