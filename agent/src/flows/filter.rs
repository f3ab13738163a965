//! Which flow records somebody wants to see.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum as _;
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::{Outcome, Owner, Peer, Record};
use crate::model::{ObjectName, workload_kind};

/// Conditions that all must hold; the default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who sent the packet, or opened the flow that has ended.
    pub from: Option<End>,
    /// Whom it was for: what it was addressed to, or the endpoint behind that.
    pub to: Option<End>,
    /// What became of it, one of these; none is any.
    pub verdicts: Vec<Outcome>,
    /// The policy of a rule that decided, or one of those of which none allowed it.
    pub policy: Option<ObjectName>,
    /// The earliest time.
    pub since: Option<Timestamp>,
}

/// An end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `NAMESPACE/`: its pods and Services.
    Namespace(String),
    /// `NAMESPACE/NAME`: a pod, or those of a workload, whose names go on with a hyphen.
    Pods(ObjectName),
    /// `NAMESPACE/svc/NAME`.
    Service(ObjectName),
    /// `NAMESPACE/deploy/NAME` and the like: the pods of that workload.
    Workload(ObjectName),
    /// `node/NAME`.
    Node(String),
    /// An address or block.
    Block(IpNetwork),
}

/// What is written is no end of a flow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read {0:?}: write NAMESPACE/, NAMESPACE/POD, NAMESPACE/WORKLOAD, NAMESPACE/deploy/NAME (or sts, ds, job, cronjob), NAMESPACE/svc/NAME, node/NAME, an address or a block"
)]
pub struct EndError(String);

/// What is written is no filter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word without meaning.
    #[error(
        "cannot read {0:?} of a filter: write --from END, --to END, --verdict VERDICT, --dropped and --policy POLICY, as for `weir flows`"
    )]
    Word(String),
    /// No verdict.
    #[error("{0:?} is no verdict: write forwarded, dropped, rejected or ended")]
    Verdict(String),
    /// No end.
    #[error(transparent)]
    End(#[from] EndError),
}

/// The policy of that name: `NAMESPACE/NAME`, or `NAME` of a ClusterNetworkPolicy.
#[must_use]
pub fn policy_name(text: &str) -> ObjectName {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::cluster(text),
    }
}

/// Reads a filter in the words of `weir flows`.
impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if word == "--dropped" {
                filter
                    .verdicts
                    .extend([Outcome::Dropped, Outcome::Rejected]);
                continue;
            }
            let unknown = || FilterError::Word(word.to_owned());
            let (option, value) = word
                .split_once('=')
                .or_else(|| Some((word, words.next()?)))
                .ok_or_else(unknown)?;
            match option {
                "--from" => filter.from = Some(value.parse()?),
                "--to" => filter.to = Some(value.parse()?),
                "--verdict" => {
                    let verdict = Outcome::from_str(value, false);
                    let verdict = verdict.map_err(|_| FilterError::Verdict(value.to_owned()))?;
                    filter.verdicts.push(verdict);
                }
                "--policy" => filter.policy = Some(policy_name(value)),
                _ => return Err(unknown()),
            }
        }
        Ok(filter)
    }
}

impl FromStr for End {
    type Err = EndError;

    fn from_str(text: &str) -> Result<Self, EndError> {
        if let Ok(block) = text.parse() {
            return Ok(Self::Block(block));
        }
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            ["node", name] if !name.is_empty() => Ok(Self::Node(name.to_owned())),
            [namespace, ""] if !namespace.is_empty() => Ok(Self::Namespace(namespace.to_owned())),
            [namespace, name] if !namespace.is_empty() => {
                Ok(Self::Pods(ObjectName::new(namespace, name)))
            }
            [namespace, "svc", name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Service(ObjectName::new(namespace, name)))
            }
            [namespace, kind, name] if !namespace.is_empty() && !name.is_empty() => {
                let kind = workload_kind(kind).ok_or_else(|| EndError(text.to_owned()))?;
                let name = format!("{kind}/{name}");
                Ok(Self::Workload(ObjectName::new(namespace, name)))
            }
            _ => Err(EndError(text.to_owned())),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(namespace) => write!(f, "{namespace}/"),
            Self::Pods(name) | Self::Workload(name) => name.fmt(f),
            Self::Service(name) => write!(f, "{}/svc/{}", name.namespace, name.name),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Block(block) => block.fmt(f),
        }
    }
}

impl End {
    fn is(&self, peer: &Peer) -> bool {
        match (self, &peer.owner) {
            (Self::Block(block), _) => block.contains(peer.address),
            (Self::Namespace(namespace), Some(Owner::Pod(name) | Owner::Service(name))) => {
                &name.namespace == namespace
            }
            (Self::Pods(wanted), Some(Owner::Pod(pod))) => {
                let rest = pod.name.strip_prefix(&wanted.name);
                pod.namespace == wanted.namespace
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            }
            (Self::Service(wanted), Some(Owner::Service(service))) => service == wanted,
            (Self::Workload(wanted), _) => peer.workload.as_ref() == Some(wanted),
            (Self::Node(wanted), Some(Owner::Node(node))) => node == wanted,
            _ => false,
        }
    }
}

