pub(crate) mod cluster;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use weir_common::abi::{
    Address, BACKEND_SIDE, Class, Endpoint, EndpointKey, FRONTEND_SIDE, Flow, FlowKey, NAT,
    OPENER_HIGH, Range, Rows, Segment, Side, VerdictKey, range_bound,
};
use zerocopy::IntoBytes;

use super::{
    Audit, Client, ClientError, DryRun, Evidence, FirstPacket, Followed, HistoryEntry, MapDump,
    PodRow, Provider, RawMaps, RecordCounts, ServeError, Status, canonical, connections, flow_rows,
    raw, serve,
};
use crate::explain::{Explanation, Verdict};
use crate::flows::tests::{event, record};
use crate::flows::top::Activity;
use crate::flows::{Outcome, Recent, Record, RuleHits, Seen, SeenEnd};
use crate::model::{
    DeviceFacts, Namespace, Node, Object, ObjectName, Pod, Policy, Protocol, Selector, Snapshot,
};
use crate::plan::Table;

pub(crate) struct Fixed {
    snapshot: Arc<Snapshot>,
    pub(crate) recent: Mutex<Recent>,
    top: broadcast::Sender<Arc<Activity>>,
}

impl Provider for Fixed {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    fn status(&self) -> Status {
        Status {
            node: self.snapshot.node_name.clone(),
            ..Status::default()
        }
    }

    fn maps(&self) -> Result<RawMaps, String> {
        Ok(RawMaps::default())
    }

    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, String> {
        Err("cannot read table `flow`".to_owned())
    }

    fn audit(&self) -> Result<Audit, String> {
        Err("nothing was written yet".to_owned())
    }

    fn dry_run(&self, _: &FirstPacket) -> Option<DryRun> {
        None
    }

    fn hits(&self) -> Result<RuleHits, String> {
        Ok(RuleHits {
            event_sample: 7,
            ..RuleHits::default()
        })
    }

    fn metrics(&self) -> Result<String, String> {
        Ok("weir_one 1\n".to_owned())
    }

    fn history(&self) -> Vec<HistoryEntry> {
        vec![HistoryEntry::default()]
    }

    fn records(&self) -> Vec<Record> {
        self.recent.lock().unwrap().to_vec()
    }

    fn follow(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        let recent = self.recent.lock().unwrap();
        (recent.to_vec(), recent.follow())
    }

    fn record_counts(&self) -> RecordCounts {
        let recent = self.recent.lock().unwrap();
        RecordCounts {
            kept: recent.len() as u64,
            room: recent.room() as u64,
            ever: recent.pushed(),
        }
    }

    fn top(&self) -> broadcast::Receiver<Arc<Activity>> {
        self.top.subscribe()
    }
}

fn pod(name: &str, address: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: ObjectName::new("shop", name),
        uid: name.to_owned(),
        mirrors: None,
        scraped: None,
        labels: BTreeMap::new(),
        ips: vec![address.parse().unwrap()],
        host_network: false,
        terminal: false,
        node: "n1".to_owned(),
        ports: Vec::new(),
        created: 0,
    })
}

pub(crate) fn provider() -> Arc<Fixed> {
    let deny = Policy {
        name: ObjectName::new("shop", "deny"),
        uid: String::new(),
        labels: [].into(),
        pod_selector: Selector::default(),
        ingress: Some(Vec::new()),
        egress: None,
    };
    let mut snapshot = Snapshot {
        node_name: "n1".to_owned(),
        ..Snapshot::default()
    };
    let namespace = Namespace {
        name: "shop".to_owned(),
        ..Namespace::default()
    };
    snapshot
        .namespaces
        .insert("shop".to_owned(), Arc::new(namespace));
    for pod in [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")] {
        snapshot.pods.insert(pod.name.clone(), pod);
    }
    snapshot.policies.insert(deny.name.clone(), Arc::new(deny));
    Arc::new(Fixed {
        snapshot: Arc::new(snapshot),
        recent: Mutex::new(Recent::new(2)),
        top: broadcast::Sender::new(4),
    })
}

/// Serves while `ask` runs.
async fn with_server<T>(socket: &Path, ask: impl AsyncFnOnce(Client) -> T) -> T {
    let (stop, stopped) = oneshot::channel::<()>();
    let path = socket.to_owned();
    let server = tokio::spawn(async move {
        serve(&path, provider(), async {
            let _ = stopped.await;
        })
        .await
    });
    let client = Client::new(socket);
    let mut up = false;
    for _ in 0..200 {
        if client.get::<Status>("/v1/status", &[]).await.is_ok() {
            up = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(up, "the server did not come up");
    let answer = ask(client).await;
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), server);
    ended.await.expect("ends in time").unwrap().unwrap();
    answer
}

