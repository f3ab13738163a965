use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use weir_common::abi::{Address, BACKEND_SIDE, FRONTEND_SIDE, Flow, FlowKey, OPENER_HIGH, Side};

use super::counting::Counted;
use super::*;
use crate::flows::tests::{closed, directory, event, record};
use crate::flows::{Outcome, Owner};

const RATE: u32 = 250;
const START: u32 = 5000;

fn over(tick: u32) -> Over {
    Over {
        tick,
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        seconds: 2.0,
        refused: 7,
        events_lost: 3,
    }
}

/// The end of a walk at a tick that finds these flows.
fn walked(span: &mut Span, tick: u32, flows: &[(FlowKey, Flow)]) -> Option<Activity> {
    for (key, flow) in flows {
        span.flows().visit(key, flow, tick);
    }
    span.end(&directory(), over(tick))
}

fn sent(packets: u64, bytes: u64) -> Counts {
    Counts {
        packets_sent: packets,
        bytes_sent: bytes,
        ..Counts::default()
    }
}

/// A connection from pod `client` by Service `web` to pod `server`, that began at a tick.
fn connection(created: u32) -> (FlowKey, Flow) {
    let (key, flow) = closed();
    (key, Flow { created, ..flow })
}

fn named(source: &str, destination: &str, port: u16) -> Talk {
    Talk {
        source: source.to_owned(),
        destination: destination.to_owned(),
        protocol: "TCP".to_owned(),
        port,
        ..Talk::default()
    }
}

#[test]
fn what_was_before_is_not_counted_and_what_comes_is() {
    let mut span = Span::new(RATE, START);
    let (key, mut flow) = connection(START - 100);
    assert_eq!(walked(&mut span, START, &[(key, flow)]), None);
    flow.packets[0] += 10;
    flow.bytes[1] += 1000;
    let activity = walked(&mut span, START + 500, &[(key, flow)]).unwrap();
    let counts = Counts {
        packets_sent: 10,
        bytes_received: 1000,
        ..Counts::default()
    };
    let row = |talk| vec![Row { talk, counts }];
    let pods = named("shop/client", "shop/server", 8080);
    assert_eq!(activity.pods.rows, row(pods.clone()));
    assert_eq!(activity.workloads.rows, row(pods));
    assert_eq!(activity.services.rows, row(named("", "shop/svc/web", 80)));
    assert_eq!(activity.drops, Board::default());
    assert_eq!((&*activity.node, activity.flows), ("n1", 1));
    assert_eq!((activity.refused, activity.records_lost), (7, 3));
    // Nothing more comes.
    let quiet = walked(&mut span, START + 1000, &[(key, flow)]).unwrap();
    assert_eq!((quiet.pods.rows, quiet.flows), (Vec::new(), 1));
}

#[test]
fn flows_that_begin_are_connections_and_count_as_a_whole() {
    let began = Counts {
        connections: 1,
        packets_sent: 5,
        packets_received: 4,
        bytes_sent: 500,
        bytes_received: 4000,
        drops: 0,
    };
    for (what, created, counted) in [
        ("during the first walk", START + 1, began),
        ("after the first walk", START + 400, began),
        // The walk has read the clock before it found the entry.
        ("just now", START + 501, began),
        (
            "long ago, by a clock that wraps",
            START + 9000,
            Counts::default(),
        ),
    ] {
        let mut span = Span::new(RATE, START);
        let flow = connection(created);
        let first = (created == START + 1).then_some(flow);
        walked(&mut span, START + 2, first.as_slice());
        let activity = walked(&mut span, START + 500, &[flow]).unwrap();
        let sum = activity.pods.rows.iter().map(|row| row.counts);
        assert_eq!(
            sum.collect::<Vec<_>>(),
            Vec::from_iter((counted != Counts::default()).then_some(counted)),
            "{what}"
        );
    }
}

#[test]
fn a_port_that_is_used_again_begins_anew() {
    let mut span = Span::new(RATE, START);
    let old = connection(START - 100);
    walked(&mut span, START, &[old]);
    let (key, mut flow) = connection(START + 100);
    flow.packets = [1, 0];
    flow.bytes = [60, 0];
    let activity = walked(&mut span, START + 500, &[(key, flow)]).unwrap();
    let expected = Counts {
        connections: 1,
        ..sent(1, 60)
    };
    assert_eq!(activity.pods.rows[0].counts, expected);
}

