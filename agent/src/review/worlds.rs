//! The cluster before and after, each with every pod that will be there, so that only policies and labels make a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::Proposal;
use super::workload::{self, is_stand_in, workload_of};
use crate::explain::{behind, dns, rules};
use crate::model::{
    ContainerPort, Endpoint, EndpointSlice, Event, Kind, Labels, Namespace, Object, ObjectName,
    Peer, Pod, Protocol, Service, SlicePort, Snapshot,
};
use crate::state::State;

/// Where most distributions have their DNS pods.
const DNS_NAMESPACE: &str = "kube-system";
/// The pod that stands for the cluster's DNS where nothing tells of it.
const ASSUMED_DNS: &str = "dns (assumed)";
/// Pods are taken from here where nothing tells where they are: the defaults of kubeadm's and kind's documentation.
const RANGES: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 244, 0, 0)), 16),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0)),
        56,
    ),
];

/// Objects by kind and name.
type Layer = BTreeMap<(Kind, ObjectName), Object>;

/// Before and after.
pub(super) struct Worlds {
    pub(super) before: Snapshot,
    pub(super) after: Snapshot,
    /// Pods that there were not.
    pub(super) fresh: BTreeSet<ObjectName>,
    /// Where the objects are a cluster's, and not only what one repository holds of it.
    pub(super) complete: bool,
    /// A DNS pod was assumed.
    pub(super) assumed_dns: bool,
}

impl Worlds {
    pub(super) fn new(proposal: &Proposal) -> Self {
        let mut before = layer(&proposal.cluster);
        let mut over = layer(&proposal.manifests);
        drop_made_templates(&mut before);
        drop_made_templates(&mut over);
        let mut after = if proposal.replaces {
            Layer::new()
        } else {
            before.clone()
        };
        take_over(&mut before, &mut after, &over);
        after.extend(over);
        let complete = after.keys().any(|(kind, _)| *kind == Kind::Node);
        let assumed_dns = !complete && !knows_dns(&after);
        if assumed_dns {
            let pod = dns_pod();
            before.insert(pod.key(), pod.clone());
            after.insert(pod.key(), pod);
        }
        for layer in [&mut before, &mut after] {
            add_twins(layer);
            add_namespaces(layer);
        }
        let pods = after.keys().filter(|(kind, _)| *kind == Kind::Pod);
        let fresh = pods.filter(|key| !before.contains_key(key));
        let fresh: BTreeSet<ObjectName> = fresh.map(|(_, name)| name.clone()).collect();
        for (key, object) in &after {
            if !matches!(key.0, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy) {
                before.entry(key.clone()).or_insert_with(|| object.clone());
            }
        }
        give_addresses(&mut before, &mut after, &proposal.pod_ranges);
        for layer in [&mut before, &mut after] {
            add_slices(layer);
        }
        Self {
            before: snapshot(before),
            after: snapshot(after),
            fresh,
            complete,
            assumed_dns,
        }
    }
}

/// The cluster as it is, with the pods that there are.
pub(super) fn as_is(cluster: &[Object]) -> Snapshot {
    snapshot(layer(cluster))
}

fn layer(objects: &[Object]) -> Layer {
    let objects = objects.iter().map(|object| (object.key(), object.clone()));
    objects.collect()
}

fn snapshot(layer: Layer) -> Snapshot {
    let mut kinds: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
    for ((kind, _), object) in layer {
        kinds.entry(kind).or_default().push(object);
    }
    let mut state = State::new("");
    for (kind, objects) in kinds {
        state.apply(Event::Replaced(kind, objects));
    }
    state.snapshot().clone()
}

fn pods(layer: &Layer) -> impl Iterator<Item = &Pod> {
    layer.values().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    })
}

/// A dump of a cluster has workloads beside the pods that they made, and these tell more.
fn drop_made_templates(layer: &mut Layer) {
    let made: BTreeSet<ObjectName> = pods(layer).filter_map(workload_of).collect();
    layer.retain(|(kind, name), _| *kind != Kind::Pod || !made.contains(name));
}