#[tokio::test]
async fn questions_are_answered_over_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/admin.sock");
    with_server(&socket, async |client| {
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let status: Status = client.get("/v1/status", &[]).await.unwrap();
        assert_eq!(status.node, "n1");
        let pods: Vec<PodRow> = client.get("/v1/endpoints", &[]).await.unwrap();
        assert_eq!(pods[0].ingress, [ObjectName::new("shop", "deny")]);
        assert!(pods[0].egress.is_empty());
        let hits: RuleHits = client.get("/v1/hits", &[]).await.unwrap();
        assert_eq!(hits.event_sample, 7);
        let history: Vec<HistoryEntry> = client.get("/v1/history", &[]).await.unwrap();
        assert_eq!(history, [HistoryEntry::default()]);
        let metrics: String = client.get("/v1/metrics", &[]).await.unwrap();
        assert_eq!(metrics, "weir_one 1\n");
        let dump: MapDump = client
            .get("/v1/map-dump", &[("canonical", "true")])
            .await
            .unwrap();
        assert_eq!(dump, MapDump::default());

        let question = [("src", "shop/a"), ("dst", "shop/b:80/TCP")];
        let answer: Explanation = client.get("/v1/explain", &question).await.unwrap();
        assert_eq!(answer.verdict, Verdict::Denied);
        let question = [("src", "[2001:db8::1]"), ("dst", "[2001:db8::2]:80")];
        let answer: Explanation = client.get("/v1/explain", &question).await.unwrap();
        assert_eq!(answer.source, "[2001:db8::1]");

        for (parameters, message) in [
            (&[("src", "shop/a")][..], "parameter dst is missing"),
            (
                &[("src", "shop/c"), ("dst", "shop/b:1")],
                "no pod shop/c is known",
            ),
            (&[("src", "c"), ("dst", "shop/b:1")], "cannot read \"c\""),
        ] {
            let error = client
                .get::<Explanation>("/v1/explain", parameters)
                .await
                .unwrap_err();
            assert!(matches!(error, ClientError::Refused(_)), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
        let objects: Vec<Object> = client.get("/v1/objects", &[]).await.unwrap();
        assert_eq!(objects, provider().snapshot().objects().collect::<Vec<_>>());
        assert!(!objects.is_empty());
        let error = client
            .get::<Vec<super::FlowRow>>("/v1/flows", &[])
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Broken(_)), "{error}");
        assert!(
            error.to_string().contains("cannot read table `flow`"),
            "{error}"
        );
        let error = client.get::<Evidence>("/v1/evidence", &question).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("cannot read table `flow`"), "{error}");
        let error = client.get::<Evidence>("/v1/evidence", &question[..1]).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("parameter dst is missing"), "{error}");
        let error = client.get::<Status>("/v1/none", &[]).await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    })
    .await;
    assert!(!socket.exists(), "removed on shutdown");
}

#[tokio::test]
async fn a_live_socket_is_respected_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    // Dropping a listener leaves its file, as a killed agent does.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    with_server(&socket, async |client| {
        let second = serve(&socket, provider(), std::future::pending()).await;
        assert!(matches!(second, Err(ServeError::InUse(_))), "{second:?}");
        client.get::<Status>("/v1/status", &[]).await.unwrap();
    })
    .await;

    std::fs::write(&socket, "precious").unwrap();
    let result = serve(&socket, provider(), std::future::pending()).await;
    assert!(
        matches!(result, Err(ServeError::NotASocket(_))),
        "{result:?}"
    );
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named() {
    let error = Client::new(Path::new("/nonexistent/admin.sock"))
        .get::<Status>("/v1/status", &[])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no agent answers on /nonexistent/admin.sock"),
        "{error}"
    );
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// One pod whose row allows TCP 80 to one peer, under the given internal numbers.
fn maps(version: usize, row: u32, class: u32, base: u32) -> RawMaps {
    let mut maps = RawMaps {
        version: version as u64,
        ..RawMaps::default()
    };
    let mut add = |table, key: &[u8], value: &[u8]| {
        let table = maps.tables.entry(table).or_default();
        table.insert(key.to_vec(), value.to_vec());
    };
    let mut endpoint = Endpoint {
        id: 7,
        ifindex: 3,
        ..Endpoint::default()
    };
    endpoint.rows[version] = Rows {
        ingress: row,
        egress: 0,
    };
    let mut peer = Class { versions: [9, 9] };
    peer.versions[version] = class;
    let range = Range {
        first: range_bound(6, 80),
        last: range_bound(6, 80),
        rule: 77,
        reserved: 0,
    };
    let key = VerdictKey { row, class };
    let segment = Segment { base, count: 1 };
    let pod = EndpointKey::address(address("10.0.0.1"));
    add(Table::Endpoint, pod.as_bytes(), endpoint.as_bytes());
    add(
        Table::Class,
        address("10.0.0.2").as_bytes(),
        peer.as_bytes(),
    );
    add(Table::Verdict, key.as_bytes(), segment.as_bytes());
    add(Table::Range, base.as_bytes(), range.as_bytes());
    maps
}