#[test]
fn a_frontend_side_entry_and_one_that_is_claimed_are_no_flows() {
    let mut span = Span::new(RATE, START);
    walked(&mut span, START, &[]);
    let (key, flow) = connection(START + 100);
    let front = Flow {
        flags: flow.flags & !BACKEND_SIDE | FRONTEND_SIDE,
        ..flow
    };
    let claimed = FlowKey { claimed: 1, ..key };
    let activity = walked(&mut span, START + 500, &[(key, front), (claimed, flow)]).unwrap();
    assert_eq!((activity.flows, activity.pods), (0, Board::default()));
}

#[test]
fn counters_read_while_they_are_written_never_count_back() {
    let mut span = Span::new(RATE, START);
    let (key, flow) = connection(START - 100);
    walked(&mut span, START, &[(key, flow)]);
    let older = Flow {
        packets: [4, 4],
        bytes: [400, 4000],
        ..flow
    };
    let activity = walked(&mut span, START + 500, &[(key, older)]).unwrap();
    assert_eq!(activity.pods, Board::default());
}

#[test]
fn who_opened_a_flow_on_another_node_is_marked() {
    let directory = directory();
    let mut record = record(&event());
    assert!(!directory.is_of_other_node(&record.source));
    record.source.owner = Some(Owner::Node("n2".to_owned()));
    assert!(directory.is_of_other_node(&record.source));
    let mut span = Span::new(RATE, START);
    walked(&mut span, START, &[]);
    span.record(&record, &directory);
    let activity = walked(&mut span, START + 500, &[]).unwrap();
    let elsewhere = |board: &Board| board.rows[0].talk.elsewhere;
    assert!(elsewhere(&activity.pods) && elsewhere(&activity.workloads));
    assert!(!elsewhere(&activity.drops), "no other node counts it");
}

#[test]
fn what_is_refused_is_told_with_reason_and_policy() {
    let mut span = Span::new(RATE, START);
    walked(&mut span, START, &[]);
    let refused = record(&event());
    let mut forwarded = refused.clone();
    forwarded.verdict = Outcome::Forwarded;
    for record in [&refused, &forwarded, &refused] {
        span.record(record, &directory());
    }
    span.missed(10);
    let activity = walked(&mut span, START + 500, &[]).unwrap();
    let counts = Counts {
        drops: 2,
        ..Counts::default()
    };
    let why = Talk {
        reason: "policy_denied".to_owned(),
        policies: vec!["shop/deny".to_owned()],
        ..named("shop/client", "shop/server", 8080)
    };
    assert_eq!(activity.drops.rows, [Row { talk: why, counts }]);
    let service = Row {
        talk: named("", "shop/svc/web", 80),
        counts,
    };
    assert_eq!(activity.services.rows, [service]);
    assert_eq!(activity.records_lost, 13);
    let text = serde_json::to_string(&activity).unwrap();
    assert_eq!(serde_json::from_str::<Activity>(&text).unwrap(), activity);
}

#[test]
fn a_board_keeps_the_busiest_by_each_measure_and_the_sum_of_all() {
    let mut span = Span::new(RATE, START);
    walked(&mut span, START, &[]);
    let flows: Vec<_> = (0..2000_u16)
        .map(|index| {
            let client = Address::from(IpAddr::from([10, 9, (index >> 8) as u8, index as u8]));
            let server = Address::from(IpAddr::from([10, 0, 0, 2]));
            let (key, side) = FlowKey::new(&client, 1, &server, 80, 6);
            let mut flow = connection(START + 100).1;
            flow.flags = BACKEND_SIDE | if side == Side::High { OPENER_HIGH } else { 0 };
            flow.packets = [0; 2];
            flow.bytes = [0; 2];
            flow.packets[side as usize] = index.into();
            flow.bytes[side as usize] = 2000 - u64::from(index);
            (key, flow)
        })
        .collect();
    let activity = walked(&mut span, START + 500, &flows).unwrap();
    let rows = &activity.pods.rows;
    let bytes = |bytes| rows.iter().any(|row| row.counts.bytes_sent == bytes);
    assert!(bytes(2000) && bytes(1), "most bytes, and most packets");
    assert!(rows.len() <= 120, "{} rows", rows.len());
    assert_eq!(total(&activity.pods), whole(2000, 1_999_000, 2_001_000));
    assert_eq!(activity.workloads.rows[0].counts, total(&activity.pods));
    let text = serde_json::to_vec(&activity).unwrap();
    assert!(text.len() < 64 * 1024, "{} bytes", text.len());
}

fn whole(connections: u64, packets: u64, bytes: u64) -> Counts {
    Counts {
        connections,
        ..sent(packets, bytes)
    }
}

fn total(board: &Board) -> Counts {
    let rows = board.rows.iter().map(|row| row.counts);
    let all = rows.chain([board.other, board.other_elsewhere]);
    all.fold(Counts::default(), |mut sum, counts| {
        sum += counts;
        sum
    })
}

