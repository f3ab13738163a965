//! What nearly every workload needs, and default-deny takes away first: names, the API server, being measured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::pairs::{pod_spot, spot};
use super::super::parties::{Class, Ground, Party};
use super::super::worlds::is_dns_pod;
use super::super::{Decision, End, Family};
use super::{Finding, Guard};
use crate::explain::{self, Fix, PortName, Question, Spot, Subject, dns};
use crate::model::{ObjectName, Pod, Protocol, Service};

/// Port of name servers (RFC 1035).
const DNS_PORT: u16 = 53;
/// The Service of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
/// Labels of Prometheus, by its operator, its chart and old manifests.
const SCRAPERS: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "prometheus"),
    ("app", "prometheus"),
];
/// Names by which containers tell the port of their metrics.
const METRICS: [&str; 2] = ["metrics", "http-metrics"];

pub(super) fn findings(ground: &Ground<'_>) -> Vec<Finding> {
    let mut findings = names(ground);
    findings.extend(api_server(ground));
    findings.extend(metrics(ground));
    findings
}

/// An address that is needed at a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    address: IpAddr,
    protocol: Protocol,
    port: u16,
}

/// What is lost by some pods for one reason.
#[derive(Default)]
struct Losses(BTreeMap<(String, Vec<Decision>), Loss>);

#[derive(Default)]
struct Loss {
    who: Vec<End>,
    fixes: Vec<Fix>,
}

impl Losses {
    fn add(&mut self, what: String, because: Vec<Decision>, who: Vec<End>, fixes: Vec<Fix>) {
        let loss = self.0.entry((what, because)).or_default();
        loss.who.extend(who);
        for fix in fixes {
            if !loss.fixes.contains(&fix) {
                loss.fixes.push(fix);
            }
        }
    }

    fn findings(self, guard: Guard, sentence: &str, hint: &str) -> Vec<Finding> {
        let each = self.0.into_iter().map(|((what, because), loss)| {
            let who: BTreeSet<String> = loss.who.iter().map(spoken).collect();
            let who: Vec<_> = who.into_iter().collect();
            let policies = because.iter().flat_map(Decision::all_policies);
            Finding {
                guard,
                message: format!("{} {sentence} {what}", who.join(", ")),
                hint: hint.to_owned(),
                policies: policies.cloned().collect(),
                locations: Vec::new(),
                fixes: loss.fixes,
            }
        });
        each.collect()
    }
}

fn spoken(end: &End) -> String {
    match end {
        End::Pods {
            namespace,
            workload,
            ..
        } => format!("{namespace}/{workload}"),
        End::Nodes { .. } => "nodes".to_owned(),
        End::Outside { cidr, .. } => cidr.to_string(),
    }
}

/// Whether none of the targets is reached, and why not the first.
fn cut_off<'a>(
    ground: &Ground<'a>,
    world: usize,
    class: &Class,
    targets: &[Target],
) -> Option<Vec<Decision>> {
    let mut because = None;
    for target in targets {
        let family = Family::of(target.address);
        let world_of = &ground.worlds[world];
        let there: Spot<'a> = world_of.spot(target.address);
        // A pod that is asked about itself would always pass.
        let mut own = class
            .pods
            .iter()
            .filter(|name| there.pod.is_none_or(|pod| pod.name != **name));
        let Some(source) = own.find_map(|name| pod_spot(world_of, name, family)) else {
            continue;
        };
        let judged = ground.judge(world, &source, &there, target.protocol, target.port);
        if judged.passes() {
            return None;
        }
        because.get_or_insert_with(|| judged.denials());
    }
    because
}

/// Pods that cannot look names up: those that could, and new ones.
fn names(ground: &Ground<'_>) -> Vec<Finding> {
    let mut losses = Losses::default();
    let servers = [Protocol::Udp, Protocol::Tcp]
        .map(|protocol| [0, 1].map(|world| name_servers(ground, world, protocol)));
    for class in ground.classes() {
        let lost = servers.each_ref().map(|[before, after]| {
            let because = cut_off(ground, 1, class, after)?;
            let had = !before.is_empty() && cut_off(ground, 0, class, before).is_none();
            (is_new(ground, class) || had).then_some(because)
        });
        let what = match &lost {
            [Some(_), Some(_)] => "UDP and TCP",
            [Some(_), None] => "UDP",
            [None, Some(_)] => "TCP, which long answers need",
            [None, None] => continue,
        };
        let [udp, tcp] = &servers;
        let targets = if lost[0].is_some() { &udp[1] } else { &tcp[1] };
        let fixes = fixes(ground, class, targets);
        let because = lost.into_iter().flatten().next().unwrap_or_default();
        losses.add(what.to_owned(), because, ground.ends_of(class), fixes);
    }
    losses.findings(
        Guard::Dns,
        "cannot look names up by",
        "allow egress to the cluster's DNS pods, by UDP and TCP",
    )
}

/// Whether no pod of a class was there before.
fn is_new(ground: &Ground<'_>, class: &Class) -> bool {
    let mut pods = class.pods.iter();
    pods.all(|name| ground.of.fresh.contains(name))
}

