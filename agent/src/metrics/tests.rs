use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use weir_common::abi::{Counter, Hook};
use weir_common::reason::Reason;

use super::*;
use crate::compile::WithoutLocal;
use crate::flows::Outcome;
use crate::model::{Direction, Kind, Request};

fn sample() -> Sample {
    let fill = |entries, capacity| Fill { entries, capacity };
    let counter = |packets, bytes| Counter { packets, bytes };
    let request = Request {
        method: "GET".to_owned(),
        host: "192.0.2.1:6443".to_owned(),
        code: "200".to_owned(),
    };
    Sample {
        version: "1.2.3".to_owned(),
        last_sync: Some(1_700_000_000.25),
        watches: [(Kind::Service, true), (Kind::Pod, false)].into(),
        watch_errors: [(Kind::Pod, 3)].into(),
        rejected: [("File", 1), ("Service", 2)].into(),
        maps: [("endpoint", fill(6, 512)), ("slot", fill(1, 4096))].into(),
        packets: vec![
            (Hook::FromPod, Reason::Established, counter(10, 1000)),
            (Hook::ToPod, Reason::PolicyDenied, counter(2, 148)),
            (Hook::FromPod, Reason::NoEndpoint, counter(1, 74)),
        ],
        conntrack: fill(8, 262_144),
        conntrack_inserted: 65,
        events_lost: 4,
        epoch: 2,
        attached: 3,
        attached_nets: 1,
        attached_xdp: 1,
        requests: [(request, 7)].into(),
        process: Process {
            cpu_seconds: 1.5,
            start_seconds: 1_700_000_000.0,
            resident_bytes: 1 << 20,
            virtual_bytes: 1 << 30,
            open_fds: 40,
            max_fds: 1024,
        },
        without_local: [
            WithoutLocal {
                internal: 1,
                external: 2,
            },
            WithoutLocal::default(),
        ],
    }
}

fn tally() -> Arc<Tally> {
    let tally = Tally::default();
    tally.took(Stage::Write, Duration::from_millis(3));
    tally.failed(Stage::Attach);
    tally.expired(5);
    tally.drifted("class", 2);
    tally.unprotected(Duration::from_millis(20));
    for verdict in [Outcome::Dropped, Outcome::Dropped, Outcome::Forwarded] {
        tally.flow(FlowKind {
            verdict,
            direction: Direction::Ingress,
            protocol: "TCP",
        });
    }
    tally.proxy(|proxy| {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        proxy.services.total = 3;
        proxy.services.pending = 1;
        proxy.endpoints.total = 4;
        proxy.queued(at(1_700_000_001));
        proxy.took(true, Duration::from_millis(30));
        proxy.took(false, Duration::from_millis(2));
        proxy.programmed(true, Duration::from_millis(400));
        proxy.answered(Asked::Healthz, 200);
        proxy.answered(Asked::Healthz, 200);
        proxy.answered(Asked::Healthz, 503);
        proxy.answered(Asked::Livez, 200);
    });
    Arc::new(tally)
}

#[test]
fn text_is_as_documented() {
    insta::assert_snapshot!(encode(sample(), &tally()));
}

#[test]
fn text_has_every_metric_of_the_table_once_and_no_other() {
    let text = encode(sample(), &tally());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let table: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(table.len(), ALL.len());
    assert_eq!(names.len(), ALL.len());
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), table);
}

#[test]
fn the_page_for_operators_lists_every_metric_and_no_other() {
    let page = include_str!("../../../deploy/metrics.md");
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = cells.filter_map(|line| line.split(" |").next());
    let listed: Vec<_> = cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    let table: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(listed.len(), ALL.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), table);
}