/// A workload that is applied replaces the pods that it has: the newest of these is what it was before, and lends its addresses.
fn take_over(before: &mut Layer, after: &mut Layer, over: &Layer) {
    for stand_in in pods(over).filter(|pod| is_stand_in(&pod.name)) {
        let made = pods(before).filter(|pod| workload_of(pod).as_ref() == Some(&stand_in.name));
        let made: Vec<Pod> = made.cloned().collect();
        for pod in &made {
            let key = (Kind::Pod, pod.name.clone());
            before.remove(&key);
            after.remove(&key);
        }
        let alive = made.into_iter().filter(|pod| !pod.terminal);
        if let Some(newest) = alive.max_by_key(|pod| pod.created) {
            let pod = Object::Pod(Pod {
                name: stand_in.name.clone(),
                ..newest
            });
            before.insert(pod.key(), pod);
        }
    }
}

/// Whether anything tells who answers lookups.
fn knows_dns(layer: &Layer) -> bool {
    layer.values().any(|object| match object {
        Object::Service(service) => dns::is_cluster_dns(service),
        Object::Pod(pod) => is_dns_pod(pod),
        _ => false,
    })
}

/// Whether a pod is called what the cluster's DNS pods are.
pub(super) fn is_dns_pod(pod: &Pod) -> bool {
    pod.name.namespace == DNS_NAMESPACE
        && pod.labels.get(dns::LABEL.0).map(String::as_str) == Some(dns::LABEL.1)
}

fn dns_pod() -> Object {
    let port = |name: &str, protocol| ContainerPort {
        name: name.to_owned(),
        protocol,
        port: 53,
    };
    Object::Pod(Pod {
        name: ObjectName::new(DNS_NAMESPACE, ASSUMED_DNS),
        uid: ASSUMED_DNS.to_owned(),
        mirrors: None,
        labels: [(dns::LABEL.0.to_owned(), dns::LABEL.1.to_owned())].into(),
        ips: Vec::new(),
        host_network: false,
        terminal: false,
        node: String::new(),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        scraped: None,
        created: 0,
    })
}

/// A workload may have several pods, and what these say to each other is judged, too.
fn add_twins(layer: &mut Layer) {
    let stand_ins = pods(layer).filter(|pod| is_stand_in(&pod.name));
    let twins: Vec<_> = stand_ins
        .map(|pod| {
            Object::Pod(Pod {
                name: workload::twin(&pod.name),
                uid: workload::twin(&pod.name).to_string(),
                ips: Vec::new(),
                ..pod.clone()
            })
        })
        .collect();
    layer.extend(twins.into_iter().map(|twin| (twin.key(), twin)));
}

/// An API server takes no object without its namespace, so a namespace that is only mentioned exists too.
fn add_namespaces(layer: &mut Layer) {
    let mentioned: BTreeSet<String> = layer
        .keys()
        .map(|(_, name)| name.namespace.clone())
        .filter(|namespace| !namespace.is_empty())
        .collect();
    for name in mentioned {
        let namespace = Object::Namespace(Namespace::new(name, Labels::new()));
        layer.entry(namespace.key()).or_insert(namespace);
    }
}

/// Pods without addresses get some that nobody has, the same before and after: behind the last one that a pod has, or from the ranges
/// that were given; of the families that the cluster shows.
fn give_addresses(before: &mut Layer, after: &mut Layer, ranges: &[IpNetwork]) {
    let taken: BTreeSet<IpAddr> = [&*before, &*after].into_iter().flat_map(shown).collect();
    let of_pods: BTreeSet<IpAddr> = [&*before, &*after]
        .into_iter()
        .flat_map(pods)
        .filter(|pod| pod.owns_addresses())
        .flat_map(|pod| pod.ips.iter().copied())
        .collect();
    let first = |v4: bool| -> Option<IpAddr> {
        let given = ranges.iter().find(|range| range.is_ipv4() == v4);
        if !ranges.is_empty() {
            return given.map(IpNetwork::network);
        }
        let family = |address: &&IpAddr| address.is_ipv4() == v4;
        let last = of_pods.iter().rfind(family).copied();
        let usual = RANGES.iter().find(|(address, _)| address.is_ipv4() == v4);
        let usual = usual.map(|(address, _)| *address);
        let wanted = if taken.is_empty() {
            v4
        } else {
            taken.iter().any(|it| family(&it))
        };
        last.or(usual).filter(|_| wanted)
    };
    let singled_out = singled_out(before, after);
    let mut next = [first(true), first(false)];
    let names: BTreeSet<ObjectName> = [&*before, &*after]
        .into_iter()
        .flat_map(pods)
        .filter(|pod| pod.owns_addresses() && pod.ips.is_empty())
        .map(|pod| pod.name.clone())
        .collect();
    for name in names {
        let key = (Kind::Pod, name);
        // What was there before has its addresses already.
        let lent = match before.get(&key) {
            Some(Object::Pod(pod)) => pod.ips.clone(),
            _ => Vec::new(),
        };
        let ips = if lent.is_empty() {
            next.iter_mut()
                .filter_map(|next| free(next.as_mut()?, &taken, &singled_out))
                .collect()
        } else {
            lent
        };
        for layer in [&mut *before, &mut *after] {
            if let Some(Object::Pod(pod)) = layer.get_mut(&key)
                && pod.ips.is_empty()
            {
                pod.ips.clone_from(&ips);
            }
        }
    }
}

