//! `weir flows`.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::flows::{End, Filter, Outcome, policy_name};

/// Which flow records.
#[derive(Args, Clone, Debug, Default)]
pub struct Wanted {
    /// Only from there
    #[arg(long, value_name = "END")]
    pub from: Option<End>,
    /// Only to there, by way of a Service or not
    #[arg(long, value_name = "END")]
    pub to: Option<End>,
    /// Only with this verdict; may be given several times
    #[arg(long, value_name = "VERDICT", value_enum, conflicts_with = "dropped")]
    pub verdict: Vec<Outcome>,
    /// Only what was not forwarded
    #[arg(long)]
    pub dropped: bool,
    /// Only what a rule of this policy decided, or what it denied by having none: NAMESPACE/NAME, or NAME of a ClusterNetworkPolicy
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Only of the time since then: 90s, 5m, 2h
    #[arg(long, value_name = "DURATION")]
    pub since: Option<SignedDuration>,
}

impl Wanted {
    /// The same as a filter, asked at `now`.
    pub(in crate::cli) fn filter(self, now: Timestamp) -> Filter {
        let verdicts = if self.dropped {
            vec![Outcome::Dropped, Outcome::Rejected]
        } else {
            self.verdict
        };
        Filter {
            from: self.from,
            to: self.to,
            verdicts,
            policy: self.policy.as_deref().map(policy_name),
            since: self
                .since
                .map(|since| now.saturating_sub(since).unwrap_or(now)),
        }
    }
}
