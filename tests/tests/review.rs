//! Random changes of random clusters: a review tells of exactly those connections that the oracle judges otherwise after than before.
//!
//! `WEIR_CASES` sets how many clusters (seeds from 0 on), `WEIR_SEED` replays one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir::model::{Object, Protocol};
use weir::review::{Change, End, Family, Proposal, Review, review};
use weir_oracle::generate::{cluster, flows};
use weir_oracle::{Cluster, Flow, addresses, judge_cluster_wide, owner, parse_address, protocol};
use weir_tests::policy::{DEVICES, View};

const CASES: u64 = 60;

fn seeds() -> Vec<u64> {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    match number("WEIR_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("WEIR_CASES").unwrap_or(CASES)).collect(),
    }
}

/// A cluster of which every namespace is known, as an API server has it.
fn whole(seed: u64) -> Cluster {
    let mut cluster = cluster(seed);
    let mentioned = cluster.pods.iter().map(|pod| &pod.metadata);
    let mentioned = mentioned.chain(cluster.policies.iter().map(|policy| &policy.metadata));
    let mentioned: BTreeSet<String> = mentioned
        .map(|metadata| {
            metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned())
        })
        .collect();
    for name in mentioned {
        let known = |namespace: &Namespace| namespace.metadata.name.as_ref() == Some(&name);
        if !cluster.namespaces.iter().any(known) {
            cluster.namespaces.push(Namespace {
                metadata: ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            });
        }
    }
    cluster
}

/// The cluster after a change: some policies go, those of another cluster come, and two pods change their labels.
fn changed(before: &Cluster, seed: u64) -> Cluster {
    let mut after = before.clone();
    let keep = |number: usize| !(number as u64 + seed).is_multiple_of(3);
    let mut number = 0..;
    after
        .policies
        .retain(|_| keep(number.next().unwrap_or_default()));
    after
        .cluster_policies
        .retain(|_| keep(number.next().unwrap_or_default()));
    let namespaces: BTreeSet<_> = after
        .pods
        .iter()
        .map(|pod| pod.metadata.namespace.clone())
        .collect();
    let others = cluster(seed + 1_000_000);
    for mut policy in others.policies.into_iter().take(2) {
        if namespaces.contains(&policy.metadata.namespace) {
            policy.metadata.name = policy.metadata.name.map(|name| format!("{name}-new"));
            after.policies.push(policy);
        }
    }
    if seed.is_multiple_of(2)
        && let [first, .., last] = &mut after.pods[..]
    {
        std::mem::swap(&mut first.metadata.labels, &mut last.metadata.labels);
    }
    if seed.is_multiple_of(5)
        && let [first, .., last] = &mut after.namespaces[..]
    {
        std::mem::swap(&mut first.metadata.labels, &mut last.metadata.labels);
    }
    after
}

fn objects(cluster: &Cluster) -> Vec<Object> {
    let devices = std::array::from_fn::<u32, DEVICES, _>(|index| 101 + index as u32);
    let view = View::new(cluster, "node-1", &devices).expect("usable objects");
    view.snapshot.objects().collect()
}

fn reviewed(before: &Cluster, after: &Cluster) -> Review {
    review(&Proposal {
        cluster: objects(before),
        manifests: objects(after),
        replaces: true,
        ..Proposal::default()
    })
}

/// A cluster with its addresses.
struct Owners<'a> {
    cluster: &'a Cluster,
    nodes: Vec<(IpAddr, &'a str)>,
}

