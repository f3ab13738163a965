//! Connections that netfilter tracks, as entries of table `flow`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_common::abi::{
    Address, BACKEND_SIDE, End, Endpoint, FRONTEND_SIDE, Flow, FlowKey, NAT, NETFILTER,
    OPENER_HIGH, ROLE_OPENER, ROLE_RESPONDER, RULE_HAIRPIN, RULE_NODE, RULE_NONE, SHARED, Side,
};

use crate::model::{Connection, Ends};

/// Both ends of an established TCP connection have sent this.
const ACK: u8 = 0x10;

/// What entries are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    /// Local pods.
    pub(super) pods: &'a BTreeMap<Address, Endpoint>,
    /// Addresses of the node.
    pub(super) node: &'a BTreeSet<IpAddr>,
    /// The policy epoch.
    pub(super) epoch: u32,
    /// The clock.
    pub(super) now: u32,
}

/// The entries of a connection, which no policy has approved yet: the one that pods' approvals are kept in first.
pub(super) fn rows(connection: &Connection, world: &World<'_>) -> Vec<(FlowKey, Flow)> {
    let Connection { asked, answered } = *connection;
    let arriving = reversed(answered);
    let node_asks = world.node.contains(&asked.source);
    let mut rows = vec![plain(arriving, node_asks, world)];
    if connection.is_redirected() {
        if asked.source == arriving.destination
            && let Some(pod) = world.pods.get(&asked.source.into())
        {
            talk_to_itself(&mut rows[0].1, pod, key(arriving).1);
        }
        rows[0].1.flags |= SHARED;
        let (key, opener) = key(asked);
        let front = Flow {
            flags: FRONTEND_SIDE | NAT | NETFILTER | opener_flag(opener),
            nat_address: arriving.destination.into(),
            nat_port: arriving.destination_port,
            source_address: arriving.source.into(),
            source_port: arriving.source_port,
            ..alive(world)
        };
        rows.push((key, front));
    } else if arriving != asked {
        // Masquerading comes after the hook of the pod that asks, and is undone before the answer gets there.
        rows.push(plain(asked, node_asks, world));
    }
    rows
}

/// A pod is never cut off from itself, whatever stands for it.
fn talk_to_itself(flow: &mut Flow, pod: &Endpoint, opener: Side) {
    let end = |role| End {
        endpoint: pod.id,
        role,
        epoch: 0,
        rule: RULE_HAIRPIN,
        ifindex: pod.ifindex,
    };
    flow.ends[opener as usize] = end(ROLE_OPENER);
    flow.ends[opener.other() as usize] = end(ROLE_RESPONDER);
}

/// The entry of a connection between exactly these ends.
fn plain(ends: Ends, node_asks: bool, world: &World<'_>) -> (FlowKey, Flow) {
    let (key, opener) = key(ends);
    let mut flow = Flow {
        flags: BACKEND_SIDE | opener_flag(opener),
        ..alive(world)
    };
    let approval = |address: IpAddr, role, rule| End {
        endpoint: world.pods.get(&address.into()).map_or(0, |pod| pod.id),
        role,
        // Of another epoch: the next packet is judged, in the role that this end has.
        epoch: world.epoch.wrapping_sub(1),
        rule,
        ifindex: 0,
    };
    // The node may reach its pods: those connections that are its own.
    let rule = if node_asks { RULE_NODE } else { RULE_NONE };
    flow.ends[opener as usize] = approval(ends.source, ROLE_OPENER, RULE_NONE);
    flow.ends[opener.other() as usize] = approval(ends.destination, ROLE_RESPONDER, rule);
    // An end that is no local pod stays all zero.
    for end in &mut flow.ends {
        if end.endpoint == 0 {
            *end = End::default();
        }
    }
    (key, flow)
}

fn alive(world: &World<'_>) -> Flow {
    Flow {
        last_seen: world.now,
        created: world.now,
        tcp_flags: [ACK; 2],
        ..Flow::default()
    }
}

fn key(ends: Ends) -> (FlowKey, Side) {
    FlowKey::new(
        &ends.source.into(),
        ends.source_port,
        &ends.destination.into(),
        ends.destination_port,
        ends.protocol,
    )
}

const fn opener_flag(opener: Side) -> u16 {
    match opener {
        Side::Low => 0,
        Side::High => OPENER_HIGH,
    }
}

