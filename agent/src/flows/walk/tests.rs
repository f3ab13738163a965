mod model;

use std::net::Ipv4Addr;

use weir_common::abi::{OPENER_HIGH, Side};

use super::*;

const RATE: u32 = 250;
const SECOND: u32 = RATE;
const HOUR: u32 = 3600 * RATE;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The key of what the client's port says to a port, and the client's side of it.
fn key(client: u16, to: Ipv4Addr, port: u16, protocol: u8) -> (FlowKey, Side) {
    let [from, to] = [CLIENT, to].map(Address::from);
    FlowKey::new(&from, client, &to, port, protocol)
}

/// An entry that the client opened at tick 1000, when its only packet came.
fn flow(side: Side, flags: u16, tcp_flags: [u8; 2]) -> Flow {
    let opener = match side {
        Side::Low => 0,
        Side::High => OPENER_HIGH,
    };
    Flow {
        flags: flags | opener,
        tcp_flags,
        last_seen: 1000,
        created: 1000,
        ..Flow::default()
    }
}

/// A connection to the backend itself, with these flags seen of both ends.
fn direct(tcp_flags: [u8; 2]) -> (FlowKey, Flow) {
    let (key, side) = key(40_000, BACKEND, 8080, protocol::TCP);
    (key, flow(side, BACKEND_SIDE, tcp_flags))
}

/// The two entries of a connection to a Service.
fn connection() -> [(FlowKey, Flow); 2] {
    let (front_key, side) = key(40_000, SERVICE, 80, protocol::TCP);
    let mut seen = [0; 2];
    seen[side as usize] = ACK;
    let mut front = flow(side, FRONTEND_SIDE | NAT, seen);
    front.nat_address = BACKEND.into();
    front.nat_port = 8080;
    let (back_key, side) = key(40_000, BACKEND, 8080, protocol::TCP);
    let back = flow(side, BACKEND_SIDE | NAT, [ACK; 2]);
    [(front_key, front), (back_key, back)]
}

/// A walk at one tick: keys that are told, and those that can go.
fn walk(
    walks: &mut Walks,
    inserted: u64,
    now: u32,
    flows: &[(FlowKey, Flow)],
) -> (Vec<FlowKey>, Vec<FlowKey>) {
    let mut walk = walks.begin(inserted, now);
    let told = flows
        .iter()
        .filter(|(key, flow)| walk.visit(key, flow, now));
    let told = told.map(|(key, _)| *key).collect();
    let gone = walk.end().into_iter().map(|(key, _)| key).collect();
    assert_eq!(walks.counts().entries, flows.len() as u64);
    (told, gone)
}

/// Walks that have seen an empty table at tick 500.
fn walks() -> Walks {
    let mut walks = Walks::new(RATE, 500);
    walk(&mut walks, 0, 500, &[]);
    walks
}

/// What one walk at a tick removes.
fn expired(now: u32, flows: &[(FlowKey, Flow)]) -> Vec<FlowKey> {
    walk(&mut Walks::new(RATE, now), 0, now, flows).1
}

#[test]
fn a_flow_ends_when_the_packet_logic_takes_it_for_over() {
    let open = [ACK; 2];
    for (protocol, tcp_flags, idle, ended) in [
        (protocol::TCP, open, 6 * HOUR, false),
        (protocol::TCP, open, 6 * HOUR + 1, true),
        // Only one end has said all.
        (protocol::TCP, [ACK | FIN, ACK], HOUR, false),
        // The last acknowledgement may be on its way.
        (protocol::TCP, [ACK | FIN; 2], SECOND - 1, false),
        (protocol::TCP, [ACK | FIN; 2], SECOND, true),
        (protocol::TCP, [ACK, ACK | RST], SECOND, true),
        (protocol::TCP, [ACK, 0], 60 * SECOND, false),
        (protocol::TCP, [ACK, 0], 60 * SECOND + 1, true),
        (protocol::UDP, [0; 2], 180 * SECOND, false),
        (protocol::UDP, [0; 2], 180 * SECOND + 1, true),
        // What would be flags of TCP are none.
        (protocol::UDP, [RST; 2], SECOND, false),
        (protocol::ICMP, [0; 2], 30 * SECOND + 1, true),
        // A packet came after the clock was read.
        (protocol::ICMP, [0; 2], 0_u32.wrapping_sub(1), false),
        (protocol::TCP, [RST; 2], 0_u32.wrapping_sub(1), false),
    ] {
        let (key, side) = key(40_000, BACKEND, 8080, protocol);
        let flows = [(key, flow(side, BACKEND_SIDE, tcp_flags))];
        let (told, _) = walk(&mut walks(), 1, 1000_u32.wrapping_add(idle), &flows);
        assert_eq!(!told.is_empty(), ended, "{protocol} {tcp_flags:?} {idle}");
    }
}

