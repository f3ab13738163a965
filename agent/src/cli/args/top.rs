//! `weir top`.

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use serde::Serialize;

use super::query::{LiveQuery, Scope};

/// What is shown of the busiest flows, and how.
#[derive(Args, Clone, Debug)]
pub struct Top {
    /// What the rows are about
    #[arg(long, value_enum, default_value_t)]
    pub by: By,
    /// What they are sorted by; drops have only one order
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
    /// Which namespaces, of either end
    #[command(flatten)]
    pub scope: Scope,
    /// Time from one picture to the next, at least 1s: 2s, 1m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub interval: SignedDuration,
    /// Show one picture and end
    #[arg(long)]
    pub once: bool,
    /// Most rows of a table; a terminal is filled
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
    /// Output and agents
    #[command(flatten)]
    pub query: LiveQuery,
}

/// What rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Pairs of workloads.
    #[default]
    Workloads,
    /// Pairs of pods and addresses.
    Pods,
    /// Service ports.
    Services,
    /// What is not let through, with reason and policy.
    Drops,
}

impl By {
    /// All of them, in the order of the tabs.
    pub(in crate::cli) const ALL: [Self; 4] =
        [Self::Workloads, Self::Pods, Self::Services, Self::Drops];
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Bytes of both directions.
    #[default]
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Connections that begin.
    Connections,
    /// Packets that are not let through.
    Drops,
}

impl Sort {
    /// The one after this.
    pub(in crate::cli) const fn next(self) -> Self {
        match self {
            Self::Bytes => Self::Packets,
            Self::Packets => Self::Connections,
            Self::Connections => Self::Drops,
            Self::Drops => Self::Bytes,
        }
    }
}

/// The agents count once a second.
fn interval(text: &str) -> Result<SignedDuration, String> {
    let interval: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    let longest = SignedDuration::from_hours(1);
    if (SignedDuration::from_secs(1)..=longest).contains(&interval) {
        Ok(interval)
    } else {
        Err("it must be from 1s to 1h".to_owned())
    }
}