impl Filter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let is_to =
            |to: &End| to.is(&record.destination) || record.backend.iter().any(|it| to.is(it));
        let is_of = |policy: &ObjectName| {
            let mut rules = record.rules();
            rules.any(|(_, rule)| rule.policy == *policy) || record.denied_by.contains(policy)
        };
        self.from
            .as_ref()
            .is_none_or(|from| from.is(&record.source))
            && self.to.as_ref().is_none_or(is_to)
            && (self.verdicts.is_empty() || self.verdicts.contains(&record.verdict))
            && self.policy.as_ref().is_none_or(is_of)
            && self.since.is_none_or(|since| record.time >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::tests::{ended, event, record};

    fn end(text: &str) -> End {
        text.parse().expect(text)
    }

    #[test]
    fn ends_are_read_and_written() {
        for text in [
            "shop/",
            "shop/front",
            "shop/svc/web",
            "shop/deploy/web",
            "node/n1",
            "10.0.0.0/8",
            "fd00::1/128",
        ] {
            assert_eq!(end(text).to_string(), text);
        }
        assert_eq!(end("10.0.0.1"), end("10.0.0.1/32"));
        for text in [
            "",
            "/",
            "shop",
            "/front",
            "a/b/c",
            "shop/svc/",
            "10.0.0.0/33/1",
        ] {
            let error = text.parse::<End>().expect_err(text);
            assert!(error.to_string().contains("NAMESPACE/POD"), "{error}");
        }
    }

    #[test]
    fn a_filter_is_written_as_for_the_command() {
        let read = |text: &str| text.parse::<Filter>();
        let whole = Filter {
            from: Some(end("shop/deploy/front")),
            to: Some(end("10.0.0.0/8")),
            verdicts: vec![Outcome::Ended, Outcome::Dropped, Outcome::Rejected],
            policy: Some(ObjectName::cluster("guard")),
            since: None,
        };
        let text =
            "--from shop/deploy/front --to=10.0.0.0/8\n --verdict ended --dropped --policy guard";
        assert_eq!(read(text), Ok(whole));
        assert_eq!(read(" "), Ok(Filter::default()));
        for (text, word) in [
            ("--from", "--from"),
            ("--since 5m", "--since"),
            ("from shop/", "from"),
            ("--dropped=yes", "--dropped=yes"),
        ] {
            assert_eq!(
                read(text),
                Err(FilterError::Word(word.to_owned())),
                "{text}"
            );
        }
        let verdict = FilterError::Verdict("lost".to_owned());
        assert_eq!(read("--verdict lost"), Err(verdict));
        assert!(matches!(read("--to shop"), Err(FilterError::End(_))));
    }

    /// The record is of a drop, from pod shop/client (10.0.0.1) to Service shop/web, pod shop/server, by policy shop/deny.
    #[test]
    fn each_condition_must_hold() {
        let record = record(&event());
        let from = |text| Filter {
            from: Some(end(text)),
            ..Filter::default()
        };
        let to = |text| Filter {
            to: Some(end(text)),
            ..Filter::default()
        };
        let policy = |name| Filter {
            policy: Some(ObjectName::new("shop", name)),
            ..Filter::default()
        };
        let verdict = |verdict| Filter {
            verdicts: vec![verdict],
            ..Filter::default()
        };
        let since = |text: &str| Filter {
            since: Some(text.parse().expect("a time")),
            ..Filter::default()
        };
        for (filter, expected) in [
            (Filter::default(), true),
            (from("shop/"), true),
            (from("shop/client"), true),
            (from("shop/cli"), false),
            (from("other/client"), false),
            (from("10.0.0.0/24"), true),
            (from("10.0.1.0/24"), false),
            (from("shop/server"), false),
            (to("shop/svc/web"), true),
            (to("shop/svc/other"), false),
            (to("shop/server"), true),
            (to("shop/client"), false),
            (to("node/n1"), false),
            (policy("deny"), true),
            (policy("other"), false),
            (verdict(Outcome::Dropped), true),
            (verdict(Outcome::Forwarded), false),
            (since("2026-01-02T03:04:00Z"), true),
            (since("2026-01-02T03:04:01Z"), false),
            (
                Filter {
                    from: Some(end("shop/client")),
                    ..to("shop/client")
                },
                false,
            ),
        ] {
            assert_eq!(filter.matches(&record), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_policy_at_either_end_of_a_flow_is_asked_for() {
        let record = ended();
        for (name, expected) in [("allow", true), ("deny", false)] {
            let filter = Filter {
                policy: Some(ObjectName::new("shop", name)),
                verdicts: vec![Outcome::Ended],
                ..Filter::default()
            };
            assert_eq!(filter.matches(&record), expected, "{name}");
        }
    }

    #[test]
    fn a_workload_is_all_its_pods() {
        let mut record = record(&event());
        record.source.owner = Some(Owner::Pod(ObjectName::new("shop", "front-5d4f-x2x")));
        record.source.workload = Some(ObjectName::new("shop", "deploy/front"));
        for (text, expected) in [
            ("shop/front", true),
            ("shop/front-5d4f", true),
            ("shop/fron", false),
            ("shop/deploy/front", true),
            ("shop/deployment/front", true),
            ("shop/sts/front", false),
            ("other/deploy/front", false),
        ] {
            assert_eq!(end(text).is(&record.source), expected, "{text}");
        }
    }
}