#[test]
fn canonical_dumps_do_not_depend_on_internal_numbers() {
    let one = maps(0, 5, 2, 100);
    let other = maps(1, 8, 3, 4);
    assert_ne!(raw(&one), raw(&other));
    assert_eq!(canonical(&one), canonical(&other));
    let verdicts = &canonical(&one).tables["verdict"];
    assert!(
        verdicts[0].value.ends_with(":[6/80-6/80#0000004d]"),
        "{verdicts:?}"
    );
}

#[test]
fn canonical_dumps_depend_on_everything_else() {
    let one = canonical(&maps(0, 5, 2, 100));
    let mut changed = maps(0, 5, 2, 100);
    let range = Range {
        first: range_bound(6, 80),
        last: range_bound(6, 81),
        rule: 77,
        reserved: 0,
    };
    let ranges = changed.tables.get_mut(&Table::Range).unwrap();
    ranges.insert(100_u32.as_bytes().to_vec(), range.as_bytes().to_vec());
    assert_ne!(canonical(&changed), one);

    let mut changed = maps(0, 5, 2, 100);
    let class = Class { versions: [2, 9] };
    let classes = changed.tables.get_mut(&Table::Class).unwrap();
    classes.insert(
        address("10.0.0.3").as_bytes().to_vec(),
        class.as_bytes().to_vec(),
    );
    assert_ne!(canonical(&changed), one);
}

#[test]
fn flows_are_told_from_the_opener() {
    let (client, backend) = (address("10.0.0.9"), address("10.0.0.1"));
    let (key, side) = FlowKey::new(&client, 40000, &backend, 8080, 6);
    let mut flow = Flow {
        flags: BACKEND_SIDE | NAT,
        nat_address: address("10.96.0.1"),
        nat_port: 80,
        ..Flow::default()
    };
    if side == Side::High {
        flow.flags |= OPENER_HIGH;
    }
    flow.packets[side as usize] = 5;
    let lead = Flow {
        flags: FRONTEND_SIDE | NAT,
        ..Flow::default()
    };
    let rows = flow_rows(&[(key, flow), (key, lead)]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].source.to_string(), "10.0.0.9");
    assert_eq!(rows[0].destination_port, 8080);
    assert_eq!(rows[0].packets, [5, 0]);
    assert_eq!(rows[0].service, Some(("10.96.0.1".parse().unwrap(), 80)));
}

#[tokio::test]
async fn records_are_followed_until_the_agent_ends() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let of_length = |length| Record {
        length,
        ..record(&event())
    };
    let provider = provider();
    let push = |length| provider.recent.lock().unwrap().push(of_length(length));
    (1..=3).for_each(push);

    let (stop, stopped) = oneshot::channel::<()>();
    let listening = socket.clone();
    let server = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move {
            serve(&listening, provider, async {
                let _ = stopped.await;
            })
            .await
        }
    });
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (seen_in, mut seen) = mpsc::unbounded_channel();
    let client = Client::new(&socket);
    let follower = tokio::spawn(async move {
        let each = |line: Followed<Box<Record>>| {
            seen_in.send(line).unwrap();
            ControlFlow::Continue(())
        };
        client.follow("/v1/flow-records/follow", each).await
    });
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(5), seen.recv());
        match next.await.expect("comes in time").expect("a line") {
            Followed::Told(record) => Ok(record.length),
            Followed::Lost { lost } => Err(lost),
        }
    };
    // What is kept, then what comes.
    assert_eq!((next().await, next().await), (Ok(2), Ok(3)));
    push(4);
    assert_eq!(next().await, Ok(4));
    // Nobody reads meanwhile.
    (5..=5_000).for_each(push);
    let lost = next().await.expect_err("more than a reader may be behind");
    assert_eq!(next().await, Ok(5 + u32::try_from(lost).unwrap()));

    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), server);
    ended.await.expect("ends in time").unwrap().unwrap();
    let followed = follower.await.unwrap().unwrap();
    assert!(followed.is_continue(), "the agent has ended");
}

