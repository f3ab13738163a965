//! Random Services that share few addresses, ports and endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{BLOCKS, EXPOSED, NODE, ip};
use crate::model::{
    Endpoint, EndpointSlice, Hints, ObjectName, Protocol, Service, ServicePort, SlicePort,
    Snapshot, TrafficPolicy,
};

type Services = BTreeMap<ObjectName, Arc<Service>>;
type Slices = BTreeMap<ObjectName, Arc<EndpointSlice>>;

/// Puts in a Service, and a slice that lists these endpoints for all of its ports, at 8080.
pub(crate) fn serve(
    snapshot: &mut Snapshot,
    service: Service,
    endpoints: impl IntoIterator<Item = Endpoint>,
) {
    let port = |port: &ServicePort| SlicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: 8080,
    };
    let name = service.name.clone();
    let slice = EndpointSlice {
        name: name.clone(),
        service: name.clone(),
        endpoints: endpoints.into_iter().collect(),
        ports: service.ports.iter().map(port).collect(),
        trigger: None,
    };
    snapshot.services.insert(name.clone(), Arc::new(service));
    snapshot.slices.insert(name, Arc::new(slice));
}

/// Services of namespace `a`, and their slices.
pub(super) fn services() -> impl Strategy<Value = (Services, Slices)> {
    (vec(service(), 0..4), vec(slices(), 0..5)).prop_map(|(services, slices)| {
        let services = services
            .into_iter()
            .map(|service| (service.name.clone(), Arc::new(service)));
        let slices = slices.into_iter().enumerate().map(|(position, mut slice)| {
            slice.name = ObjectName::new("a", format!("slice{position}"));
            (slice.name.clone(), Arc::new(slice))
        });
        (services.collect(), slices.collect())
    })
}

fn policies() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn service() -> impl Strategy<Value = Service> {
    let addresses = || subsequence(EXPOSED.to_vec(), 0..3);
    let exposed = (
        addresses(),
        addresses(),
        subsequence(BLOCKS.to_vec(), 0..3),
        of(select(vec![80_u16, 30080])),
    );
    let own = (0..3_u8, 1..=2_u16, any::<bool>());
    (own, policies(), policies(), exposed).prop_map(
        |((index, ports, dual), internal, external, (balancers, externals, ranges, node_port))| {
            let mut cluster_ips = vec![ip(&format!("172.20.0.{index}"))];
            if dual {
                cluster_ips.push(ip(&format!("fd20::{index}")));
            }
            let port = |number: u16| ServicePort {
                name: format!("p{number}"),
                protocol: Protocol::Tcp,
                port: 79 + number,
                node_port: node_port.map(|first| first + number - 1),
                target_port: String::new(),
            };
            Service {
                name: ObjectName::new("a", format!("s{index}")),
                cluster_ips,
                ports: (1..=ports).map(port).collect(),
                load_balancer_ips: balancers.into_iter().map(ip).collect(),
                external_ips: externals.into_iter().map(ip).collect(),
                source_ranges: ranges
                    .into_iter()
                    .map(|range| range.parse().unwrap())
                    .collect(),
                internal_traffic_policy: internal,
                external_traffic_policy: external,
                ..Service::default()
            }
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let endpoint = (
        1..7_u8,
        any::<(bool, bool, bool)>(),
        select(vec![Some(NODE), Some("there"), None]),
        of((
            subsequence(vec!["here", "there"], 0..=2),
            subsequence(vec![NODE, "there"], 0..=2),
        )),
    );
    endpoint.prop_map(|(host, (ready, serving, terminating), node, hints)| {
        let address = if host == 6 {
            "fd00::7".to_owned()
        } else {
            format!("10.0.0.{host}")
        };
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Endpoint {
            ready,
            serving,
            terminating,
            node: node.map(str::to_owned),
            hints: hints.map(|(zones, nodes)| {
                Box::new(Hints {
                    zones: owned(zones),
                    nodes: owned(nodes),
                })
            }),
            ..Endpoint::new(ip(&address))
        }
    })
}

/// Their names are not told apart.
fn slices() -> impl Strategy<Value = EndpointSlice> {
    let slice = (0..3_u8, vec(endpoint(), 0..4), select(vec![8080_u16, 8081]));
    slice.prop_map(|(index, endpoints, number)| {
        let port = |name: &str, port| SlicePort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port,
        };
        EndpointSlice {
            name: ObjectName::default(),
            service: ObjectName::new("a", format!("s{index}")),
            endpoints,
            ports: vec![port("p1", number), port("p2", number + 100)],
            trigger: None,
        }
    })
}
