//! The network configuration that the runtime gives on standard input.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Code, Failure};
use super::result::Previous;
use crate::config::RUN_DIR;
use crate::model::Attachment;

/// Versions of the specification that the plugin speaks. Results of 0.3 have the form of 0.4.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];
/// The newest of them.
pub(super) const NEWEST: &str = "1.1.0";
/// How long a pod's start waits for the agent unless told otherwise.
pub const WAIT_SECONDS: u64 = 10;
/// How long it waits at most: longer than any runtime, and far from the end of the clock.
const LONGEST_WAIT: u64 = 24 * 3600;

/// What becomes of a pod's start when no agent answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WhenAgentIsDown {
    /// It fails, and the kubelet tries again later.
    #[default]
    Fail,
    /// The pod starts without its policies.
    Proceed,
}

/// The plugin's entry in a network configuration, with what the runtime adds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Run directory of the agent, as seen from the node.
    #[serde(default = "run_dir")]
    pub run_dir: PathBuf,
    /// Seconds that ADD waits for the agent.
    #[serde(default = "wait_seconds")]
    pub wait_seconds: u64,
    /// What ADD does when no agent answers in that time.
    #[serde(default)]
    pub when_agent_is_down: WhenAgentIsDown,
    prev_result: Option<Box<RawValue>>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
}

/// An attachment as GC names it.
#[derive(Debug, Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    /// A configuration without is of the first version.
    #[serde(default = "oldest")]
    cni_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions<'a> {
    cni_version: &'a str,
    supported_versions: [&'a str; SUPPORTED.len()],
}

fn oldest() -> String {
    "0.1.0".to_owned()
}

fn run_dir() -> PathBuf {
    RUN_DIR.into()
}

const fn wait_seconds() -> u64 {
    WAIT_SECONDS
}

/// The answer to VERSION.
pub(super) fn versions(asked: &str) -> String {
    let versions = Versions {
        cni_version: asked,
        supported_versions: SUPPORTED,
    };
    serde_json::to_string(&versions).unwrap_or_default()
}

impl Config {
    /// The version that a configuration is of.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn version(input: &[u8]) -> Result<String, Failure> {
        let versioned: Versioned = object(input)?;
        Ok(versioned.cni_version)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is no JSON of this shape, or of a version that the plugin does not speak.
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        let version = Self::version(input)?;
        if !SUPPORTED.contains(&version.as_str()) {
            return Err(Failure::new(
                Code::Version,
                "incompatible CNI version",
                format!(
                    "the configuration is of {version}, the plugin speaks {}",
                    SUPPORTED.join(", ")
                ),
            ));
        }
        object(input)
    }

    /// Longest time to wait for the agent.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds.min(LONGEST_WAIT))
    }

    /// The result of the plugins before this one: its text, and what it says.
    ///
    /// # Errors
    /// When there is none: the plugin is the first of its chain then, and there is no interface yet.
    pub fn previous(&self) -> Result<(&str, Previous), Failure> {
        let result = self.prev_result.as_deref().ok_or_else(|| {
            Failure::new(
                Code::Config,
                "the configuration has no prevResult",
                "weir-cni wires nothing itself: put it behind another plugin, as `weir cni install` does",
            )
        })?;
        let previous = object(result.get().as_bytes())?;
        Ok((result.get(), previous))
    }

    /// The attachments that the runtime still has.
    ///
    /// # Errors
    /// When it does not say: everything would be forgotten.
    pub fn valid_attachments(&self) -> Result<Vec<Attachment>, Failure> {
        let valid = self.valid.as_ref().ok_or_else(|| {
            Failure::new(
                Code::Config,
                "the configuration has no cni.dev/valid-attachments",
                "without it GC would forget every pod",
            )
        })?;
        let attachment = |valid: &Valid| Attachment {
            container: valid.container.clone(),
            interface: valid.interface.clone(),
        };
        Ok(valid.iter().map(attachment).collect())
    }
}

/// Reads a JSON object. serde would take the fields in their order, as an array, too.
fn object<T: DeserializeOwned>(input: &[u8]) -> Result<T, Failure> {
    let undecodable = |error: &dyn Display| {
        Failure::new(Code::Decode, "cannot read the network configuration", error)
    };
    if !input.trim_ascii_start().starts_with(b"{") {
        return Err(undecodable(&"it is no JSON object"));
    }
    serde_json::from_slice(input).map_err(|error| undecodable(&error))
}
