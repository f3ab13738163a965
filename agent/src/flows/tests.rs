use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use weir_common::abi::{
    Address, BACKEND_SIDE, EndpointKey, Event, Flow, FlowKey, HAIRPIN, Hook, NAT, OPENER_HIGH,
    ROLE_OPENER, ROLE_RESPONDER, RULE_NONE, Range, Side, Verdict, range_bound,
};
use weir_common::reason::Reason;
use zerocopy::IntoBytes;

use super::*;
use crate::compile::{ClassId, EndpointEntry, PolicyTables, RowEntry, RowId, RuleOrigin, Tables};
use crate::model::{AddressOwners, Pod, Protocol, Service, ServicePort, Snapshot, service_port_id};

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

pub(crate) fn directory() -> Directory {
    directory_of(|_| {})
}

/// The directory of tables that somebody has changed.
fn directory_of(change: impl FnOnce(&mut PolicyTables)) -> Directory {
    let service = Service {
        name: ObjectName::new("shop", "web"),
        cluster_ips: vec![address(96)],
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            ..ServicePort::default()
        }],
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
            ended: None,
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
fn an_address_that_only_the_node_has_is_the_nodes() {
    let mut snapshot = Snapshot {
        node_name: "n1".to_owned(),
        ..Snapshot::default()
    };
    // A Service may have an address that the node has, too: proxies put them on a device.
    snapshot.devices.addresses = [address(5), address(96)].into();
    let service = Service {
        name: ObjectName::new("shop", "web"),
        cluster_ips: vec![address(96)],
        ..Service::default()
    };
    let name = service.name.clone();
    snapshot.services.insert(name.clone(), Arc::new(service));
    let directory = Directory::new(&snapshot, &AddressOwners::default(), &Tables::default());
    for (last, owner) in [
        (5, Some(Owner::Node("n1".to_owned()))),
        (6, None),
        (96, Some(Owner::Service(name))),
    ] {
        assert_eq!(directory.peer(address(last), 1).owner, owner);
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
fn only_the_newest_records_are_kept_and_ends_drive_out_no_drops() {
    let mut recent = Recent::new(3);
    for length in 0..5 {
        recent.push(record(&Event { length, ..event() }));
    }
    for port in 0..5 {
        let mut end = ended();
        end.source.port = port;
        recent.push(end);
    }
    let kept = recent.to_vec();
    let shown = kept
        .iter()
        .map(|record| (record.length, record.source.port));
    let drops = [2, 3, 4].map(|length| (length, 40_000));
    let ends = [2, 3, 4].map(|port| (0, port));
    assert_eq!(shown.collect::<Vec<_>>(), [drops, ends].concat());
}

/// The entry of a connection from pod `client` to Service `web` and pod `server` behind it, closed by both.
pub(crate) fn closed() -> (FlowKey, Flow) {
    let (key, side) = FlowKey::new(&address(1).into(), 40_000, &address(2).into(), 8080, 6);
    assert_eq!(side, Side::Low);
    let rule = |role, rule| weir_common::abi::End {
        role,
        rule,
        ..Default::default()
    };
    let flow = Flow {
        flags: BACKEND_SIDE | NAT,
        nat_address: address(96).into(),
        nat_port: 80,
        service: service_port_id(&ObjectName::new("shop", "web"), "http", Protocol::Tcp),
        // Before the clock has wrapped.
        created: u32::MAX - 499,
        last_seen: 1000,
        tcp_flags: [0x1b, 0x13],
        packets: [5, 4],
        bytes: [500, 4000],
        ends: [rule(ROLE_OPENER, 0), rule(ROLE_RESPONDER, RULE)],
        ..Flow::default()
    };
    (key, flow)
}

/// The record of an entry at tick 1500 of 250 a second.
fn ended_of(key: &FlowKey, flow: &Flow) -> Record {
    let ticks = Ticks {
        now: 1500,
        rate: 250,
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    directory().ended(key, flow, ticks)
}

/// A connection that was closed.
pub(crate) fn ended() -> Record {
    let (key, flow) = closed();
    ended_of(&key, &flow)
}

#[test]
fn an_end_tells_what_the_connection_was() {
    let record = ended();
    let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let names = [
        &record.source,
        &record.destination,
        record.backend.as_ref().unwrap(),
    ];
    let names = names.map(|peer| (peer.owner.clone().unwrap(), peer.port));
    let named = |name: &str| ObjectName::new("shop", name);
    let expected = [
        (Owner::Pod(named("client")), 40_000),
        (Owner::Service(named("web")), 80),
        (Owner::Pod(named("server")), 8080),
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (record.verdict, &*record.reason),
        (Outcome::Ended, "closed")
    );
    assert_eq!(
        (record.direction, record.rule.clone()),
        (Direction::Egress, None)
    );
    assert_eq!(
        (record.length, record.time),
        (0, time("2026-01-02T03:04:05Z"))
    );
    let ended = record.ended.clone().unwrap();
    assert_eq!(ended.began, time("2026-01-02T03:03:57Z"));
    assert_eq!(ended.last_packet, time("2026-01-02T03:04:03Z"));
    let [syn, ack, psh, fin] = [TcpFlag::Syn, TcpFlag::Ack, TcpFlag::Psh, TcpFlag::Fin];
    let sent = |packets, bytes, tcp_flags: &[TcpFlag]| Sent {
        packets,
        bytes,
        tcp_flags: tcp_flags.to_vec(),
    };
    assert_eq!(ended.sent, sent(5, 500, &[syn, ack, psh, fin]));
    assert_eq!(ended.received, sent(4, 4000, &[syn, ack, fin]));
    assert_eq!(ended.egress_rule, None);
    assert_eq!(ended.ingress_rule.unwrap().policy, named("allow"));
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}

#[test]
fn an_end_is_seen_from_who_opened_the_flow() {
    let (key, flow) = closed();
    // The server's connection to the client, by the same entry.
    let back = Flow {
        flags: BACKEND_SIDE | OPENER_HIGH,
        ends: [flow.ends[0], Default::default()],
        tcp_flags: [0x14, 0x02],
        ..flow
    };
    let record = ended_of(&key, &back);
    let ends = [&record.source, &record.destination].map(|peer| (peer.address, peer.port));
    assert_eq!(ends, [(address(2), 8080), (address(1), 40_000)]);
    assert_eq!(
        (record.direction, record.backend),
        (Direction::Ingress, None)
    );
    assert_eq!(record.reason, "reset");
    let ended = record.ended.unwrap();
    assert_eq!((ended.sent.packets, ended.received.packets), (4, 5));
    // A pod that reaches itself by its Service.
    let own = weir_common::logic::HAIRPIN_V4;
    let (key, side) = FlowKey::new(&own, 40_000, &address(2).into(), 8080, 6);
    let opener = if side == Side::High { OPENER_HIGH } else { 0 };
    let hairpin = Flow {
        flags: BACKEND_SIDE | NAT | HAIRPIN | opener,
        tcp_flags: [0; 2],
        ..flow
    };
    let record = ended_of(&key, &hairpin);
    assert_eq!(
        (record.source.address, record.source.port),
        (address(2), 40_000)
    );
    assert_eq!(record.reason, "timed_out");
    // The client's port is another one there than its own.
    let moved = Flow {
        source_port: 1234,
        ..flow
    };
    assert_eq!(ended_of(&closed().0, &moved).source.port, 1234);
}