const fn reversed(ends: Ends) -> Ends {
    Ends {
        protocol: ends.protocol,
        source: ends.destination,
        source_port: ends.destination_port,
        destination: ends.source,
        destination_port: ends.source_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: (&str, u16) = ("10.0.1.1", 4000);
    const SERVICE: (&str, u16) = ("10.96.0.11", 80);
    const BACKEND: (&str, u16) = ("10.0.2.1", 8080);
    const NODE: (&str, u16) = ("172.30.0.1", 61000);

    fn ends(source: (&str, u16), destination: (&str, u16)) -> Ends {
        Ends {
            protocol: 6,
            source: source.0.parse().expect("address"),
            source_port: source.1,
            destination: destination.0.parse().expect("address"),
            destination_port: destination.1,
        }
    }

    fn entries(asked: Ends, answered: Ends) -> Vec<(FlowKey, Flow)> {
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        let pods = [(CLIENT.0, 7), (BACKEND.0, 8)].map(|(of, id)| {
            let pod = Endpoint {
                id,
                ifindex: 20 + id as u32,
                ..Endpoint::default()
            };
            (address(of).into(), pod)
        });
        let pods = BTreeMap::from(pods);
        let world = World {
            pods: &pods,
            node: &BTreeSet::from([address(NODE.0)]),
            epoch: 0,
            now: 1000,
        };
        rows(&Connection { asked, answered }, &world)
    }

    /// Endpoint, role and rule of the source's end and of the destination's.
    fn approvals(flow: &Flow, of: Ends) -> [(u64, u32, u32); 2] {
        let (_, side) = key(of);
        [side, side.other()].map(|side| {
            let end = flow.ends[side as usize];
            (end.endpoint, end.role, end.rule)
        })
    }

    #[test]
    fn what_netfilter_redirects_leads_to_the_entry_of_client_and_backend() {
        let asked = ends(CLIENT, SERVICE);
        let entries = entries(asked, ends(BACKEND, CLIENT));
        let behind = ends(CLIENT, BACKEND);
        assert_eq!(entries.len(), 2);
        let (found, flow) = entries[0];
        assert_eq!(found, key(behind).0);
        assert_eq!(flow.flags & (BACKEND_SIDE | NAT), BACKEND_SIDE);
        assert_eq!(flow.opener(), key(behind).1);
        assert_eq!(
            approvals(&flow, behind),
            [(7, ROLE_OPENER, RULE_NONE), (8, ROLE_RESPONDER, RULE_NONE)]
        );
        assert!(flow.ends.iter().all(|end| end.epoch == u32::MAX));
        let (found, front) = entries[1];
        assert_eq!(found, key(asked).0);
        assert_eq!(front.flags & !OPENER_HIGH, FRONTEND_SIDE | NAT | NETFILTER);
        assert_eq!(
            (front.nat_address, front.nat_port),
            (behind.destination.into(), 8080)
        );
        assert_eq!(
            (front.source_address, front.source_port),
            (behind.source.into(), 4000)
        );
        assert_eq!(front.ends, [End::default(); 2]);
    }

    #[test]
    fn a_client_that_is_masqueraded_has_its_stand_in() {
        let entries = entries(ends(CLIENT, SERVICE), ends(BACKEND, NODE));
        let behind = ends(NODE, BACKEND);
        assert_eq!(entries[0].0, key(behind).0);
        let approvals = approvals(&entries[0].1, behind);
        assert_eq!(approvals, [(0, 0, 0), (8, ROLE_RESPONDER, RULE_NONE)]);
        let front = entries[1].1;
        assert_eq!(
            (front.source_address, front.source_port),
            (behind.source.into(), 61000)
        );
    }

    #[test]
    fn a_pod_that_reaches_itself_is_not_judged() {
        let entries = entries(ends(CLIENT, SERVICE), ends((CLIENT.0, 8080), NODE));
        let behind = ends(NODE, (CLIENT.0, 8080));
        let approvals = approvals(&entries[0].1, behind);
        assert_eq!(
            approvals,
            [
                (7, ROLE_OPENER, RULE_HAIRPIN),
                (7, ROLE_RESPONDER, RULE_HAIRPIN)
            ]
        );
        assert!(entries[0].1.ends.iter().all(|end| end.ifindex == 27));
    }

    #[test]
    fn what_is_not_redirected_is_known_at_both_sides_of_a_masquerade() {
        let direct = ends(CLIENT, BACKEND);
        assert_eq!(entries(direct, ends(BACKEND, CLIENT)).len(), 1);
        let both = entries(direct, ends(BACKEND, NODE));
        let keys: Vec<_> = both.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [key(ends(NODE, BACKEND)).0, key(direct).0]);
        assert!(both.iter().all(|(_, flow)| flow.flags & NAT == 0));
    }

    #[test]
    fn the_node_may_go_on_talking_to_its_pods() {
        let asked = ends(NODE, BACKEND);
        let flow = entries(asked, ends(BACKEND, NODE))[0].1;
        assert_eq!(approvals(&flow, asked)[1], (8, ROLE_RESPONDER, RULE_NODE));
    }
}
