//! Arguments.

mod check;
mod cni;
mod flows;
mod list;
mod names;
mod objects;
mod query;
mod takeover;
mod top;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub(super) use self::check::{Check, ReviewFormat};
pub(super) use self::cni::{CniCommand, CniDirectories};
pub(super) use self::flows::Wanted;
pub(super) use self::list::{Headers, Listing};
use self::names::port;
pub(super) use self::objects::{ListCommand, PolicyCommand, ServiceCommand};
pub(super) use self::query::{
    ClusterQuery, DocumentFormat, Format, ListFormat, LiveQuery, LocalQuery, PictureFormat, Scope,
    Whom,
};
pub use self::query::{OutputFormat, Query};
pub(super) use self::takeover::{Predecessor, Takeover};
pub(super) use self::top::{By, Sort, Top};
use crate::config::{BPFFS, Effective, RUN_DIR};
use crate::datapath::USUAL_MOUNT;
use crate::review::PortRange;

/// Services and NetworkPolicy of a Kubernetes node in eBPF.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    about,
    after_help = "Exit codes: 0 yes or done, 1 no (explain: not allowed), 2 error."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    Run(Box<Effective>),
    /// Options of `weir run`: print them, check them
    #[command(subcommand)]
    Config(Box<ConfigCommand>),
    /// Prepare the node for an agent with fewer rights: mount a BPF file system if there is none (needs CAP_SYS_ADMIN)
    Init {
        /// Where it is mounted
        #[arg(long, value_name = "DIR", default_value = USUAL_MOUNT)]
        mount: PathBuf,
    },
    /// Show what the agent is doing: watches, devices, maps, skipped objects
    Status {
        /// Go on, a line for each node, and print what is no more as it was, until interrupted; with -o json a line for each
        #[arg(short, long)]
        watch: bool,
        /// Of the line for each node
        #[command(flatten)]
        headers: Headers,
        /// Output and agent
        #[command(flatten)]
        query: Query,
    },
    /// Services and where they lead
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Pods of this node
    #[command(subcommand)]
    Endpoint(ListCommand),
    /// Network policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Why a connection is allowed or denied, and what would allow it
    #[command(
        after_help = "SRC and DST: NAMESPACE/POD, NAMESPACE/svc/NAME (or NAME.NAMESPACE.svc), NAMESPACE/deploy/NAME (sts, ds, job, cronjob: all its pods),\n\
        node/NAME, or an address (IPv6 with a port in brackets: [fd00::1]:80):\n\
        of a pod, a node, a Service (cluster IP, load balancer, external, a node's with a node port) or anybody.\n\
        Exit codes: 0 allowed, 1 not or only partly allowed, 2 error.",
        after_long_help = None
    )]
    Explain {
        /// Who opens the connection
        #[arg(value_name = "SRC")]
        source: String,
        /// Who is to take it; TCP and the only port if not given
        #[arg(value_name = "DST[:PORT][/PROTO]")]
        destination: String,
        /// Print only the policies that would allow it, ready for `kubectl apply -f -`
        #[arg(long, conflicts_with = "output")]
        fix: bool,
        /// Output and agent
        #[command(flatten)]
        query: Query,
    },
    /// Which workloads reach which, as policies have it
    Matrix {
        /// Which namespaces
        #[command(flatten)]
        scope: Scope,
        /// Only this port; TCP if not given [default: all]
        #[arg(long, value_name = "PORT[/PROTO]", value_parser = port)]
        port: Option<PortRange>,
        /// Output and agent
        #[command(flatten)]
        query: Query<PictureFormat>,
    },
    /// What manifests would change: which connections open and close, and what is probably not meant
    #[command(
        after_help = "Deployments, StatefulSets, DaemonSets and Jobs stand for the pods of their templates. Without --manifests the agent of this node is asked\n\
        for the cluster as it is; --manifests of an empty directory compares with no policies at all.\n\
        Exit codes: 0 no guard found anything, 1 one did, 2 error.",
        after_long_help = None
    )]
    Check(Box<Check>),
    /// What the kernel's maps hold
    #[command(subcommand)]
    Map(MapCommand),
    /// Tracked connections
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// The newest drops and new connections that were reported (`weir run --event-sample`), oldest first
    #[command(
        after_help = "END is NAMESPACE/, NAMESPACE/POD, NAMESPACE/WORKLOAD (its pods), NAMESPACE/svc/NAME, node/NAME, an address or a block."
    )]
    Flows {
        /// Go on with those that come, until interrupted; with -o json a line for each
        #[arg(short, long, conflicts_with = "last")]
        follow: bool,
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// Which
        #[command(flatten)]
        wanted: Wanted,
        /// Output and agent
        #[command(flatten)]
        query: LiveQuery,
    },
    /// Who talks most at this moment, and what is not let through: workloads, pods, Services and drops, with rates
    #[command(
        after_help = "On a terminal: Tab changes the board, s the order, / filters, p pauses, arrows scroll, q ends. Else a table for each interval, with -o json a line.\n\
        Of a whole cluster each connection counts once, where it is opened. Bytes are those of packets with Ethernet headers.",
        after_long_help = None
    )]
    Top(Box<Top>),
    /// What the agents did lately, oldest first: which changes came when, how long they took, what was written, what was skipped
    History {
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// Headers
        #[command(flatten)]
        headers: Headers,
        /// Output and agents
        #[command(flatten)]
        query: LiveQuery,
    },
    /// Whether the kernel holds what the objects say: its maps against what was written, that against tables made anew, and those against
    /// the policies themselves
    #[command(
        after_help = "Exit codes: 0 no difference, 1 some, 2 error. The agent repairs by itself what somebody else has changed in the maps."
    )]
    Audit {
        /// Output and agent
        #[command(flatten)]
        query: LiveQuery,
    },
    /// Write one archive for a report about a bug: what the agents know, hold and have seen. It says inside what is in it
    Bundle {
        /// Where to; it must not be there yet [default: weir-bundle-TIME.tar.gz]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Directory of the agent's pins
        #[arg(long, env = "WEIR_BPFFS", value_name = "DIR", default_value = BPFFS)]
        bpffs: PathBuf,
        /// Agents
        #[command(flatten)]
        whom: Whom,
    },
    /// What on this node stands in Weir's way, and the command that removes it
    #[command(after_help = "Exit codes: 0 nothing that surely does harm, 1 something, 2 error.")]
    Doctor {
        /// Directory of the agent's pins
        #[arg(long, env = "WEIR_BPFFS", value_name = "DIR", default_value = BPFFS)]
        bpffs: PathBuf,
        /// Output and agent
        #[command(flatten)]
        query: LocalQuery,
    },
    /// Take this node's Services over from kube-proxy: once Weir serves them and kube-proxy has ended, remove its rules (and only
    /// these) from nf_tables. Connections that it has translated go on
    Takeover(Takeover),
    /// The chained CNI plugin, which has each pod isolated before its first instruction. Container runtimes call it, by the name
    /// weir-cni
    Cni {
        /// What to do with the node's configuration
        #[command(subcommand)]
        command: Option<CniCommand>,
    },
    /// Join standard input and output to the admin socket of this node's agent: so `kubectl weir` asks it, in the agent's own container
    AdminProxy {
        /// Directory of the admin socket
        #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
        run_dir: PathBuf,
    },
    /// Remove everything that agents left on this node: programs, links, pins
    Cleanup {
        /// Directory of the agent's pins
        #[arg(long, env = "WEIR_BPFFS", value_name = "DIR", default_value = BPFFS)]
        bpffs: PathBuf,
        /// Directory of the admin socket
        #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
        run_dir: PathBuf,
    },
    /// Print what completes command lines in a shell: source it, or put it where the shell looks
    Completion {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where to; it must be there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Show the version
    Version {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: OutputFormat,
    },
}

