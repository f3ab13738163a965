//! Connections that there are, and that a change would not let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::pairs::pod_spot;
use super::super::parties::Ground;
use super::super::workload::{is_stand_in, spoken, twin};
use super::super::worlds::as_is;
use super::super::{Decision, Family};
use super::{Finding, Guard};
use crate::explain::{self, PortName, Question, Spot, Subject, World};
use crate::flows::{Seen, SeenEnd};
use crate::model::{Object, ObjectName, Protocol};

/// Addresses outside the cluster that a finding names.
const NAMED: usize = 3;

pub(super) fn findings(
    ground: &Ground<'_>,
    cluster: &[Object],
    nodes: &[Vec<Seen>],
) -> Vec<Finding> {
    if nodes.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let now = as_is(cluster);
    let now = World::new(&now);
    let mut counts: BTreeMap<Between, usize> = BTreeMap::new();
    for of_node in nodes {
        for (between, connections) in counted(&now, of_node) {
            // The nodes of both ends tell of the same connections.
            let count = counts.entry(between).or_default();
            *count = connections.max(*count);
        }
    }
    let mut cuts: BTreeMap<Cut, Uses> = BTreeMap::new();
    for (between, connections) in counts {
        let Some((cut, question)) = between.cut(ground, &now) else {
            continue;
        };
        let uses = cuts.entry(cut).or_insert_with(|| Uses::asked_by(question));
        uses.connections += connections;
        let outside = [&between.from, &between.to]
            .into_iter()
            .filter_map(Whom::outside);
        uses.outside.extend(outside);
    }
    cuts.into_iter()
        .map(|(cut, uses)| uses.finding(ground, cut))
        .collect()
}

/// What a node tells of, by who they are.
fn counted(now: &World<'_>, of_node: &[Seen]) -> BTreeMap<Between, usize> {
    let mut counts: BTreeMap<Between, usize> = BTreeMap::new();
    for seen in of_node {
        if let (Some(from), Some(to)) = (whom(now, &seen.from), whom(now, &seen.to)) {
            let between = Between {
                from,
                to,
                family: Family::of(seen.to.address),
                protocol: seen.protocol,
                port: seen.port,
            };
            *counts.entry(between).or_default() += seen.connections;
        }
    }
    counts
}

/// What is cut between two ends for one reason.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    from: String,
    to: String,
    protocol: Protocol,
    port: u16,
    because: Vec<Decision>,
}

/// Connections that a cut is of.
struct Uses {
    connections: usize,
    outside: BTreeSet<IpAddr>,
    /// What would mend it.
    question: Question,
}

impl Uses {
    fn asked_by(question: Question) -> Self {
        Self {
            connections: 0,
            outside: BTreeSet::new(),
            question,
        }
    }

    fn finding(self, ground: &Ground<'_>, cut: Cut) -> Finding {
        let connections = match self.connections {
            1 => "1 connection was seen lately".to_owned(),
            count => format!("{count} connections were seen lately"),
        };
        let outside: Vec<_> = self
            .outside
            .iter()
            .take(NAMED)
            .map(ToString::to_string)
            .collect();
        let outside = match self.outside.len().saturating_sub(NAMED) {
            _ if outside.is_empty() => String::new(),
            0 => format!(" (outside: {})", outside.join(", ")),
            more => format!(" (outside: {} and {more} more)", outside.join(", ")),
        };
        let answer = explain::explain(ground.worlds[1].snapshot, &self.question);
        Finding {
            guard: Guard::InUse,
            message: format!(
                "{} does not reach {} at {} {} any more{outside}: {connections}",
                cut.from, cut.to, cut.protocol, cut.port
            ),
            hint: "allow it, or pass over it with --allow in-use if it is meant to end; what goes on is cut when the change is applied, too (kept where agents run with --established keep)".to_owned(),
            policies: cut.because.iter().flat_map(Decision::all_policies).cloned().collect(),
            locations: Vec::new(),
            fixes: answer.map(|answer| answer.fixes).unwrap_or_default(),
        }
    }
}