#[test]
fn made_up_addresses_take_no_more_memory_than_is_granted() {
    let mut counting = Counting::new(RATE, START);
    counting.end(START);
    let number = (1 << 16) + 500_u32;
    for index in 0..number {
        let client = Address::from(IpAddr::from((0x0b00_0000 + index).to_be_bytes()));
        let (key, _) = FlowKey::new(&client, 1, &IpAddr::from([10, 0, 0, 2]).into(), 80, 6);
        counting.visit(&key, &connection(START + 1).1, START + 2);
    }
    let Counted { pairs, surplus, .. } = counting.end(START + 2).unwrap();
    let [all, to_services] = surplus.map(|counts| counts.connections);
    assert_eq!((pairs.len(), all, to_services), (1 << 16, 500, 500));
}

/// What happens in the table between two walks.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A client's port opens a connection, over whatever is there.
    Open(u16),
    /// Packets from who opened it and to it.
    Packets(u16, u8, u8),
    /// It goes.
    Gone(u16),
    Walk,
}

fn act() -> impl Strategy<Value = Act> {
    let port = 1..6_u16;
    prop_oneof![
        port.clone().prop_map(Act::Open),
        (port.clone(), any::<u8>(), any::<u8>()).prop_map(|(port, a, b)| Act::Packets(port, a, b)),
        port.prop_map(Act::Gone),
        Just(Act::Walk),
    ]
}

proptest! {
    /// What all spans tell together is what walks have seen of each flow last, less what the first one found.
    #[test]
    fn spans_add_up(start in any::<u32>(), acts in prop::collection::vec(act(), 0..60)) {
        let mut span = Span::new(RATE, start);
        let mut now = start;
        let mut table: BTreeMap<u16, (u32, Flow)> = BTreeMap::new();
        // What was seen of a flow by the last walk, and by the first.
        let mut seen: BTreeMap<u32, (Counts, Counts)> = BTreeMap::new();
        let mut told = Counts::default();
        let mut walks = 0;
        for (number, act) in acts.into_iter().chain([Act::Walk]).enumerate() {
            // No two flows of a port begin at one tick here.
            now = now.wrapping_add(1);
            match act {
                Act::Open(port) => {
                    let flow = Flow {
                        flags: BACKEND_SIDE,
                        // Those of before the start have a time of before it.
                        created: if walks == 0 { start.wrapping_sub(100 - number as u32) } else { now },
                        ..Flow::default()
                    };
                    table.insert(port, (number as u32, flow));
                }
                Act::Packets(port, there, back) => {
                    if let Some((_, flow)) = table.get_mut(&port) {
                        let packets = [there, back].map(u64::from);
                        for (side, more) in packets.into_iter().enumerate() {
                            flow.packets[side] += more;
                            flow.bytes[side] += 100 * more;
                        }
                    }
                }
                Act::Gone(port) => drop(table.remove(&port)),
                Act::Walk => {
                    for (port, (id, flow)) in &table {
                        let [client, server] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
                        let (key, _) = FlowKey::new(&client.into(), *port, &server.into(), 80, 6);
                        span.flows().visit(&key, flow, now);
                        let counts = Counts {
                            connections: 1,
                            packets_sent: flow.packets[0],
                            packets_received: flow.packets[1],
                            bytes_sent: flow.bytes[0],
                            bytes_received: flow.bytes[1],
                            drops: 0,
                        };
                        let of_before = if walks == 0 { counts } else { Counts::default() };
                        let (last, _) = seen.entry(*id).or_insert((counts, of_before));
                        *last = counts;
                    }
                    let activity = span.end(&directory(), over(now));
                    prop_assert_eq!(activity.is_none(), walks == 0);
                    if let Some(activity) = activity {
                        prop_assert_eq!(activity.flows, table.len() as u64);
                        prop_assert_eq!(total(&activity.pods), total(&activity.workloads));
                        told += total(&activity.pods);
                    }
                    walks += 1;
                }
            }
        }
        let expected = seen.values().map(|(last, first)| Counts {
            connections: last.connections - first.connections,
            packets_sent: last.packets_sent - first.packets_sent,
            packets_received: last.packets_received - first.packets_received,
            bytes_sent: last.bytes_sent - first.bytes_sent,
            bytes_received: last.bytes_received - first.bytes_received,
            drops: 0,
        });
        let expected = expected.fold(Counts::default(), |mut sum, counts| {
            sum += counts;
            sum
        });
        prop_assert_eq!(told, expected);
    }
}
