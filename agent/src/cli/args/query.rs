//! Whom a command asks, about what, and how it prints.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::RUN_DIR;

/// Which namespaces.
#[derive(Args, Clone, Debug, Default)]
pub struct Scope {
    /// Only this namespace
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        conflicts_with = "all_namespaces"
    )]
    pub namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl Scope {
    /// Whether a namespace is asked for.
    #[must_use]
    pub fn holds(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|only| only == namespace)
    }
}

/// How to print, and whom to ask: a live agent, or files.
#[derive(Args, Clone, Debug)]
pub struct Query<F: Format = OutputFormat> {
    /// Print and agent
    #[command(flatten)]
    pub live: LiveQuery<F>,
    /// Answer from the YAML files of a directory instead of asking the agent
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Files",
        conflicts_with_all = ["context", "kubeconfig", "node"]
    )]
    pub manifests: Option<PathBuf>,
    /// With --manifests: the node whose view it is [default: NODE_NAME or the host name if there is such a node, else the first]
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Files",
        requires = "manifests"
    )]
    pub node_name: Option<String>,
}

/// How to print, and which agents to ask.
#[derive(Args, Clone, Debug)]
pub struct LiveQuery<F: Format = OutputFormat> {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: F,
    /// Agents
    #[command(flatten)]
    pub whom: Whom,
}

/// Which agents to ask: this node's, or through their API server those of a cluster.
#[derive(Args, Clone, Debug)]
pub struct Whom {
    /// Run directory of this node's agent
    #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// A cluster
    #[command(flatten)]
    pub cluster: ClusterQuery,
}

/// How to print, and the agent of this node.
#[derive(Args, Clone, Debug)]
pub struct LocalQuery {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Run directory of this node's agent
    #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Whose agents to ask. `kubectl weir` asks those of the current context, `weir` those of a cluster if one of these is given.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Agents of a cluster, through its API server")]
pub struct ClusterQuery {
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Ask the agent of this node only
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Namespace of the agents
    #[arg(long, value_name = "NAMESPACE", default_value = "weir-system")]
    pub agent_namespace: String,
    /// Whether the program was called as kubectl's plugin.
    #[arg(skip)]
    pub is_plugin: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
}

/// How to print a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// With more columns.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
}

impl From<OutputFormat> for ListFormat {
    fn from(output: OutputFormat) -> Self {
        match output {
            OutputFormat::Table => Self::Table,
            OutputFormat::Json => Self::Json,
            OutputFormat::Yaml => Self::Yaml,
        }
    }
}

impl ListFormat {
    /// The same for what has no more columns.
    #[must_use]
    pub const fn plain(self) -> OutputFormat {
        match self {
            Self::Table | Self::Wide => OutputFormat::Table,
            Self::Json => OutputFormat::Json,
            Self::Yaml => OutputFormat::Yaml,
        }
    }
}

/// How to print what can also be drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PictureFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// A page for a browser; it needs nothing beside itself.
    Html,
    /// A picture for documents.
    Svg,
}

/// A choice of ways to print.
pub trait Format: ValueEnum + Default + Send + Sync + 'static {}

impl Format for OutputFormat {}
impl Format for ListFormat {}
impl Format for PictureFormat {}

/// How to print a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DocumentFormat {
    /// With comments.
    #[default]
    Yaml,
    /// For programs.
    Json,
}
