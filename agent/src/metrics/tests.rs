use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use weir_common::abi::{Counter, Hook};
use weir_common::reason::Reason;

use super::*;
use crate::compile::WithoutLocal;
use crate::flows::Outcome;
use crate::flows::tests::{event, record};
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
    let walked = crate::flows::Counts {
        entries: 8,
        flows_ended: 20,
        entries_ended: 30,
        entries_lost: 6,
    };
    tally.walked(walked, 5);
    tally.logged(40, 2);
    tally.drifted("class", 2);
    tally.unprotected(Duration::from_millis(20));
    for verdict in [Outcome::Dropped, Outcome::Dropped, Outcome::Forwarded] {
        tally.flow(FlowKind {
            verdict,
            direction: Direction::Ingress,
            protocol: "TCP",
        });
    }
    for _ in 0..2 {
        tally.talked(&record(&event()));
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

/// A rule of deploy/alerts.yaml.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(serde::Deserialize)]
struct Alerts {
    groups: Vec<Group>,
}

/// What an agent writes: names of series, with the labels that they have.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let text = encode(sample(), &tally());
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let (name, labels) = line.split_once(['{', ' ']).expect("a value");
        let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let known = series.entry(name.to_owned()).or_default();
        known.extend(labels.map(|(name, _)| name.to_owned()));
    }
    series
}

/// Words of an expression or text that are in no string.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let outside = text.split('"').step_by(2);
    outside.flat_map(|part| part.split(|it: char| !it.is_alphanumeric() && it != '_'))
}

#[test]
fn alerts_ask_for_what_agents_tell_and_each_has_its_runbook() {
    let alerts: Alerts =
        serde_saphyr::from_str(include_str!("../../../deploy/alerts.yaml")).unwrap();
    let runbooks = include_str!("../../../deploy/runbooks.md");
    let series = series();
    let mut headings: BTreeSet<_> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    // What Prometheus itself adds to each target.
    let targets = ["job", "instance"].map(str::to_owned);
    for rule in alerts.groups.into_iter().flat_map(|group| group.rules) {
        let name = &rule.alert;
        let asked: BTreeSet<_> = words(&rule.expr)
            .filter(|word| word.starts_with("weir_") || word.starts_with("kubeproxy_"))
            .collect();
        let labels: BTreeSet<_> = asked
            .iter()
            .flat_map(|asked| {
                series
                    .get(*asked)
                    .unwrap_or_else(|| panic!("{name}: {asked}"))
            })
            .chain(&targets)
            .map(String::as_str)
            .collect();
        assert!(!asked.is_empty() || rule.expr.starts_with("up{"), "{name}");
        // In braces each word before a comparison is a label.
        for selector in rule.expr.split('{').skip(1) {
            let selector = selector.split('}').next().unwrap_or_default();
            for condition in selector.split(',') {
                let label = words(condition).next().unwrap_or_default();
                assert!(labels.contains(label), "{name}: {label}");
            }
        }
        for text in rule.annotations.values() {
            for label in text
                .split("$labels.")
                .skip(1)
                .filter_map(|it| words(it).next())
            {
                assert!(labels.contains(label), "{name}: {label}");
            }
        }
        for needed in ["summary", "description", "runbook_url"] {
            assert!(rule.annotations.contains_key(needed), "{name}: {needed}");
        }
        let severity = rule.labels["severity"].as_str();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
        let minutes = rule.r#for.as_deref().map(|it| it.strip_suffix('m'));
        assert_ne!(minutes, Some(None), "{name}: a time in minutes");
        let anchor = format!("runbooks.md#{}", name.to_lowercase());
        assert_eq!(rule.annotations["runbook_url"], anchor, "{name}");
        assert!(headings.remove(name.as_str()), "{name} has no runbook");
    }
    assert_eq!(headings, BTreeSet::new(), "runbooks of no alert");
}

#[test]
fn dashboards_show_what_agents_tell() {
    let series = series();
    for text in [
        include_str!("../../../deploy/dashboards/agent.json"),
        include_str!("../../../deploy/dashboards/services.json"),
        include_str!("../../../deploy/dashboards/policies.json"),
        include_str!("../../../deploy/dashboards/flows.json"),
    ] {
        let board: serde_json::Value = serde_json::from_str(text).unwrap();
        let panels = board["panels"].as_array().unwrap();
        let targets = panels
            .iter()
            .flat_map(|it| it["targets"].as_array().unwrap());
        for expression in targets.map(|target| target["expr"].as_str().unwrap()) {
            let asked: BTreeSet<_> = words(expression)
                .filter(|word| {
                    ["weir_", "kubeproxy_", "process_", "rest_client_"]
                        .iter()
                        .any(|it| word.starts_with(it))
                })
                .collect();
            assert!(!asked.is_empty(), "{expression}");
            let known = |name: &&str| {
                series
                    .get(*name)
                    .unwrap_or_else(|| panic!("{expression}: {name}"))
            };
            let labels: BTreeSet<&str> = asked.iter().flat_map(known).map(String::as_str).collect();
            // In braces each word before a comparison is a label, and so is each after `by`.
            let selected = expression
                .split('{')
                .skip(1)
                .filter_map(|it| it.split('}').next());
            let compared = selected
                .flat_map(|it| it.split(','))
                .filter_map(|it| words(it.trim()).next());
            let grouped = expression
                .split("by (")
                .skip(1)
                .filter_map(|it| it.split(')').next());
            for label in compared.chain(grouped.flat_map(|it| it.split(", "))) {
                assert!(
                    label == "instance" || labels.contains(label),
                    "{expression}: {label}"
                );
            }
        }
    }
}
