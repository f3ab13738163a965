//! What is explained is what the tables say, on random clusters.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::compile::testing::{PEERS, PORTS, snapshots};
use crate::compile::{EndpointEntry, PolicyTables, Verdict, judge, policies};
use crate::explain::{PortName, Question, Side, SideOutcome, Subject, explain};
use crate::model::{Action, AddressOwners, Direction, Protocol, Snapshot, Tier};

/// Whether explanation and tables agree on one side; `true` for what never asks the tables.
fn agree(tables: &PolicyTables, judged: Verdict, side: &Side) -> bool {
    match (side.outcome, judged) {
        (SideOutcome::OwnNode | SideOutcome::Itself, _)
        | (SideOutcome::NotIsolated, Verdict::Open)
        | (SideOutcome::Denied, Verdict::Denied(None)) => true,
        (SideOutcome::Allowed, Verdict::Allowed(rule))
        | (SideOutcome::DeniedByRule, Verdict::Denied(Some(rule))) => {
            let origin = &tables.rules[&rule];
            // The last rule of a tier is the one that decides.
            let last = side.tiers.last().filter(|last| last.action != Action::Pass);
            let found: Vec<_> = match last {
                Some(last) => vec![(last.tier, &last.rule)],
                None => {
                    let allowing = side.allowed_by.iter();
                    allowing.map(|rule| (Tier::NetworkPolicy, rule)).collect()
                }
            };
            found.iter().any(|(tier, rule)| {
                (*tier, &rule.policy, rule.index) == (origin.tier, &origin.policy, origin.index)
            })
        }
        _ => false,
    }
}

fn check(snapshot: &Snapshot, tables: &PolicyTables, pod: &EndpointEntry, peer: IpAddr) {
    for own in pod
        .pod
        .ips
        .iter()
        .filter(|ip| ip.is_ipv4() == peer.is_ipv4())
    {
        for (number, port) in PORTS {
            let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            let Some(protocol) = protocols.into_iter().find(|p| p.number() == number) else {
                continue;
            };
            for (direction, source, destination) in [
                (Direction::Ingress, peer, *own),
                (Direction::Egress, *own, peer),
            ] {
                let question = Question {
                    source: Subject::Address(source),
                    destination: Subject::Address(destination),
                    port: Some(PortName::Number(port)),
                    protocol: Some(protocol),
                };
                let answer = explain(snapshot, &question).expect("addresses always have an answer");
                let side = match direction {
                    Direction::Ingress => &answer.flows[0].ingress,
                    Direction::Egress => &answer.flows[0].egress,
                };
                let judged = judge(tables, pod, direction, peer, number, port);
                assert!(
                    agree(tables, judged, side),
                    "{source} -> {destination} {protocol} {port}: {judged:?}, {side:#?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn explanations_and_tables_agree(snapshot in snapshots()) {
        let tables = policies(&snapshot);
        let owners = AddressOwners::of(&snapshot);
        for pod in tables.endpoints.values() {
            // A device's entry, or an address that a newer pod has, is not the pod to be judged.
            if !pod.pod.ips.iter().all(|ip| owners.get(ip).is_some_and(|o| o.name == pod.pod.name)) {
                continue;
            }
            for peer in PEERS {
                check(&snapshot, &tables, pod, peer.parse().expect("an address"));
            }
        }
    }
}
