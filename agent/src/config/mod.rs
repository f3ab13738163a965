//! What the agent is told: one struct from flags, environment and a file, checked before anything is touched.
//!
//! An option is a field of [`RunConfig`] and nothing else: its key in a file is the field's name in camelCase, and its
//! environment variable is its flag's name after `WEIR_`.

mod cgroup;
mod definition;
mod document;
mod effective;
mod error;
mod file;
mod kube_proxy;
mod reference;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::TypedValueParser;

use crate::model::{AttachMode, NodePorts, SocketLb, XdpMode};

pub use cgroup::cgroup_mount;
pub use definition::{Definition, definitions};
pub use document::defaults;
pub use effective::{Effective, Setting, Source};
pub use error::ConfigError;
pub use file::{Ignored, Place};
pub use reference::reference;

/// `apiVersion` of a configuration file.
pub const API_VERSION: &str = "weir/v1alpha1";
/// `kind` of a configuration file.
pub const KIND: &str = "WeirConfiguration";

/// Where a run directory is unless told otherwise.
pub const RUN_DIR: &str = "/run/weir";
/// The socket for Hubble's clients there, unless told otherwise.
pub const HUBBLE_SOCKET: &str = "hubble.sock";
/// Where pins are unless told otherwise.
pub const BPFFS: &str = "/sys/fs/bpf/weir";