impl<'a> Owners<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let mut nodes = Vec::new();
        for node in &cluster.nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let status = node
                .status
                .as_ref()
                .and_then(|status| status.addresses.as_ref());
            let addresses = status.into_iter().flatten();
            let addresses = addresses.filter_map(|address| parse_address(&address.address));
            nodes.extend(addresses.map(|address| (address, name)));
        }
        // What a host-network pod shows is its node's, also where the Node does not show it.
        for pod in cluster.pods.iter().filter(|pod| on_host_network(pod)) {
            let spec = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let node = spec.unwrap_or_default();
            nodes.extend(addresses(pod).into_iter().map(|address| (address, node)));
        }
        Self { cluster, nodes }
    }

    fn pod(&self, address: IpAddr) -> Option<&'a Pod> {
        owner(self.cluster, address)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.nodes.iter().any(|(known, _)| *known == address)
    }

    fn is(&self, end: &End, address: IpAddr) -> bool {
        let pod = self.pod(address).map(|pod| &pod.metadata);
        match end {
            End::Pods {
                namespace,
                workload,
                ..
            } => pod.is_some_and(|pod| {
                pod.name.as_ref() == Some(workload)
                    && pod.namespace.as_deref().unwrap_or("default") == namespace
            }),
            End::Nodes { addresses } => addresses.contains(&address),
            End::Outside { cidr, except } => {
                pod.is_none()
                    && !self.is_node(address)
                    && cidr.contains(address)
                    && !except.iter().any(|inner| inner.contains(address))
            }
        }
    }

    /// Whether a review speaks of such connections: not of what the kubelet of the pod's node may always do, of a pod with itself, and of protocols
    /// without ports.
    fn is_reviewed(&self, flow: &Flow) -> bool {
        let (source, destination) = (self.pod(flow.source), self.pod(flow.destination));
        let itself = source
            .zip(destination)
            .is_some_and(|(one, other)| std::ptr::eq(one, other));
        let own_node = destination
            .and_then(|pod| pod.spec.as_ref()?.node_name.as_deref())
            .is_some_and(|node| self.nodes.contains(&(flow.source, node)));
        (source.is_some() || destination.is_some())
            && !itself
            && !own_node
            && !flow.born_on_node
            && flow.destination_port != 0
            && transport(flow).is_some()
    }

    fn tells(&self, changes: &[Change], flow: &Flow) -> bool {
        let Some(protocol) = transport(flow) else {
            return false;
        };
        let family = if flow.source.is_ipv4() {
            Family::IPv4
        } else {
            Family::IPv6
        };
        changes.iter().any(|change| {
            change.from.iter().any(|end| self.is(end, flow.source))
                && change.to.iter().any(|end| self.is(end, flow.destination))
                && change
                    .ports
                    .iter()
                    .any(|ports| ports.holds(protocol, flow.destination_port))
                && (change.families.is_empty() || change.families.contains(&family))
        })
    }
}

fn on_host_network(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    !ended
        && pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true))
}

fn transport(flow: &Flow) -> Option<Protocol> {
    match flow.protocol {
        protocol::TCP => Some(Protocol::Tcp),
        protocol::UDP => Some(Protocol::Udp),
        protocol::SCTP => Some(Protocol::Sctp),
        _ => None,
    }
}

/// How often a review is right, by what it says, and the first flow of which it is not.
#[derive(Default)]
struct Tally {
    opened: usize,
    closed: usize,
    same: usize,
    wrong: Option<String>,
}

fn compare(tally: &mut Tally, review: &Review, before: &Cluster, after: &Cluster) {
    let owners = Owners::of(before);
    let asked: BTreeSet<Flow> = flows(before).into_iter().chain(flows(after)).collect();
    for flow in asked.iter().filter(|flow| owners.is_reviewed(flow)) {
        let [was, is] = [before, after].map(|cluster| judge_cluster_wide(cluster, flow).allowed());
        let told = (
            owners.tells(&review.opened, flow),
            owners.tells(&review.closed, flow),
        );
        match (told, was, is) {
            ((true, false), false, true) => tally.opened += 1,
            ((false, true), true, false) => tally.closed += 1,
            ((false, false), was, is) if was == is => tally.same += 1,
            _ => {
                let text =
                    || format!("{flow:?} was {was} and is {is}, told as (opened, closed) {told:?}");
                tally.wrong.get_or_insert_with(text);
            }
        }
    }
}

#[test]
fn a_review_tells_of_every_connection_that_changes_and_of_no_other() {
    let mut tally = Tally::default();
    let seeds = seeds();
    for seed in &seeds {
        let before = whole(*seed);
        let after = changed(&before, *seed);
        compare(&mut tally, &reviewed(&before, &after), &before, &after);
        assert_eq!(tally.wrong, None, "seed {seed}");
    }
    println!(
        "{} opened, {} closed, {} the same",
        tally.opened, tally.closed, tally.same
    );
    // One cluster alone may have none of a kind.
    let least = 100 * (seeds.len() - 1);
    assert!(tally.opened >= least && tally.closed >= least && tally.same > least);
}

#[test]
fn a_change_that_a_review_leaves_out_is_caught() {
    let caught = (0..40).filter(|seed| {
        let before = whole(*seed);
        let after = changed(&before, *seed);
        let mut review = reviewed(&before, &after);
        let (opened, closed) = (review.opened.pop(), review.closed.pop());
        let mut tally = Tally::default();
        compare(&mut tally, &review, &before, &after);
        (opened.is_some() || closed.is_some()) && tally.wrong.is_some()
    });
    let caught = caught.count();
    assert!(caught > 20, "{caught} of 40");
}
