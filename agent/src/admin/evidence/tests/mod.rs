//! What a node tells of connections: its maps, its programs, packets that it saw.

mod programs;

use std::collections::BTreeSet;

use weir_common::abi::{BACKEND_SIDE, NAT, OPENER_HIGH, Side};

use super::*;
use crate::admin::tests::cluster::cluster;
use crate::compile::compile;
use crate::explain::{Question, explain, sources};
use crate::flows::{Outcome, Owner, Peer};
use crate::plan::{Planner, Table};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: front, uid: u1, labels: {app: front}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.1.1, podIPs: [{ip: 10.0.1.1}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: back, uid: u2, labels: {app: back}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.2.1, podIPs: [{ip: 10.0.2.1}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: back}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: back}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: back-1, labels: {kubernetes.io/service-name: back}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.2.1], nodeName: n2, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: back}}]
"#;

/// Lets the back have connections from one app.
fn ingress_from(app: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: in, uid: u3}}
spec:
  podSelector: {{matchLabels: {{app: back}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]
"
    )
}

fn objects(node: &str, manifests: &str) -> Snapshot {
    cluster(node, manifests, &[("10.0.1.1", 3), ("10.0.2.1", 4)])
}

/// What the kernel holds after a sync, as it is read from there.
fn synced(snapshot: &Snapshot) -> MemoryMaps {
    let mut maps = MemoryMaps::new();
    let plan = Planner::new().plan(&compile(snapshot)).unwrap();
    maps.execute(&plan).unwrap();
    let version = maps.control(weir_common::abi::control::VERSION);
    let tables = Table::all().map(|table| (table, maps.dump(table)));
    MemoryMaps::read_back(version, tables.collect())
}

/// What a node says about front's connections to the Service, by objects that it knows and maps that it has. Its programs cannot be tried.
fn evidence(
    node: &str,
    objects_now: &str,
    maps: &MemoryMaps,
    records: &[Record],
    tracked: &[(FlowKey, Tracked)],
) -> Evidence {
    tried(node, objects_now, maps, records, tracked, &|_| None)
}

/// The same, of a node with programs.
fn tried(
    node: &str,
    objects_now: &str,
    maps: &MemoryMaps,
    records: &[Record],
    tracked: &[(FlowKey, Tracked)],
    programs: Try<'_>,
) -> Evidence {
    let snapshot = objects(node, objects_now);
    let question = Question::parse("shop/front", "shop/svc/back").unwrap();
    let there = objects("n1", objects_now);
    let explanation = explain(&there, &question).unwrap();
    let node = Node {
        snapshot: &snapshot,
        maps,
        generation: 1,
        records,
        tracked,
        programs,
    };
    node.evidence(&explanation, sources(&there, &question).unwrap())
}

#[test]
fn each_node_tells_of_its_own_pods_and_its_own_translation() {
    let now = SHOP.to_owned() + &ingress_from("front");
    let [front, back] = ["n1", "n2"].map(|node| {
        let maps = synced(&objects(node, &now));
        evidence(node, &now, &maps, &[], &[])
    });
    assert!(front.agrees() && back.agrees(), "{front:?} {back:?}");
    let verdict = |name: &str, direction, peer: &str, held| HeldVerdict {
        pod: ObjectName::new("shop", name),
        direction,
        peer: peer.parse().unwrap(),
        port: 8080,
        intended: true,
        held,
        tried: None,
    };
    let egress = verdict("front", Direction::Egress, "10.0.2.1", Held::Open);
    assert_eq!(front.verdicts, [egress]);
    let rule = Some((ObjectName::new("shop", "in"), 0));
    let ingress = verdict("back", Direction::Ingress, "10.0.1.1", Held::Allowed(rule));
    assert_eq!(back.verdicts, [ingress]);
    let endpoint: BTreeSet<SocketAddr> = ["10.0.2.1:8080".parse().unwrap()].into();
    assert_eq!(front.frontends[0].intended, endpoint);
    assert_eq!(front.frontends[0].held.as_ref(), Some(&endpoint));
    assert_eq!(back.frontends, [], "node n1 translates");
}

#[test]
fn maps_that_are_behind_the_objects_are_told_of() {
    let [open, other, allowed] = ["", &*ingress_from("other"), &*ingress_from("front")]
        .map(|policy| SHOP.to_owned() + policy);
    let empty = MemoryMaps::read_back(0, [].into());
    for (objects_now, maps, held) in [
        (&open, empty.clone(), Held::Unknown),
        (&other, synced(&objects("n2", &open)), Held::Open),
        (&open, synced(&objects("n2", &other)), Held::Denied),
        (
            &other,
            synced(&objects("n2", &allowed)),
            Held::Allowed(None),
        ),
    ] {
        let evidence = evidence("n2", objects_now, &maps, &[], &[]);
        assert!(!evidence.agrees(), "{evidence:?}");
        assert_eq!(evidence.verdicts[0].held, held);
    }
    let right = evidence("n2", &other, &synced(&objects("n2", &other)), &[], &[]);
    assert_eq!(right.verdicts[0].held, Held::Denied);
    assert!(right.agrees());
}