/// Options of `weir run`. A flag counts more than its environment variable, that more than the file, that more than the default.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// kubeconfig file; without it and without --manifests the pod's service account is used
    #[arg(
        long,
        env = "WEIR_KUBECONFIG",
        value_name = "FILE",
        conflicts_with = "manifests"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// API servers to use instead of the `kubernetes` Service, which does not answer before Weir runs
    #[arg(
        long = "api-server",
        env = "WEIR_API_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "manifests"
    )]
    pub api_servers: Vec<String>,

    /// Directory of YAML files to watch instead of an API server
    #[arg(long, env = "WEIR_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// Name of this node [default: NODE_NAME, else the host name]
    #[arg(long, env = "WEIR_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Root of the cgroup2 hierarchy whose sockets are served [default: where cgroup2 is mounted]
    #[arg(long, env = "WEIR_CGROUP_ROOT", value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Whose connections to Services are translated in the socket: host (the node's own processes and host-network pods, which
    /// reach no Service otherwise), all (pods', too) or none
    #[arg(
        long,
        env = "WEIR_SOCKET_LB",
        value_name = "WHOSE",
        default_value = "host"
    )]
    pub socket_lb: SocketLb,

    /// Addresses of the node that have node ports: primary (the first InternalIP of each family in the Node object), all (those
    /// of every device), or CIDRs of such addresses; loopback addresses have none unless a CIDR names them [default: primary]
    #[arg(
        long = "nodeport-addresses",
        env = "WEIR_NODEPORT_ADDRESSES",
        value_name = "WHICH",
        value_delimiter = ','
    )]
    pub node_port_addresses: Vec<NodePorts>,

    /// What becomes of TCP connections to an endpoint that its Service has no more, not even as a terminating one: keep leaves them to
    /// both ends, reset answers the client's next packet with a reset. Connections that the socket translates (see --socket-lb)
    /// are always kept
    #[arg(
        long,
        env = "WEIR_REMOVED_BACKENDS",
        value_name = "WHAT",
        value_enum,
        default_value_t
    )]
    pub removed_backends: RemovedBackends,

    /// What becomes of connections that a changed policy no longer allows: judge ends them with their next packet, keep leaves them to
    /// both ends
    #[arg(
        long,
        env = "WEIR_ESTABLISHED",
        value_name = "WHAT",
        value_enum,
        default_value_t
    )]
    pub established: Established,

    /// What becomes of packets that a pod sends with an address that is not its own: drop, or judge, which treats them as the pod's (for
    /// CNIs whose pods route for others, such as virtual machines)
    #[arg(
        long,
        env = "WEIR_FOREIGN_SOURCES",
        value_name = "WHAT",
        value_enum,
        default_value_t
    )]
    pub foreign_sources: ForeignSources,

    /// Directory for pins, in a BPF file system
    #[arg(long, env = "WEIR_BPFFS", value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,

    /// Directory of the admin socket
    #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,

    /// Directory for what must outlive the agent: the objects that it last knew, for a start without an API server after the node's,
    /// and copies of good manifests, for files that are broken when it starts; empty for none
    #[arg(
        long,
        env = "WEIR_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/weir",
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from)
    )]
    pub state_dir: PathBuf,

    /// Where /healthz, /livez and /readyz are served
    #[arg(
        long,
        env = "WEIR_HEALTHZ_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:10256"
    )]
    pub healthz_address: SocketAddr,

    /// Where /metrics is served
    #[arg(
        long,
        env = "WEIR_METRICS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:10249"
    )]
    pub metrics_address: SocketAddr,

    /// How programs are attached to devices: auto, tcx or clsact
    #[arg(long, env = "WEIR_ATTACH", value_name = "MODE", default_value = "auto")]
    pub attach: AttachMode,

    /// Whether connections from outside to backends on other nodes are forwarded in the drivers of uplinks, where neither the
    /// node's firewall nor packet captures see them: auto (where the driver can) or off
    #[arg(long, env = "WEIR_XDP", value_name = "MODE", default_value = "off")]
    pub xdp: XdpMode,

    /// Most connections tracked at once
    #[arg(
        long,
        env = "WEIR_FLOW_CAPACITY",
        value_name = "N",
        default_value_t = 262_144,
        value_parser = clap::value_parser!(u32).range(1024..=16_777_216)
    )]
    pub flow_capacity: u32,

    /// Report one of this many allowed new connections as an event; 0 reports none. Drops are always reported
    #[arg(long, env = "WEIR_EVENT_SAMPLE", value_name = "N", default_value_t = 0)]
    pub event_sample: u32,

    /// Seconds in which the table of tracked connections is walked over once, to report the ends of those that are over; 0 reports none, and
    /// walks every 30 to remove what is over
    #[arg(
        long,
        env = "WEIR_FLOW_ENDS",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(..=60)
    )]
    pub flow_ends: u32,

    /// File to which flow records are written, a line of JSON for each; without it they are written to none
    #[arg(long, env = "WEIR_FLOW_LOG", value_name = "FILE")]
    pub flow_log: Option<PathBuf>,

    /// Which flow records are written to --flow-log, as options of `weir flows`: --from, --to, --verdict, --dropped, --policy [default: all]
    #[arg(
        long,
        env = "WEIR_FLOW_LOG_FILTER",
        value_name = "OPTIONS",
        allow_hyphen_values = true
    )]
    pub flow_log_filter: Option<String>,

    /// Megabytes (10^6 bytes) after which the file of flow records becomes FILE.1, that becomes FILE.2 and so on
    #[arg(
        long,
        env = "WEIR_FLOW_LOG_SIZE",
        value_name = "MEGABYTES",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub flow_log_size: u32,

    /// Most files of flow records; the oldest one goes
    #[arg(
        long,
        env = "WEIR_FLOW_LOG_FILES",
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub flow_log_files: u32,

    /// Socket at which Hubble's clients are answered, by its Observer API; in --run-dir unless a directory is named, empty for none
    #[arg(
        long,
        env = "WEIR_HUBBLE_SOCKET",
        value_name = "FILE",
        default_value = HUBBLE_SOCKET,
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from)
    )]
    pub hubble_socket: PathBuf,

    /// Most series of weir_workload_flows, the metric by source and destination workload; all others are one series of each verdict
    #[arg(
        long,
        env = "WEIR_WORKLOAD_SERIES",
        value_name = "N",
        default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(..=100_000)
    )]
    pub workload_series: u32,

    /// Which log lines are written: error, warn, info, debug, trace, or tracing directives such as info,weir::source=debug
    #[arg(
        long,
        env = "WEIR_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: String,

    /// How log lines are written
    #[arg(
        long,
        env = "WEIR_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// What becomes of TCP connections to endpoints that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RemovedBackends {
    /// They go on for as long as both ends like, as with kube-proxy.
    #[default]
    Keep,
    /// Clients get a reset.
    Reset,
}

