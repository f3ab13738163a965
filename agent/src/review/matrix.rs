//! Which workloads reach which.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Family;
use super::pairs::spot;
use super::parties::{Ground, Party};
use super::ports::{PortRange, pieces};
use super::workload::spoken;
use super::worlds::Worlds;
use crate::explain::World;
use crate::model::{Direction, ObjectName, Snapshot};

/// Who reaches whom, pod to pod; Services lead to pods, and policies see those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matrix {
    /// The port that was asked about; `None` for all.
    pub port: Option<PortRange>,
    /// Workloads with pods that have addresses of their own, by name.
    pub workloads: Vec<MatrixEnd>,
    /// By the place of who opens connections, and then of who takes them.
    pub reach: Vec<Vec<Reach>>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatrixEnd {
    /// Namespace.
    pub namespace: String,
    /// `deploy/NAME` and alike; for a pod that no workload made its own name.
    pub workload: String,
    /// How many pods there are.
    pub pods: usize,
}

/// What policies let pass from one workload to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Everything.
    Allowed,
    /// Nothing.
    Denied,
    /// Some ports, or some of the pods, or one address family.
    Partly,
    /// There is nothing to tell: no two pods of which one could reach the other.
    Nothing,
}

/// Asks about each pair of workloads of these namespaces, about one port or all. What a pod says to itself is never meant.
#[must_use]
pub fn matrix(
    snapshot: &Snapshot,
    is_asked: impl Fn(&str) -> bool,
    port: Option<PortRange>,
) -> Matrix {
    let of = Worlds {
        before: snapshot.clone(),
        after: snapshot.clone(),
        fresh: BTreeSet::new(),
        complete: true,
        assumed_dns: false,
    };
    let worlds = [World::new(&of.before), World::new(&of.after)];
    let ground = Ground::new(&of, &worlds);
    // How many pods of each class a workload has: what holds for one pod of a class holds for all.
    let mut workloads: BTreeMap<ObjectName, BTreeMap<usize, usize>> = BTreeMap::new();
    for (number, party) in ground.parties.iter().enumerate() {
        let pods = party.class().into_iter().flat_map(|class| &class.pods);
        for pod in pods.filter_map(|name| snapshot.pods.get(name)) {
            if is_asked(&pod.name.namespace) {
                let classes = workloads.entry(spoken(pod)).or_default();
                *classes.entry(number).or_default() += 1;
            }
        }
    }
    let mut known = BTreeMap::new();
    let mut between = |from: usize, to: usize| -> BTreeSet<bool> {
        let verdicts = known.entry((from, to));
        let verdicts = verdicts.or_insert_with(|| ground.verdicts(from, to, port));
        verdicts.clone()
    };
    let reach = workloads.iter().map(|(source, from)| {
        let row = workloads.iter().map(|(destination, to)| {
            let mut verdicts = BTreeSet::new();
            for (one, pods) in from {
                for other in to.keys() {
                    let alone = source == destination && one == other && *pods == 1;
                    if !alone {
                        verdicts.extend(between(*one, *other));
                    }
                }
            }
            Reach::of(&verdicts)
        });
        row.collect()
    });
    let reach = reach.collect();
    let workloads = workloads.into_iter().map(|(name, classes)| MatrixEnd {
        namespace: name.namespace,
        workload: name.name,
        pods: classes.values().sum(),
    });
    Matrix {
        port,
        workloads: workloads.collect(),
        reach,
    }
}

impl Reach {
    fn of(verdicts: &BTreeSet<bool>) -> Self {
        match (verdicts.contains(&true), verdicts.contains(&false)) {
            (true, true) => Self::Partly,
            (true, false) => Self::Allowed,
            (false, true) => Self::Denied,
            (false, false) => Self::Nothing,
        }
    }
}

impl Ground<'_> {
    /// Whether connections between two parties pass, over all families and ports.
    fn verdicts(&self, from: usize, to: usize, port: Option<PortRange>) -> BTreeSet<bool> {
        let (source, destination): (&Party, &Party) = (&self.parties[from], &self.parties[to]);
        let cuts = [
            source
                .class()
                .map(|class| &class.rules[&Direction::Egress].cuts),
            destination
                .class()
                .map(|class| &class.rules[&Direction::Ingress].cuts),
        ];
        let world = &self.worlds[1];
        let mut verdicts = BTreeSet::new();
        for family in [Family::IPv4, Family::IPv6] {
            let ends = (
                spot(world, source, family, 0),
                spot(world, destination, family, usize::from(from == to)),
            );
            let (Some(source), Some(destination)) = ends else {
                continue;
            };
            let pieces = match port {
                Some(port) => vec![port],
                None => pieces(cuts, [destination.pod; 2]),
            };
            for piece in pieces {
                let judged = self.judge(1, &source, &destination, piece.protocol, piece.first);
                verdicts.insert(judged.passes());
            }
        }
        verdicts
    }
}