#[test]
fn an_end_is_told_once() {
    let mut walks = walks();
    let closed = direct([ACK | FIN; 2]);
    let now = 1000 + 2 * SECOND;
    assert_eq!(walk(&mut walks, 1, now, &[closed]).0, [closed.0]);
    assert!(walk(&mut walks, 1, now + SECOND, &[closed]).0.is_empty());
    assert!(
        walk(&mut walks, 1, now + 2 * SECOND, &[closed])
            .0
            .is_empty()
    );
    // The same ports, opened and closed again.
    let mut again = closed;
    again.1.created += 3 * SECOND;
    again.1.last_seen += 3 * SECOND;
    let now = again.1.last_seen + SECOND;
    assert_eq!(walk(&mut walks, 2, now, &[again]).0, [closed.0]);
    let counted = Counts {
        entries: 1,
        flows_ended: 2,
        entries_ended: 2,
        entries_lost: 0,
    };
    assert_eq!(walks.counts(), counted);
}

#[test]
fn what_a_walk_has_told_that_was_given_up_is_not_told_again() {
    // Neither by the first walk nor by a later one.
    for mut walks in [walks(), Walks::new(RATE, 1000)] {
        let closed = direct([ACK | FIN; 2]);
        let now = 1000 + 2 * SECOND;
        let mut broken = walks.begin(1, now);
        assert!(broken.visit(&closed.0, &closed.1, now));
        broken.give_up();
        assert!(walk(&mut walks, 1, now + SECOND, &[closed]).0.is_empty());
        assert!(
            walk(&mut walks, 1, now + 2 * SECOND, &[closed])
                .0
                .is_empty()
        );
        let counts = walks.counts();
        assert_eq!((counts.flows_ended, counts.entries_lost), (1, 0));
    }
}

#[test]
fn what_comes_while_a_walk_reads_is_no_loss() {
    let mut walks = Walks::new(RATE, 1000);
    let now = 1000 + 2 * SECOND;
    let mut first = walks.begin(0, now);
    // In the tick in which the walk began, and after the clock was read.
    for created in [now, now + 1] {
        let mut fresh = direct([ACK; 2]);
        fresh.0.ports[0] = created as u16;
        (fresh.1.created, fresh.1.last_seen) = (created, created);
        first.visit(&fresh.0, &fresh.1, now);
    }
    let _ = first.end();
    // Both go within a walk's time, and are lost then, and only they.
    walk(&mut walks, 2, now + SECOND, &[]);
    assert_eq!(walks.counts().entries_lost, 2);
}

#[test]
fn what_was_over_before_the_agent_is_no_news() {
    let closed = direct([ACK | FIN; 2]);
    for (since, told) in [
        (1000 + SECOND, false),
        // It had not come to rest then.
        (1000 + SECOND - 1, true),
        (900, true),
    ] {
        let mut walks = Walks::new(RATE, since);
        let (found, _) = walk(&mut walks, 70, 1000 + 2 * SECOND, &[closed]);
        assert_eq!(!found.is_empty(), told, "{since}");
        assert_eq!(walks.counts().flows_ended, u64::from(told));
        // Nor later, nor is it lost when it goes.
        assert!(walk(&mut walks, 70, 5000, &[closed]).0.is_empty());
        walk(&mut walks, 70, 6000, &[]);
        assert_eq!(walks.counts().entries_lost, 0);
    }
}

