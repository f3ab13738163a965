//! What can be wrong with a configuration.

use std::path::PathBuf;

use super::effective::Source;
use super::file::Place;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// cgroup2 is nowhere mounted.
    #[error(
        "no cgroup2 hierarchy is mounted: run `mount -t cgroup2 none /sys/fs/cgroup`, or name one with --cgroup-root"
    )]
    NoCgroup,
    /// The directory given is in no cgroup2 hierarchy.
    #[error(
        "--cgroup-root {} is in no cgroup2 hierarchy: name a directory below a mount of type cgroup2", .0.display()
    )]
    NotCgroup(PathBuf),
    /// The mounts cannot be read.
    #[error("cannot read {path} to find cgroup2 ({source}): is /proc mounted?")]
    Mounts {
        /// The file.
        path: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The node has no name.
    #[error("cannot tell this node's name ({0}): give it with --node-name")]
    NodeName(String),
    /// The manifest directory is not there.
    #[error("--manifests {} is no directory that can be read: create it first", .0.display())]
    Manifests(PathBuf),
    /// The kubeconfig is not there.
    #[error("--kubeconfig {} is no file that can be read", .0.display())]
    Kubeconfig(PathBuf),
    /// An API server without scheme.
    #[error("--api-server {0:?} is no URL: write https://HOST:PORT")]
    ApiServer(String),
    /// The file of flow records is where the agent has files of its own.
    #[error("--flow-log {} is in the directory of --state-dir, which has the agent's own files: name one in another directory, or in one below", .0.display())]
    FlowLogPlace(PathBuf),
    /// The log filter cannot be read.
    #[error("--log-level {level:?} cannot be read: {message}")]
    LogLevel {
        /// As given.
        level: String,
        /// What is wrong.
        message: String,
    },
    /// One of the above, by a value that no flag gave.
    #[error("{error} (the value is from {origin})")]
    From {
        /// What is wrong.
        error: Box<Self>,
        /// Who gave the value.
        origin: Source,
    },
    /// Options that exclude each other, not all given by flags.
    #[error("{0} cannot be used together: leave all but one out")]
    Together(String),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {} ({source}): is --config right?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The configuration file is no YAML document.
    #[error("{} is not one document of YAML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// A document of something else.
    #[error(
        "{} is of apiVersion {api_version}, kind {kind}; a configuration is of apiVersion {}, kind {}, or of {}, {}",
        path.display(), super::API_VERSION, super::KIND, super::kube_proxy::API_VERSION, super::kube_proxy::KIND
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it has.
        api_version: String,
        /// What it has.
        kind: String,
    },
    /// A key that does not exist.
    #[error("{}: unknown key {:?}{hint}", place.location(), place.field)]
    UnknownKey {
        /// Where it is.
        place: Place,
        /// What may have been meant.
        hint: String,
    },
    /// A value of the wrong form.
    #[error("{}: {} cannot be {found}: {why}", place.location(), place.field)]
    Value {
        /// Where it is.
        place: Place,
        /// The value.
        found: String,
        /// What is expected.
        why: String,
    },
}

impl ConfigError {
    /// The option that is wrong: the name of its field.
    pub(super) fn option(&self) -> Option<&'static str> {
        match self {
            Self::NotCgroup(_) => Some("cgroup_root"),
            Self::Manifests(_) => Some("manifests"),
            Self::Kubeconfig(_) => Some("kubeconfig"),
            Self::ApiServer(_) => Some("api_servers"),
            Self::LogLevel { .. } => Some("log_level"),
            _ => None,
        }
    }
}
