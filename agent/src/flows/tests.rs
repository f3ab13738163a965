use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use weir_common::abi::{Address, EndpointKey, Event, Hook, RULE_NONE, Range, Verdict, range_bound};
use weir_common::reason::Reason;
use zerocopy::IntoBytes;

use super::*;
use crate::compile::{ClassId, EndpointEntry, PolicyTables, RowEntry, RowId, RuleOrigin, Tables};
use crate::model::{AddressOwners, Pod, Service, Snapshot};

pub(crate) const RULE: u32 = 77;
const ENDPOINT: u64 = 5;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

pub(crate) fn event() -> Event {
    Event {
        time: 1,
        endpoint: ENDPOINT,
        source: Address::from(address(1)),
        destination: Address::from(address(96)),
        judged: Address::from(address(2)),
        source_port: 40_000,
        destination_port: 80,
        judged_port: 8080,
        protocol: 6,
        hook: Hook::ToPod as u8,
        verdict: Verdict::Drop as u8,
        reason: Reason::PolicyDenied as u8,
        rule: RULE_NONE,
        length: 74,
        ..Event::default()
    }
}

fn pod(name: &str, last: u8) -> Arc<Pod> {
    Arc::new(Pod {
        name: ObjectName::new("shop", name),
        uid: name.to_owned(),
        mirrors: None,
        scraped: None,
        labels: BTreeMap::new(),
        ips: vec![address(last)],
        host_network: false,
        terminal: false,
        node: "n1".to_owned(),
        ports: Vec::new(),
        created: 0,
    })
}

fn directory() -> Directory {
    directory_of(|_| {})
}

/// The directory of tables that somebody has changed.
fn directory_of(change: impl FnOnce(&mut PolicyTables)) -> Directory {
    let service = Service {
        name: ObjectName::new("shop", "web"),
        cluster_ips: vec![address(96)],
        ports: Vec::new(),
        ..Service::default()
    };
    let server = pod("server", 2);
    let mut snapshot = Snapshot {
        node_name: "n1".to_owned(),
        ..Snapshot::default()
    };
    for pod in [pod("client", 1), Arc::clone(&server)] {
        snapshot.pods.insert(pod.name.clone(), pod);
    }
    snapshot
        .services
        .insert(service.name.clone(), Arc::new(service));
    let mut policies = PolicyTables::default();
    let row = RowEntry {
        direction: Direction::Ingress,
        policies: [ObjectName::new("shop", "deny")].into(),
        verdicts: OrdMap::new(),
        denials: OrdMap::new(),
    };
    policies.rows.insert(RowId(1), row);
    policies.endpoints.insert(
        EndpointKey::address(address(2).into()),
        EndpointEntry {
            pod: server,
            id: ENDPOINT,
            ifindex: 7,
            ingress: RowId(1),
            egress: RowId::OPEN,
        },
    );
    policies.rules.insert(
        RULE,
        RuleOrigin {
            tier: Tier::NetworkPolicy,
            policy: ObjectName::new("shop", "allow"),
            direction: Direction::Ingress,
            index: 3,
        },
    );
    change(&mut policies);
    let tables = Tables {
        policies: Arc::new(policies),
        ..Tables::default()
    };
    Directory::new(&snapshot, &AddressOwners::of(&snapshot), &tables)
}

pub(crate) fn record(event: &Event) -> Record {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let decoded = decode(event.as_bytes()).unwrap();
    directory().record(&decoded, now, Duration::from_secs(5))
}

#[test]
fn a_denial_names_the_policies_that_isolate_the_pod() {
    let owned = |last, port, owner| Peer {
        address: address(last),
        port,
        owner: Some(owner),
        workload: None,
    };
    let named = |name: &str| ObjectName::new("shop", name);
    assert_eq!(
        record(&event()),
        Record {
            node: "n1".to_owned(),
            time: "2026-01-02T03:04:00Z".parse().unwrap(),
            verdict: Outcome::Dropped,
            reason: "policy_denied".to_owned(),
            direction: Direction::Ingress,
            protocol: "TCP".to_owned(),
            source: owned(1, 40_000, Owner::Pod(named("client"))),
            destination: owned(96, 80, Owner::Service(named("web"))),
            backend: Some(owned(2, 8080, Owner::Pod(named("server")))),
            rule: None,
            denied_by: vec![named("deny")],
            length: 74,
        }
    );
    // Its egress is not isolated.
    let egress = Event {
        hook: Hook::FromPod as u8,
        ..event()
    };
    assert!(record(&egress).denied_by.is_empty());
}