/// An end of a connection in the cluster as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    /// A pod, and the workload that made it.
    Pod(ObjectName, Option<ObjectName>),
    /// A node or a host-network pod on it.
    Node(IpAddr, String),
    /// Somebody else.
    Outside(IpAddr),
}

impl Whom {
    /// The end in one of the worlds, where a workload's stand-in may have taken its pods' place. Pods of one workload talk to each other: then
    /// the destination is the `other` one.
    fn spot<'a>(&self, world: &World<'a>, family: Family, other: bool) -> Option<Spot<'a>> {
        match self {
            Self::Pod(pod, workload) => pod_spot(world, pod, family).or_else(|| {
                let stand_in = workload.as_ref()?;
                let name = if other {
                    twin(stand_in)
                } else {
                    stand_in.clone()
                };
                pod_spot(world, &name, family)
            }),
            Self::Node(address, _) | Self::Outside(address) => {
                Some(world.spot(*address)).filter(|spot| spot.pod.is_none())
            }
        }
    }

    fn outside(&self) -> Option<IpAddr> {
        match self {
            Self::Outside(address) => Some(*address),
            Self::Pod(..) | Self::Node(..) => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Pod(pod, workload) => workload.as_ref().unwrap_or(pod).to_string(),
            Self::Node(_, name) => format!("node {name}"),
            Self::Outside(_) => "who is outside".to_owned(),
        }
    }
}

/// Who has an end. A pod that is gone has none: another one may have its address.
fn whom(now: &World<'_>, end: &SeenEnd) -> Option<Whom> {
    let spot = now.spot(end.address);
    match (spot.pod, &end.pod) {
        (Some(pod), Some(name)) if pod.name != *name => None,
        (Some(pod), _) => {
            let workload = Some(spoken(pod)).filter(is_stand_in);
            Some(Whom::Pod(pod.name.clone(), workload))
        }
        (None, Some(_)) => None,
        (None, None) => Some(match spot.place.node {
            Some(node) => Whom::Node(end.address, node),
            None => Whom::Outside(end.address),
        }),
    }
}

/// Connections between two ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Between {
    from: Whom,
    to: Whom,
    family: Family,
    protocol: Protocol,
    port: u16,
}

impl Between {
    /// Why what passes would not any more, and what is to be asked about it; `None` if it would.
    fn cut(&self, ground: &Ground<'_>, now: &World<'_>) -> Option<(Cut, Question)> {
        let Self { from, to, .. } = self;
        // A stand-in is not on the node that the pod is on, which always reaches it.
        if let (Whom::Node(_, node), Whom::Pod(pod, _)) = (from, to)
            && now
                .snapshot
                .pods
                .get(pod)
                .is_some_and(|pod| pod.node == *node)
        {
            return None;
        }
        let spots = |world: usize| {
            let world = &ground.worlds[world];
            let from = from.spot(world, self.family, false)?;
            Some((from, to.spot(world, self.family, true)?))
        };
        let (before, after) = (spots(0)?, spots(1)?);
        let was = ground.judge(0, &before.0, &before.1, self.protocol, self.port);
        let is = ground.judge(1, &after.0, &after.1, self.protocol, self.port);
        if is.passes() || !was.passes() {
            return None;
        }
        let subject = |spot: &Spot<'_>| match spot.pod {
            Some(pod) => Subject::Pod(pod.name.clone()),
            None => Subject::Address(spot.place.address),
        };
        let question = Question {
            source: subject(&after.0),
            destination: subject(&after.1),
            port: Some(PortName::Number(self.port)),
            protocol: Some(self.protocol),
        };
        let cut = Cut {
            from: from.words(),
            to: to.words(),
            protocol: self.protocol,
            port: self.port,
            because: is.denials(),
        };
        Some((cut, question))
    }
}