#[test]
fn the_nodes_own_addresses_are_the_node() {
    let node = Node {
        name: "n1".to_owned(),
        addresses: ["192.0.2.1", "fd00::1"]
            .map(|it| it.parse().unwrap())
            .into(),
        ..Node::default()
    };
    let mut snapshot = Snapshot {
        node_name: "n1".to_owned(),
        ..Snapshot::default()
    };
    snapshot.nodes.insert("n1".to_owned(), Arc::new(node));
    snapshot.devices = DeviceFacts {
        addresses: ["192.0.2.1", "10.0.1.1", "fd00:1::1"]
            .map(|it| it.parse().unwrap())
            .into(),
        ..DeviceFacts::default()
    };
    for (address, known_as) in [
        ("10.0.1.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("fd00:1::1", "fd00::1"),
        ("10.0.1.2", "10.0.1.2"),
    ] {
        let mut probe = record(&event());
        probe.verdict = Outcome::Forwarded;
        probe.source.address = address.parse().unwrap();
        let seen = connections(&[], &[probe], &snapshot);
        assert_eq!(seen[0].from.address.to_string(), known_as);
    }
}

#[tokio::test]
async fn top_is_told_to_all_who_ask_and_to_nobody_who_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let provider = provider();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn({
        let (provider, socket) = (Arc::clone(&provider), socket.clone());
        async move {
            serve(&socket, provider, async {
                let _ = stopped.await;
            })
            .await
        }
    });
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(provider.top.receiver_count(), 0);
    let follow = |wanted: usize| {
        let client = Client::new(&socket);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let each = |line: Followed<Activity>| {
                seen.push(line);
                if seen.len() < wanted {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            };
            let ended = client.follow("/v1/top/follow", each).await.unwrap();
            (seen, ended)
        })
    };
    let asked_by = async |count: usize| {
        let asked = async {
            while provider.top.receiver_count() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(5), asked).await;
        in_time.unwrap_or_else(|_| panic!("{} ask, not {count}", provider.top.receiver_count()));
    };
    let [one, all] = [follow(1), follow(9)];
    asked_by(2).await;
    let activity = |flows| Activity {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        node: "n1".to_owned(),
        seconds: 1.25,
        flows,
        ..Activity::default()
    };
    provider.top.send(Arc::new(activity(1))).unwrap();
    let told = |flows| Followed::Told(activity(flows));
    assert_eq!(one.await.unwrap(), (vec![told(1)], ControlFlow::Break(())));
    // Whoever has seen enough is counted for no more.
    while provider.top.receiver_count() > 1 {
        provider.top.send(Arc::new(activity(2))).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    let (seen, ended) = all.await.unwrap();
    assert_eq!((&seen[0], ended), (&told(1), ControlFlow::Continue(())));
    asked_by(0).await;
}

#[test]
fn connections_are_counted_once_and_only_where_they_were_let_through() {
    let tracked = |client: u16, port: u16, protocol: u8| {
        let (client_end, server) = (address("10.0.0.1"), address("10.0.0.2"));
        let (key, side) = FlowKey::new(&client_end, client, &server, port, protocol);
        let flags = match side {
            Side::Low => BACKEND_SIDE,
            Side::High => BACKEND_SIDE | OPENER_HIGH,
        };
        let flow = Flow {
            flags,
            ..Flow::default()
        };
        (key, flow)
    };
    let table = [
        tracked(40_000, 8080, 6),
        tracked(40_002, 8080, 6),
        tracked(40_002, 8080, 17),
        tracked(8, 0, 1),
    ];
    let forwarded = Record {
        verdict: Outcome::Forwarded,
        ..record(&event())
    };
    let dropped = Record {
        verdict: Outcome::Dropped,
        ..forwarded.clone()
    };
    let mut again = forwarded.clone();
    again.source.port += 1;
    let seen = connections(
        &table,
        &[forwarded.clone(), dropped, again, forwarded.clone()],
        &Snapshot::default(),
    );
    let backend = forwarded.backend.unwrap();
    let of_records = Seen {
        from: SeenEnd {
            address: forwarded.source.address,
            pod: Some(ObjectName::new("shop", "client")),
        },
        to: SeenEnd {
            address: backend.address,
            pod: Some(ObjectName::new("shop", "server")),
        },
        protocol: Protocol::Tcp,
        port: backend.port,
        connections: 2,
    };
    let of_table = |protocol, connections| Seen {
        from: SeenEnd {
            address: "10.0.0.1".parse().unwrap(),
            pod: None,
        },
        to: SeenEnd {
            address: "10.0.0.2".parse().unwrap(),
            pod: None,
        },
        protocol,
        port: 8080,
        connections,
    };
    let mut expected = vec![
        of_table(Protocol::Tcp, 1),
        of_table(Protocol::Udp, 1),
        of_records,
    ];
    expected.sort();
    assert_eq!(seen, expected);
}