#[test]
fn a_denial_by_a_rule_names_the_rule() {
    let directory = directory_of(|policies| {
        policies.addresses.insert(address(1).into(), ClassId(9));
        let row = policies.rows.get_mut(&RowId(1)).unwrap();
        let denial = Range {
            first: range_bound(6, 8080),
            last: range_bound(6, 8080),
            rule: RULE,
            reserved: 0,
        };
        row.denials.insert(ClassId(9), [denial].into());
        policies.rules.get_mut(&RULE).unwrap().tier = Tier::Admin;
    });
    let record = |event: &Event| {
        let decoded = decode(event.as_bytes()).unwrap();
        directory.record(
            &decoded,
            "2026-01-02T03:04:05Z".parse().unwrap(),
            Duration::ZERO,
        )
    };
    let denied = record(&event());
    let rule = denied.rule.expect("a rule");
    assert_eq!((rule.tier, rule.index), (Tier::Admin, 3));
    assert!(denied.denied_by.is_empty(), "{:?}", denied.denied_by);
    // Another port is denied because nothing allows it.
    let other = record(&Event {
        judged_port: 8081,
        ..event()
    });
    assert_eq!((other.rule, other.denied_by.len()), (None, 1));
}

#[test]
fn an_allowed_flow_names_its_rule() {
    let allowed = Event {
        rule: RULE,
        verdict: Verdict::Pass as u8,
        reason: Reason::PolicyAllowed as u8,
        destination: Address::from(address(2)),
        destination_port: 8080,
        ..event()
    };
    let record = record(&allowed);
    assert_eq!(record.verdict, Outcome::Forwarded);
    assert_eq!(
        record.rule,
        Some(DecidedBy {
            tier: Tier::NetworkPolicy,
            policy: ObjectName::new("shop", "allow"),
            index: 3
        })
    );
    assert_eq!(record.backend, None);
    assert!(record.denied_by.is_empty());
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}

#[test]
fn what_came_back_is_a_rejection_unless_it_is_a_hairpin() {
    for (reason, outcome) in [
        (Reason::NoEndpoint, Outcome::Rejected),
        (Reason::Hairpin, Outcome::Forwarded),
    ] {
        let returned = Event {
            verdict: Verdict::Return as u8,
            reason: reason as u8,
            ..event()
        };
        assert_eq!(record(&returned).verdict, outcome);
    }
}

#[test]
fn reasons_and_verdicts_agree() {
    for reason in Reason::ALL {
        let dropped = Outcome::of_reason(reason) != Outcome::Forwarded;
        assert_eq!(dropped, reason.is_drop(), "{}", reason.name());
    }
}

#[test]
fn bytes_that_mean_nothing_are_refused() {
    let event = event();
    let bytes = event.as_bytes();
    assert_eq!(
        decode(&bytes[1..]),
        Err(DecodeError::Length(bytes.len() - 1))
    );
    let unknown = |field, value| Err(DecodeError::Unknown { field, value });
    assert_eq!(
        decode(Event { hook: 9, ..event }.as_bytes()),
        unknown("hook", 9)
    );
    assert_eq!(
        decode(
            Event {
                verdict: 3,
                ..event
            }
            .as_bytes()
        ),
        unknown("verdict", 3)
    );
    assert_eq!(
        decode(Event { reason: 0, ..event }.as_bytes()),
        unknown("reason", 0)
    );
}

#[test]
fn only_the_newest_records_are_kept() {
    let mut recent = Recent::new(3);
    for length in 0..5 {
        recent.push(record(&Event { length, ..event() }));
    }
    let lengths: Vec<_> = recent.to_vec().iter().map(|record| record.length).collect();
    assert_eq!(lengths, [2, 3, 4]);
}
