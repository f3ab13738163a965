//! Arguments of `weir cni`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cni::{CONFIGURATIONS, PLUGINS, WAIT_SECONDS, WhenAgentIsDown};
use crate::config::RUN_DIR;

/// `weir cni`.
#[derive(Debug, Subcommand)]
pub enum CniCommand {
    /// Put the plugin behind those of the node's network configuration; what else the file holds stays as it is
    Install {
        /// The node's directories
        #[command(flatten)]
        directories: CniDirectories,
        /// Run directory of the agent, as seen from the node
        #[arg(long, env = "WEIR_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
        run_dir: PathBuf,
        /// Longest time that a pod's start waits for the agent
        #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS)]
        wait_seconds: u64,
        /// What becomes of a pod's start when no agent answers: it fails, and the kubelet tries again; or it proceeds without its
        /// policies
        #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
        when_agent_is_down: WhenAgentIsDown,
        /// Go on, and put it back when the main plugin writes its file anew; wait where there is none yet
        #[arg(long)]
        watch: bool,
    },
    /// Take the plugin out of the node's network configuration
    Uninstall {
        /// The node's directories
        #[command(flatten)]
        directories: CniDirectories,
    },
}

/// Where a node has what belongs to CNI.
#[derive(Args, Clone, Debug)]
pub struct CniDirectories {
    /// Directory of network configurations
    #[arg(long, value_name = "DIR", default_value = CONFIGURATIONS)]
    pub conf_dir: PathBuf,
    /// Directory of plugins
    #[arg(long, value_name = "DIR", default_value = PLUGINS)]
    pub bin_dir: PathBuf,
}