/// What becomes of connections that a changed policy no longer allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Established {
    /// They end with their next packet.
    #[default]
    Judge,
    /// They go on for as long as both ends like.
    Keep,
}

/// What becomes of packets that a pod sends with an address that is not its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ForeignSources {
    /// They are dropped.
    #[default]
    Drop,
    /// The pod answers for them.
    Judge,
}

/// How log lines are written (to standard error).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl RunConfig {
    /// Checks everything that can be checked without a kernel or an API server.
    ///
    /// # Errors
    /// Names the option and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(directory) = &self.manifests
            && std::fs::read_dir(directory).is_err()
        {
            return Err(ConfigError::Manifests(directory.clone()));
        }
        if let Some(file) = &self.kubeconfig
            && std::fs::File::open(file).is_err()
        {
            return Err(ConfigError::Kubeconfig(file.clone()));
        }
        let is_url = |url: &&String| !url.starts_with("https://") && !url.starts_with("http://");
        if let Some(url) = self.api_servers.iter().find(is_url) {
            return Err(ConfigError::ApiServer(url.clone()));
        }
        if let (Some(file), Some(directory)) = (&self.flow_log, self.state_dir())
            && file.parent() == Some(directory)
        {
            return Err(ConfigError::FlowLogPlace(file.clone()));
        }
        if self.cgroup_root.is_some() {
            self.cgroup_root()?;
        }
        let directives: Result<tracing_subscriber::EnvFilter, _> = self.log_level.parse();
        directives.map(drop).map_err(|error| ConfigError::LogLevel {
            level: self.log_level.clone(),
            message: error.to_string(),
        })
    }

    /// Name of this node: the flag, the downward API's NODE_NAME, the host name in the kubelet's form (lower case).
    ///
    /// # Errors
    /// When none of them is there.
    pub fn node_name(&self) -> Result<String, ConfigError> {
        node_name(self.node_name.as_deref())
    }

    /// The cgroup root: as given, else the first cgroup2 mount.
    ///
    /// # Errors
    /// When there is none, with how to mount it.
    pub fn cgroup_root(&self) -> Result<PathBuf, ConfigError> {
        const MOUNTS: &str = "/proc/self/mounts";
        let mounts = std::fs::read_to_string(MOUNTS).map_err(|source| ConfigError::Mounts {
            path: MOUNTS,
            source,
        })?;
        match &self.cgroup_root {
            None => cgroup_mount(&mounts).ok_or(ConfigError::NoCgroup),
            Some(root) if cgroup::is_cgroup2(root) => Ok(root.clone()),
            Some(root) => Err(ConfigError::NotCgroup(root.clone())),
        }
    }

    /// The state directory, if there is to be one.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        Some(&*self.state_dir).filter(|path| !path.as_os_str().is_empty())
    }

    /// The socket for Hubble's clients, if there is to be one.
    #[must_use]
    pub fn hubble_socket(&self) -> Option<PathBuf> {
        let named = Some(&self.hubble_socket).filter(|path| !path.as_os_str().is_empty());
        named.map(|path| self.run_dir.join(path))
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.run_dir)
    }
}

/// The admin socket of an agent with this run directory.
#[must_use]
pub fn admin_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// See [`RunConfig::node_name`].
pub(crate) fn node_name(given: Option<&str>) -> Result<String, ConfigError> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    if let Ok(name) = std::env::var("NODE_NAME")
        && !name.is_empty()
    {
        return Ok(name);
    }
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().trim().to_lowercase();
    if name.is_empty() {
        Err(ConfigError::NodeName("the host has none".to_owned()))
    } else {
        Ok(name)
    }
}