/// Where the cluster's name servers are asked: behind their Services, else the pods that are called so.
fn name_servers(ground: &Ground<'_>, world: usize, protocol: Protocol) -> Vec<Target> {
    let snapshot = ground.worlds[world].snapshot;
    let services = snapshot.services.values();
    let services: Vec<_> = services
        .filter(|service| dns::is_cluster_dns(service))
        .collect();
    if services.is_empty() {
        let pods = snapshot.pods.values().filter(|pod| is_dns_pod(pod));
        let addresses = pods.flat_map(|pod| &pod.ips);
        let targets = addresses.map(|address| Target {
            address: *address,
            protocol,
            port: DNS_PORT,
        });
        return targets.collect();
    }
    let targets = services.into_iter().flat_map(|service| {
        let targets = behind(ground, world, service, DNS_PORT);
        targets
            .into_iter()
            .filter(|target| target.protocol == protocol)
    });
    targets.collect()
}

/// What is behind a port of a Service.
fn behind(ground: &Ground<'_>, world: usize, service: &Service, number: u16) -> Vec<Target> {
    let slices = ground.worlds[world].snapshot.slices.values();
    let slices: Vec<_> = slices
        .filter(|slice| slice.service == service.name)
        .collect();
    let mut targets = Vec::new();
    for port in service.ports.iter().filter(|port| port.port == number) {
        for slice in &slices {
            let listed = slice
                .ports
                .iter()
                .filter(|it| it.name == port.name && it.protocol == port.protocol);
            for listed in listed {
                targets.extend(slice.endpoints.iter().map(|endpoint| Target {
                    address: endpoint.address,
                    protocol: listed.protocol,
                    port: listed.port,
                }));
            }
        }
    }
    targets
}

/// Pods that reached the API server and do not any more.
fn api_server(ground: &Ground<'_>) -> Vec<Finding> {
    let name = ObjectName::new(API_SERVER.0, API_SERVER.1);
    let targets = [0, 1].map(|world| {
        let service = ground.worlds[world].snapshot.services.get(&name);
        let ports = service.into_iter().flat_map(|service| {
            let ports = service.ports.iter().map(|port| port.port);
            ports.flat_map(|port| behind(ground, world, service, port))
        });
        ports.collect::<Vec<_>>()
    });
    let mut losses = Losses::default();
    for class in ground.classes() {
        if is_new(ground, class)
            || targets[0].is_empty()
            || cut_off(ground, 0, class, &targets[0]).is_some()
        {
            continue;
        }
        if let Some(because) = cut_off(ground, 1, class, &targets[1]) {
            let fixes = fixes(ground, class, &targets[1]);
            losses.add(String::new(), because, ground.ends_of(class), fixes);
        }
    }
    let mut findings = losses.findings(
        Guard::ApiServer,
        "cannot reach the API server any more",
        "pods that ask it need egress to its endpoints, which are nodes' addresses (an ipBlock), not to its cluster IP",
    );
    for finding in &mut findings {
        finding.message = finding.message.trim_end().to_owned();
    }
    findings
}

/// Policies that bring the targets back to a class.
fn fixes(ground: &Ground<'_>, class: &Class, targets: &[Target]) -> Vec<Fix> {
    let answers = targets.iter().filter_map(|target| {
        let question = Question {
            source: Subject::Pod(class.pods[0].clone()),
            destination: Subject::Address(target.address),
            port: Some(PortName::Number(target.port)),
            protocol: Some(target.protocol),
        };
        explain::explain(ground.worlds[1].snapshot, &question).ok()
    });
    answers.flat_map(|answer| answer.fixes).collect()
}

/// Metrics that somebody read.
fn metrics(ground: &Ground<'_>) -> Vec<Finding> {
    let snapshot = ground.worlds[1].snapshot;
    let scrapes = |pod: &Pod| {
        let mut labels = SCRAPERS.iter();
        labels.any(|(key, value)| pod.labels.get(*key).map(String::as_str) == Some(*value))
    };
    let is_scraper = |class: &&Class| {
        let mut pods = class.pods.iter().filter_map(|name| snapshot.pods.get(name));
        pods.any(|pod| scrapes(pod))
    };
    let scrapers: Vec<&Class> = ground.classes().filter(is_scraper).collect();
    let mut losses = Losses::default();
    for class in ground.classes() {
        for port in metrics_ports(ground, class) {
            for scraper in &scrapers {
                if std::ptr::eq(*scraper, class) {
                    continue;
                }
                let ask = |world: usize| {
                    let world_of = &ground.worlds[world];
                    [Family::IPv4, Family::IPv6].into_iter().find_map(|family| {
                        let from = spot(world_of, &Party::Pods((*scraper).clone()), family, 0)?;
                        let to = spot(world_of, &Party::Pods(class.clone()), family, 0)?;
                        Some(ground.judge(world, &from, &to, Protocol::Tcp, port))
                    })
                };
                let (Some(was), Some(is)) = (ask(0), ask(1)) else {
                    continue;
                };
                if was.passes() && !is.passes() {
                    let who = ground.ends_of(class);
                    losses.add(format!("at port {port}"), is.denials(), who, Vec::new());
                }
            }
        }
    }
    losses.findings(
        Guard::Metrics,
        "cannot be scraped by Prometheus any more",
        "allow ingress to the port of the metrics from Prometheus' pods, by namespaceSelector and podSelector",
    )
}

/// The ports at which the pods of a class are scraped: those that they ask to be scraped at, and those that are called so.
fn metrics_ports(ground: &Ground<'_>, class: &Class) -> BTreeSet<u16> {
    let pods = class
        .pods
        .iter()
        .filter_map(|name| ground.worlds[1].snapshot.pods.get(name));
    let ports = pods.flat_map(|pod| {
        let called = pod
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Tcp && METRICS.contains(&port.name.as_str()));
        called.map(|port| port.port).chain(pod.scraped)
    });
    ports.collect()
}
