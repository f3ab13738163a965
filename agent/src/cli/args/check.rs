//! `weir check`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;

use super::Whom;
use crate::review::Guard;

/// `weir check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// What is to be applied: a file, a directory of them, or - for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true)]
    pub files: Vec<PathBuf>,
    /// Go into the directories of directories, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// The cluster as it is, from a file or directory instead of the agent; may be repeated
    #[arg(long, value_name = "FILE|DIR")]
    pub manifests: Vec<PathBuf>,
    /// What is to be applied is all that there will be: what only --manifests has goes
    #[arg(long, requires = "manifests")]
    pub replace: bool,
    /// Range of the pods' addresses, for rules that name blocks; once for each family [default: that of the cluster's pods, else
    /// 10.244.0.0/16]
    #[arg(long = "pod-cidr", value_name = "CIDR")]
    pub pod_cidrs: Vec<IpNetwork>,
    /// Pass over what this guard finds; may be repeated
    #[arg(long, value_name = "GUARD", value_enum)]
    pub allow: Vec<Guard>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReviewFormat,
    /// Agents
    #[command(flatten)]
    pub whom: Whom,
}

/// How to print a review.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReviewFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For a comment at a change.
    Markdown,
    /// For code scanning (SARIF 2.1.0): what the guards found, by file and line.
    Sarif,
}

impl ValueEnum for Guard {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.describe()))
    }
}