impl Command {
    /// Which agents it asks, if it may ask a cluster's.
    pub(in crate::cli) fn cluster_mut(&mut self) -> Option<&mut ClusterQuery> {
        let whom = match self {
            Self::Service(ServiceCommand::List { query, .. })
            | Self::Endpoint(ListCommand::List { query, .. })
            | Self::Policy(PolicyCommand::List { query, .. }) => &mut query.live.whom,
            Self::Status { query, .. }
            | Self::Service(ServiceCommand::Show { query, .. })
            | Self::Policy(PolicyCommand::Show { query, .. } | PolicyCommand::Lint { query, .. })
            | Self::Explain { query, .. } => &mut query.live.whom,
            Self::Matrix { query, .. } => &mut query.live.whom,
            Self::Conntrack(ConntrackCommand::List { query, .. }) => &mut query.whom,
            Self::Policy(PolicyCommand::Coverage { query, .. })
            | Self::Map(MapCommand::Dump { query, .. })
            | Self::Flows { query, .. }
            | Self::History { query, .. }
            | Self::Audit { query } => &mut query.whom,
            Self::Top(top) => &mut top.query.whom,
            Self::Check(check) => &mut check.whom,
            Self::Bundle { whom, .. } => whom,
            _ => return None,
        };
        Some(&mut whom.cluster)
    }
}

/// `weir config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a configuration file with the defaults, or with what counts
    Print {
        /// Print what `weir run` would go by, given the same flags, environment and file, and who said so
        #[arg(long)]
        effective: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value_t, requires = "effective")]
        output: DocumentFormat,
        /// Flags of `weir run`
        #[command(flatten)]
        given: Effective,
    },
    /// Say what `weir run` would refuse, given the same flags, environment and file
    Check {
        /// Flags of `weir run`
        #[command(flatten)]
        given: Effective,
    },
    /// Print the reference page of all options
    Reference,
}

/// `weir map`.
#[derive(Debug, Subcommand)]
pub enum MapCommand {
    /// Print all elements
    Dump {
        /// Without numbers that mean nothing outside this kernel, so that dumps can be compared
        #[arg(long)]
        canonical: bool,
        /// Output and agent
        #[command(flatten)]
        query: LiveQuery,
    },
}

/// `weir conntrack`.
#[derive(Debug, Subcommand)]
pub enum ConntrackCommand {
    /// List them
    List {
        /// Go on, and print what begins, has more packets and is gone, until interrupted; with -o json a line for each
        #[arg(short, long)]
        watch: bool,
        /// Headers
        #[command(flatten)]
        headers: Headers,
        /// Output and agent
        #[command(flatten)]
        query: LiveQuery<ListFormat>,
    },
}