#[test]
fn a_flow_to_a_service_is_one_flow_of_two_entries() {
    let mut walks = walks();
    let [front, mut back] = connection();
    back.1.last_seen += 7 * HOUR;
    let now = back.1.last_seen;
    assert!(walk(&mut walks, 2, now, &[front, back]).0.is_empty());
    assert_eq!(walks.counts().entries_ended, 0, "the front is only quiet");
    back.1.tcp_flags = [ACK | FIN; 2];
    let (told, _) = walk(&mut walks, 2, now + SECOND, &[front, back]);
    assert_eq!(told, [back.0]);
    // A node's port leads back to a client: no flow, but an entry.
    let (port_key, side) = key(61_000, BACKEND, 8080, protocol::TCP);
    let port = (port_key, flow(side, NAT, [RST; 2]));
    let (told, _) = walk(&mut walks, 3, now + SECOND, &[front, back, port]);
    assert!(told.is_empty());
    let counted = Counts {
        entries: 3,
        flows_ended: 1,
        entries_ended: 3,
        entries_lost: 0,
    };
    assert_eq!(walks.counts(), counted);
}

#[test]
fn what_is_gone_before_it_was_seen_over_is_lost() {
    let mut walks = walks();
    let live = direct([ACK; 2]);
    // Of five that were opened one is there.
    walk(&mut walks, 5, 2000, &[live]);
    assert_eq!(walks.counts().entries_lost, 4);
    // It goes, too, and comes again.
    walk(&mut walks, 5, 3000, &[]);
    assert_eq!(walks.counts().entries_lost, 5);
    let mut again = live;
    again.1.created = 2999;
    walk(&mut walks, 6, 3000, &[again]);
    assert_eq!(walks.counts().entries_lost, 5);
    // What a processor has claimed to replace is no entry.
    let claimed = (again.0.claim(), again.1);
    let mut under_way = walks.begin(6, 3100);
    assert!(!under_way.visit(&again.0, &again.1, 3100));
    assert!(!under_way.visit(&claimed.0, &claimed.1, 3100));
    assert_eq!(under_way.end(), []);
    assert_eq!(walks.counts().entries, 1);
}

#[test]
fn a_quiet_connection_keeps_both_entries() {
    let flows = connection();
    assert!(expired(1000 + HOUR, &flows).is_empty());
    let [front, back] = flows;
    let late = 1000 + 7 * HOUR;
    assert_eq!(expired(late, &flows), [back.0, front.0]);
    // One whose flow was evicted goes.
    assert_eq!(expired(1000 + HOUR, &[front]), [front.0]);
    assert_eq!(expired(1000 + SECOND, &[front]), []);
}

/// Netfilter translates it, and masquerades the client.
#[test]
fn a_quiet_connection_of_netfilters_keeps_both_entries_too() {
    let [(front_key, mut front), (_, mut back)] = connection();
    front.flags |= NETFILTER;
    (front.source_address, front.source_port) = (Ipv4Addr::new(172, 30, 0, 1).into(), 7);
    let (back_key, _) = FlowKey::new(
        &front.source_address,
        front.source_port,
        &front.nat_address,
        front.nat_port,
        front_key.protocol,
    );
    back.flags = BACKEND_SIDE | SHARED;
    back.last_seen = 1000 + 7 * HOUR;
    let flows = [(front_key, front), (back_key, back)];
    assert!(expired(1000 + 7 * HOUR, &flows).is_empty());
    assert_eq!(expired(1000 + 7 * HOUR, &flows[..1]), [front_key]);
}

#[test]
fn the_clock_may_wrap_and_be_overtaken() {
    let (key, mut open) = direct([ACK; 2]);
    open.last_seen = u32::MAX - 10;
    assert!(expired(10, &[(key, open)]).is_empty());
    let (key, mut unanswered) = direct([0; 2]);
    unanswered.last_seen = 2000;
    assert!(expired(1999, &[(key, unanswered)]).is_empty());
    // Over, but its ports may be in use again any moment.
    assert!(expired(2000 + 61 * SECOND, &[(key, unanswered)]).is_empty());
    let late = 2000 + (61 + GRACE) * SECOND;
    assert_eq!(expired(late, &[(key, unanswered)]), [key]);
}