#[test]
fn a_frontend_that_is_not_as_the_objects_say_is_told_of() {
    let now = SHOP.to_owned();
    let elsewhere = now.replace("10.0.2.1]", "10.0.2.9]");
    let unready = now.replace("ready: true", "ready: false");
    let without = now.replace(
        "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1]",
        "clusterIP: None",
    );
    for (held, backends) in [
        (&elsewhere, Some(vec!["10.0.2.9:8080"])),
        (&unready, Some(vec![])),
        (&without, None),
    ] {
        let maps = synced(&objects("n1", held));
        let evidence = evidence("n1", &now, &maps, &[], &[]);
        let backends = backends.map(|it| it.iter().map(|it| it.parse().unwrap()).collect());
        assert_eq!(evidence.frontends[0].held, backends);
        assert!(!evidence.frontends[0].agrees());
    }
}

fn dropped(source: &str, destination: &str, verdict: Outcome) -> Record {
    let peer = |end: &str| {
        let end: SocketAddr = end.parse().unwrap();
        Peer {
            address: end.ip(),
            port: end.port(),
            owner: Some(Owner::Node("some".to_owned())),
            workload: None,
        }
    };
    Record {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        node: "n1".to_owned(),
        verdict,
        reason: "policy_denied".to_owned(),
        direction: Direction::Egress,
        protocol: "TCP".to_owned(),
        source: peer(source),
        destination: peer(destination),
        backend: None,
        rule: None,
        denied_by: Vec::new(),
        length: 74,
        ended: None,
    }
}

fn tracked(client: &str, backend: &str, packets: [u64; 2]) -> (FlowKey, Tracked) {
    let [client, backend] = [client, backend].map(|end| end.parse::<SocketAddr>().unwrap());
    let addresses = [client, backend].map(|end| end.ip().into());
    let (key, side) = FlowKey::new(
        &addresses[0],
        client.port(),
        &addresses[1],
        backend.port(),
        6,
    );
    let mut flow = Tracked {
        flags: BACKEND_SIDE | NAT,
        ..Tracked::default()
    };
    if side == Side::High {
        flow.flags |= OPENER_HIGH;
    }
    flow.packets[side as usize] = packets[0];
    flow.packets[1 - side as usize] = packets[1];
    (key, flow)
}

#[test]
fn what_became_of_packets_is_told_of_these_connections_alone() {
    let maps = synced(&objects("n1", SHOP));
    let (service, backend) = ("10.96.0.1:80", "10.0.2.1:8080");
    let mut records = vec![
        dropped("10.0.1.1:1", service, Outcome::Forwarded),
        dropped("10.0.1.9:2", service, Outcome::Dropped),
        dropped("10.0.1.1:3", "10.0.2.1:8081", Outcome::Dropped),
    ];
    let ports = 10..14;
    records.extend(ports.map(|port| {
        dropped(
            &format!("10.0.1.1:{port}"),
            if port % 2 == 0 { service } else { backend },
            Outcome::Dropped,
        )
    }));
    records.push(dropped("10.0.1.1:14", service, Outcome::Rejected));
    records.push(dropped("10.0.1.1:15", service, Outcome::Ended));
    let flows = [
        tracked("10.0.1.1:20", backend, [5, 4]),
        tracked("10.0.1.1:21", backend, [2, 0]),
        tracked("10.0.1.9:22", backend, [100, 100]),
        tracked("10.0.1.1:23", "10.0.2.1:8081", [100, 100]),
    ];
    let evidence = evidence("n1", SHOP, &maps, &records, &flows);
    assert_eq!(evidence.drops, 5);
    let last: Vec<u16> = evidence
        .last_drops
        .iter()
        .map(|it| it.source.port)
        .collect();
    assert_eq!(last, [14, 13, 12], "the newest, newest first");
    assert_eq!((evidence.connections, evidence.packets), (2, [7, 4]));
}

#[test]
fn drops_are_told_of_where_no_endpoint_takes_connections() {
    let unready = SHOP.replace("ready: true", "ready: false");
    let maps = synced(&objects("n1", &unready));
    let records = [
        dropped("10.0.1.1:1", "10.96.0.1:80", Outcome::Rejected),
        dropped("10.0.1.9:1", "10.96.0.1:80", Outcome::Rejected),
    ];
    let evidence = evidence("n1", &unready, &maps, &records, &[]);
    assert_eq!((evidence.drops, evidence.agrees()), (1, true));
}
