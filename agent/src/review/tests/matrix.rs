//! Who reaches whom is what explanations say of each pair of pods.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::compile::testing::snapshots;
use crate::explain::{ExplainError, PortName, Question, Subject, Verdict, explain};
use crate::model::{ObjectName, Protocol, Snapshot};
use crate::review::workload::spoken;
use crate::review::{PortRange, Reach, matrix};

fn at(protocol: Protocol, port: u16) -> PortRange {
    PortRange {
        protocol,
        first: port,
        last: port,
    }
}

/// What explanations say of all pods of two workloads; `None` where they have no answer.
fn explained(
    snapshot: &Snapshot,
    [from, to]: [&[ObjectName]; 2],
    port: PortRange,
) -> Option<Reach> {
    let mut verdicts = BTreeSet::new();
    for source in from {
        for destination in to.iter().filter(|it| *it != source) {
            let question = Question {
                source: Subject::Pod(source.clone()),
                destination: Subject::Pod(destination.clone()),
                port: Some(PortName::Number(port.first)),
                protocol: Some(port.protocol),
            };
            match explain(snapshot, &question) {
                Ok(answer) => drop(verdicts.insert(answer.verdict)),
                Err(ExplainError::NoCommonFamily { .. }) => {}
                Err(_) => return None,
            }
        }
    }
    Some(match Verdict::combine(&verdicts) {
        None => Reach::Nothing,
        Some(Verdict::Allowed) => Reach::Allowed,
        Some(Verdict::Denied) => Reach::Denied,
        Some(_) => Reach::Partly,
    })
}

proptest! {
    #[test]
    fn a_matrix_agrees_with_explanations(
        snapshot in snapshots(),
        number in prop_oneof![Just(80_u16), Just(443), Just(8080), 1_u16..=u16::MAX],
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
    ) {
        let port = at(protocol, number);
        let told = matrix(&snapshot, |_| true, Some(port));
        let mut pods: BTreeMap<ObjectName, Vec<ObjectName>> = BTreeMap::new();
        for pod in snapshot.pods.values().filter(|pod| pod.owns_addresses()) {
            pods.entry(spoken(pod)).or_default().push(pod.name.clone());
        }
        let names: Vec<_> = told.workloads.iter().map(|it| ObjectName::new(&it.namespace, &it.workload)).collect();
        for (row, from) in told.reach.iter().zip(&names) {
            for (reach, to) in row.iter().zip(&names) {
                if let Some(expected) = explained(&snapshot, [&pods[from], &pods[to]], port) {
                    prop_assert_eq!(*reach, expected, "{} to {}", from, to);
                }
            }
        }
    }
}
