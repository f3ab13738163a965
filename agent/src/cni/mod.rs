//! The chained CNI plugin: it holds a pod's start until the agent has the pod's network under its programs and policies.
//!
//! The plugin wires nothing. It passes the result of the plugins before it on unchanged, and tells the agent of the sandbox over a
//! socket in the agent's run directory. The same binary is the plugin, by the name `weir-cni`, and the agent.

mod client;
mod config;
mod environment;
mod error;
mod install;
mod result;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

pub use client::{AgentError, ask};
pub use config::{Config, SUPPORTED, WAIT_SECONDS, WhenAgentIsDown};
pub use environment::{Environment, PodArguments};
pub use error::{Code, Failure};
pub use install::{CONFIGURATIONS, InstallError, Installation, PLUGIN, PLUGINS, Settings};
pub use result::Previous;
pub use server::serve;
pub use store::Store;
pub use watch::watch;
pub use wire::{Announcement, Answer, Request, RequestError, socket};

/// Longest time that DEL and GC wait for an agent's answer: it needs no more than to forget.
const FORGET: Duration = Duration::from_secs(5);

/// Carries out what the runtime asks for in the environment and on standard input, and answers on standard output, as the CNI
/// specification wants it; whether that succeeded.
#[must_use]
pub fn plugin() -> bool {
    let environment = Environment::read(|name| std::env::var(name).ok());
    let mut input = Vec::new();
    let (text, done) = match io::stdin().read_to_end(&mut input) {
        Ok(_) => answer(&environment, &input),
        Err(error) => {
            let message = "cannot read the network configuration from standard input";
            let failure = Failure::new(Code::Io, message, error);
            (failure.to_json(config::NEWEST), false)
        }
    };
    // A runtime that does not listen has given up already.
    let _ = io::stdout().write_all(text.as_bytes());
    done
}

/// What goes to standard output for an environment and standard input, and whether that is a success.
#[must_use]
pub fn answer(environment: &Environment, input: &[u8]) -> (String, bool) {
    match run(environment, input) {
        Ok(text) => (text, true),
        Err(failure) => (failure.to_json(&version_of(input)), false),
    }
}

/// The version that an answer to this input speaks.
fn version_of(input: &[u8]) -> String {
    Config::version(input).unwrap_or_else(|_| config::NEWEST.to_owned())
}

/// What a command comes to: the text for standard output.
///
/// # Errors
/// In the form and with the codes of the CNI specification.
pub fn run(environment: &Environment, input: &[u8]) -> Result<String, Failure> {
    match environment.command()? {
        "VERSION" => Ok(config::versions(&Config::version(input)?)),
        "ADD" => add(environment, &Config::parse(input)?),
        "DEL" => del(environment, &Config::parse(input)?),
        "CHECK" => check(environment, &Config::parse(input)?),
        "GC" => collect(&Config::parse(input)?),
        // An error would make the node unready while an agent is replaced; ADD waits for it, and fails if none comes.
        "STATUS" => Config::parse(input).map(|_| String::new()),
        other => Err(Failure::new(
            Code::Environment,
            "unknown CNI_COMMAND",
            format!("{other:?} is none of ADD, DEL, CHECK, STATUS, GC, VERSION"),
        )),
    }
}

fn add(environment: &Environment, config: &Config) -> Result<String, Failure> {
    let attachment = environment.attachment()?;
    environment.netns()?;
    let (text, previous) = config.previous()?;
    let result = text.to_owned();
    // Containers that are no pods are nobody's that a policy could select.
    let Some(pod) = environment.pod() else {
        return Ok(result);
    };
    let addresses = previous.addresses(&attachment.interface)?;
    if addresses.is_empty() {
        return Ok(result);
    }
    let deadline = Instant::now() + config.wait();
    let announcement = Announcement {
        attachment,
        network: config.name.clone(),
        pod: pod.name,
        uid: pod.uid,
        addresses,
        interfaces: previous.host_interfaces(),
        wait_milliseconds: config.wait().as_millis().try_into().unwrap_or(u64::MAX),
    };
    let unannounced = announcement.clone().sandbox(None);
    let request = Request::Add(announcement);
    match client::persist(&socket(&config.run_dir), &request, deadline) {
        Ok(Answer::Done) => Ok(result),
        Ok(Answer::Waiting { why }) => Err(Failure::new(
            Code::TryAgain,
            "the pod is not isolated yet",
            format!("{why}: `weir status` on the node tells more"),
        )),
        Ok(Answer::Unknown) => Err(Failure::new(
            Code::TryAgain,
            "the pod is not isolated yet",
            "another one was given its addresses meanwhile",
        )),
        Err(error) if config.when_agent_is_down == WhenAgentIsDown::Proceed => {
            let pod = &unannounced.pod;
            eprintln!(
                "weir-cni: {pod} starts without its policies (whenAgentIsDown is proceed): {error}"
            );
            if let Err(error) = Store::new(&config.run_dir).save(&unannounced) {
                eprintln!("weir-cni: the agent will have to find {pod} by itself: {error}");
            }
            Ok(result)
        }
        Err(error) => Err(Failure::new(
            Code::TryAgain,
            "the pod cannot be isolated",
            error,
        )),
    }
}

/// The specification wants DEL to succeed also where nothing is left to delete; so it does where nobody is left to be told.
fn del(environment: &Environment, config: &Config) -> Result<String, Failure> {
    let attachment = environment.attachment()?;
    let request = Request::Del(attachment.clone());
    let told = ask(&socket(&config.run_dir), &request, Instant::now() + FORGET);
    if let Err(error) = told {
        eprintln!("weir-cni: {error}");
        // For the next agent.
        let forgotten = Store::new(&config.run_dir).remove(&attachment);
        forgotten.map_err(|error| Failure::new(Code::Io, "cannot forget the pod", error))?;
    }
    Ok(String::new())
}

fn check(environment: &Environment, config: &Config) -> Result<String, Failure> {
    let attachment = environment.attachment()?;
    environment.netns()?;
    let (_, previous) = config.previous()?;
    if environment.pod().is_none() || previous.addresses(&attachment.interface)?.is_empty() {
        return Ok(String::new());
    }
    let deadline = Instant::now() + config.wait();
    let request = Request::Check(attachment);
    match client::persist(&socket(&config.run_dir), &request, deadline) {
        Ok(Answer::Done) => Ok(String::new()),
        Ok(Answer::Waiting { why }) => Err(Failure::new(
            Code::TryAgain,
            "the pod is not isolated yet",
            why,
        )),
        Ok(Answer::Unknown) => Err(Failure::new(
            Code::UnknownContainer,
            "the agent was never told of this container",
            "it was started without weir-cni: delete the pod, so that it starts anew",
        )),
        Err(error) => Err(Failure::new(
            Code::TryAgain,
            "nobody can tell whether the pod is isolated",
            error,
        )),
    }
}

fn collect(config: &Config) -> Result<String, Failure> {
    let request = Request::Gc {
        network: config.name.clone(),
        valid: config.valid_attachments()?,
    };
    match ask(&socket(&config.run_dir), &request, Instant::now() + FORGET) {
        Ok(_) => Ok(String::new()),
        Err(error) => Err(Failure::new(
            Code::TryAgain,
            "nobody forgets what is gone",
            error,
        )),
    }
}