/// Small blocks that rules name: who wrote them meant somebody else than a pod that is still to come.
fn singled_out(before: &Layer, after: &Layer) -> Vec<IpNetwork> {
    /// The largest has this many bits that differ.
    const SMALL: u8 = 7;
    let mut blocks = BTreeSet::new();
    for layer in [before, after] {
        for peer in rules(&snapshot(layer.clone())).flat_map(|rule| &rule.peers) {
            if let Peer::Block { cidr, except } = peer {
                blocks.extend(std::iter::once(cidr).chain(except).copied());
            }
        }
    }
    let small = |block: &IpNetwork| {
        let bits = if block.is_ipv4() { 32 } else { 128 };
        block.prefix() >= bits - SMALL
    };
    blocks.into_iter().filter(small).collect()
}

/// The next address that nobody has.
fn free(last: &mut IpAddr, taken: &BTreeSet<IpAddr>, singled_out: &[IpNetwork]) -> Option<IpAddr> {
    loop {
        *last = behind(*last)?;
        if let Some(block) = singled_out.iter().find(|block| block.contains(*last)) {
            *last = block.broadcast();
        } else if !taken.contains(last) {
            return Some(*last);
        }
    }
}

/// Every address that pods, nodes and Services show.
fn shown(layer: &Layer) -> Vec<IpAddr> {
    let addresses = layer.values().flat_map(|object| match object {
        Object::Pod(pod) => pod.ips.clone(),
        Object::Node(node) => node.addresses.clone(),
        Object::Service(service) => service.cluster_ips.clone(),
        _ => Vec::new(),
    });
    addresses.collect()
}

/// Services that no slice is there for lead to the pods that they select, as the control plane will have it.
fn add_slices(layer: &mut Layer) {
    let listed: BTreeSet<ObjectName> = layer
        .values()
        .filter_map(|object| match object {
            Object::EndpointSlice(slice) => Some(slice.service.clone()),
            _ => None,
        })
        .collect();
    let services = layer.values().filter_map(|object| match object {
        Object::Service(service) if !listed.contains(&service.name) => Some(service),
        _ => None,
    });
    let slices: Vec<_> = services
        .flat_map(|service| slices(service, layer))
        .collect();
    layer.extend(slices.into_iter().map(|slice| (slice.key(), slice)));
}

/// One slice for each set of ports and family.
fn slices(service: &Service, layer: &Layer) -> Vec<Object> {
    let mut endpoints = BTreeMap::new();
    for pod in pods(layer).filter(|pod| service.selects(pod)) {
        let ports = service.ports.iter().filter_map(|port| {
            let number = match port.target_port.parse() {
                Ok(number) => number,
                Err(_) => pod.named_port(&port.target_port, port.protocol)?,
            };
            Some((port.name.clone(), port.protocol, number))
        });
        let ports: Vec<_> = ports.collect();
        for address in &pod.ips {
            let endpoint = Endpoint {
                node: Some(pod.node.clone()),
                pod: Some(pod.name.clone()),
                ..Endpoint::new(*address)
            };
            let alike: &mut Vec<Endpoint> = endpoints
                .entry((address.is_ipv4(), ports.clone()))
                .or_default();
            alike.push(endpoint);
        }
    }
    let slices = endpoints.into_iter().enumerate();
    let slices = slices.map(|(number, ((_, ports), endpoints))| {
        let ports = ports.into_iter().map(|(name, protocol, port)| SlicePort {
            name,
            protocol,
            port,
        });
        let name = format!("{} (by selector, {number})", service.name.name);
        Object::EndpointSlice(EndpointSlice {
            name: ObjectName::new(&service.name.namespace, name),
            service: service.name.clone(),
            endpoints,
            ports: ports.collect(),
            trigger: None,
        })
    });
    slices.collect()
}
