//! Tables of API objects and what becomes of them.

mod refused;
mod tiers;

use std::time::{Duration, UNIX_EPOCH};

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as net};
use serde_json::{Value, json};

use super::*;
use crate::model::{
    self, Endpoint, EndpointSlice, Hints, Kind, ObjectName, Operator, Peer, Pod, Policy, PortMatch,
    Protocol, Service, ServicePort, SlicePort, Trigger,
};

/// Converts by kind, as a source does.
fn convert(kind: Kind, object: Value) -> Conversion {
    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).expect("the test's object has the shape of its kind")
    }
    match kind {
        Kind::Service => service(read::<core::Service>(object)),
        Kind::EndpointSlice => endpoint_slice(read::<discovery::EndpointSlice>(object)),
        Kind::NetworkPolicy => network_policy(read::<net::NetworkPolicy>(object)),
        Kind::ClusterNetworkPolicy => cluster_network_policy(read(object)),
        Kind::Pod => pod(read::<core::Pod>(object)),
        Kind::Namespace => namespace(read::<core::Namespace>(object)),
        Kind::Node => node(read::<core::Node>(object)),
        Kind::ServiceCidr => service_cidr(read::<net::ServiceCIDR>(object)),
    }
}

fn used(kind: Kind, object: Value) -> Converted {
    convert(kind, object)
        .expect("a usable object")
        .expect("an object of ours")
}

fn spec(fields: Value) -> Value {
    json!({"metadata": {"name": "a", "namespace": "n"}, "spec": fields})
}

fn service_with(field: &str, value: Value) -> Value {
    let mut object = spec(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
    object["spec"][field] = value;
    object
}

fn slice_with(field: &str, value: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "a-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}],
    });
    object[field] = value;
    object
}

fn ingress_peer(peer: Value) -> Value {
    spec(json!({"ingress": [{}, {"from": [peer]}]}))
}

fn egress_port(port: Value) -> Value {
    spec(json!({"egress": [{"ports": [port]}]}))
}

#[test]
fn a_service_is_defaulted() {
    let object = json!({
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "172.30.00.41",
            "ports": [
                {"name": "a", "port": 80},
                {"name": "b", "port": 80, "protocol": "UDP", "targetPort": 0},
                {"name": "c", "port": 81, "targetPort": "http"},
                {"name": "d", "port": 82, "targetPort": ""},
            ],
        },
    });
    let port = |name: &str, protocol, port, target: &str| ServicePort {
        name: name.to_owned(),
        protocol,
        port,
        target_port: target.to_owned(),
        ..ServicePort::default()
    };
    let wanted = Service {
        name: ObjectName::new("default", "web"),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        cluster_ips: vec!["172.30.0.41".parse().unwrap()],
        ports: vec![
            port("a", Protocol::Tcp, 80, "80"),
            port("b", Protocol::Udp, 80, "80"),
            port("c", Protocol::Tcp, 81, "http"),
            port("d", Protocol::Tcp, 82, "82"),
        ],
        ..Service::default()
    };
    assert_eq!(
        used(Kind::Service, object),
        Converted::whole(Object::Service(wanted))
    );
}

#[test]
fn a_service_is_met_at_more_than_its_cluster_ips() {
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "172.30.0.41",
            "externalIPs": ["192.0.02.1", "example", "2001:db8::1"],
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": [" 10.0.0.9/8 ", "fd00::/64"],
            "ports": [{"port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 0}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.2"},
            {"ip": "192.0.2.3", "ipMode": "VIP"},
            {"ip": "192.0.2.4", "ipMode": "Proxy"},
            {"hostname": "web.example"},
            {"ip": "192.0.2.256"},
        ]}},
    });
    let Converted {
        object: Object::Service(service),
        flaws,
    } = used(Kind::Service, object)
    else {
        panic!("not a Service");
    };
    let texts = |addresses: &[std::net::IpAddr]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(&service.external_ips), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(
        texts(&service.load_balancer_ips),
        ["192.0.2.2", "192.0.2.3"]
    );
    assert_eq!(service.affinity_seconds, Some(10_800));
    let ranges: Vec<_> = service
        .source_ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::/64"]);
    assert_eq!(service.external_traffic_policy, model::TrafficPolicy::Local);
    assert_eq!(service.health_check_node_port, Some(31_000));
    let node_ports = service.ports.iter().map(|port| port.node_port);
    assert!(node_ports.eq([Some(30080), None]));
    let flaws: Vec<_> = flaws.iter().map(ToString::to_string).collect();
    assert_eq!(
        flaws,
        [
            "spec.externalIPs[1]: \"example\" is not an IP address; write one like 10.0.0.1 or fd00::1",
            "status.loadBalancer.ingress[4].ip: \"192.0.2.256\" is not an IP address; write one like 10.0.0.1 or fd00::1",
        ]
    );
}

#[test]
fn one_bad_endpoint_loses_no_other() {
    let object = slice_with(
        "endpoints",
        json!([
            {"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "node-a",
             "targetRef": {"kind": "Pod", "name": "p"}},
            {"addresses": ["web.example"]},
            {"addresses": []},
            {"addresses": ["fd00::1"]},
            {"addresses": ["010.0.0.2"], "conditions": {"ready": false, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"serving": false}, "targetRef": {"kind": "VM", "name": "v"}},
            {"addresses": ["10.0.0.4"], "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]}},
            {"addresses": ["10.0.0.5"], "hints": {"forZones": []}},
        ]),
    );
    let mut object = object;
    object["ports"] =
        json!([{"port": 0, "name": "zero"}, {"name": "none"}, {"port": 53, "protocol": "UDP"}]);
    let endpoint = |address: &str| Endpoint::new(address.parse().unwrap());
    let converted = used(Kind::EndpointSlice, object);
    let wanted = EndpointSlice {
        name: ObjectName::new("n", "a-1"),
        service: ObjectName::new("n", "a"),
        endpoints: vec![
            Endpoint {
                node: Some("node-a".to_owned()),
                pod: Some(ObjectName::new("n", "p")),
                ..endpoint("10.0.0.1")
            },
            Endpoint {
                ready: false,
                terminating: true,
                ..endpoint("10.0.0.2")
            },
            Endpoint {
                serving: false,
                ..endpoint("10.0.0.3")
            },
            Endpoint {
                hints: Some(Box::new(Hints {
                    zones: vec!["a".to_owned(), "b".to_owned()],
                    nodes: vec!["n".to_owned()],
                })),
                ..endpoint("10.0.0.4")
            },
            endpoint("10.0.0.5"),
        ],
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 53,
        }],
        trigger: None,
    };
    assert_eq!(converted.object, Object::EndpointSlice(wanted));
    let flaws: Vec<_> = converted.flaws.iter().map(ToString::to_string).collect();
    assert_eq!(
        flaws,
        [
            "endpoints[1].addresses[0]: \"web.example\" is not an IP address; write one like 10.0.0.1 or fd00::1",
            "endpoints[3].addresses[0]: fd00::1 is not of the slice's addressType IPv4; put it into another slice",
        ]
    );
}

#[test]
fn a_slice_says_what_made_it_change() {
    let trigger = |time: &str, address_type: &str| {
        let mut object = slice_with("endpoints", json!([]));
        object["addressType"] = address_type.into();
        object["metadata"]["annotations"] =
            json!({"endpoints.kubernetes.io/last-change-trigger-time": time});
        match used(Kind::EndpointSlice, object).object {
            Object::EndpointSlice(slice) => slice.trigger,
            other => panic!("not a slice: {other:?}"),
        }
    };
    let at = UNIX_EPOCH + Duration::from_millis(1_767_323_045_250);
    let told = trigger("2026-01-02T03:04:05.25Z", "IPv4");
    assert_eq!(told, Some(Trigger { at, v4: true }));
    let told = trigger("2026-01-02T04:04:05.25+01:00", "IPv6");
    assert_eq!(told, Some(Trigger { at, v4: false }));
    assert_eq!(trigger("yesterday", "IPv4"), None);
}

#[test]
fn a_policy_keeps_its_labels() {
    let mut object = spec(json!({}));
    object["metadata"]["labels"] = json!({"team": "a"});
    let expected = [("team".to_owned(), "a".to_owned())].into();
    assert_eq!(policy_of(object).labels, expected);
}

fn policy_of(object: Value) -> Policy {
    match used(Kind::NetworkPolicy, object).object {
        Object::Policy(policy) => policy,
        other => panic!("not a policy: {other:?}"),
    }
}

#[test]
fn policy_types_are_defaulted() {
    for (fields, ingress, egress) in [
        (json!({}), Some(0), None),
        (json!({"egress": []}), Some(0), None),
        (json!({"egress": [{}]}), Some(0), Some(1)),
        (json!({"policyTypes": [], "ingress": [{}]}), Some(1), None),
        (
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            None,
            Some(0),
        ),
        (
            json!({"policyTypes": ["Ingress"], "egress": [{}]}),
            Some(0),
            None,
        ),
        (
            json!({"policyTypes": ["Ingress", "Egress"]}),
            Some(0),
            Some(0),
        ),
    ] {
        let policy = policy_of(spec(fields.clone()));
        let rules = |rules: &Option<Vec<model::Rule>>| rules.as_ref().map(Vec::len);
        assert_eq!(
            (rules(&policy.ingress), rules(&policy.egress)),
            (ingress, egress),
            "{fields}"
        );
    }
}

#[test]
fn policy_peers_and_ports() {
    let policy = policy_of(spec(json!({
        "podSelector": {
            "matchLabels": {"b": "2"},
            "matchExpressions": [
                {"key": "a", "operator": "NotIn", "values": ["y", "x", "x"]},
                {"key": "c", "operator": "DoesNotExist"},
            ],
        },
        "ingress": [{
            "from": [
                {"podSelector": {}},
                {"namespaceSelector": {}},
                {"ipBlock": {"cidr": "10.01.2.3/8", "except": ["10.2.3.4/16"]}},
            ],
            "ports": [{}, {"protocol": "UDP", "port": 53}, {"port": 80, "endPort": 90}, {"port": "web"}],
        }],
    })));
    let keys: Vec<_> = policy
        .pod_selector
        .requirements
        .iter()
        .map(|each| each.key.as_str())
        .collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let values = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    assert_eq!(
        policy.pod_selector.requirements[0].operator,
        Operator::NotIn(values(&["x", "y"]))
    );
    assert_eq!(
        policy.pod_selector.requirements[1].operator,
        Operator::In(values(&["2"]))
    );

    let rule = &policy.ingress.unwrap()[0];
    let everything = || Some(model::Selector::default());
    assert_eq!(
        rule.peers,
        [
            Peer::Pods {
                namespaces: None,
                pods: everything()
            },
            Peer::Pods {
                namespaces: everything(),
                pods: None
            },
            Peer::Block {
                cidr: "10.0.0.0/8".parse().unwrap(),
                except: vec!["10.2.0.0/16".parse().unwrap()],
            },
        ]
    );
    let ports: Vec<_> = rule
        .ports
        .iter()
        .map(|port| (port.protocol, port.port.clone()))
        .collect();
    assert_eq!(
        ports,
        [
            (Protocol::Tcp, PortMatch::All),
            (Protocol::Udp, PortMatch::Range(53, 53)),
            (Protocol::Tcp, PortMatch::Range(80, 90)),
            (Protocol::Tcp, PortMatch::Named("web".to_owned())),
        ]
    );
}

fn pod_of(status: Value, more: Value) -> (Pod, Vec<String>) {
    let mut object = spec(json!({"nodeName": "node-a", "containers": []}));
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object["status"] = status;
    let converted = used(Kind::Pod, object);
    let flaws = converted.flaws.iter().map(ToString::to_string).collect();
    match converted.object {
        Object::Pod(pod) => (pod, flaws),
        other => panic!("not a pod: {other:?}"),
    }
}

#[test]
fn pods() {
    let (pod, flaws) = pod_of(json!({"podIP": "10.0.0.1"}), json!({}));
    assert_eq!((pod.uid.as_str(), pod.created, flaws.len()), ("n/a", 0, 0));
    assert_eq!(pod.ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(pod.owns_addresses());

    for (phase, terminal) in [
        ("Pending", false),
        ("Running", false),
        ("Unknown", false),
        ("Succeeded", true),
        ("Failed", true),
    ] {
        assert_eq!(
            pod_of(json!({"phase": phase}), json!({})).0.terminal,
            terminal,
            "{phase}"
        );
    }

    // One that is being deleted is alive as long as its phase says so.
    let mut leaving = spec(json!({"nodeName": "node-a", "containers": []}));
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    leaving["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
    match used(Kind::Pod, leaving).object {
        Object::Pod(pod) => assert!(pod.owns_addresses()),
        other => panic!("not a pod: {other:?}"),
    }

    let (pod, flaws) = pod_of(
        json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "?"}]}),
        json!({
            "hostNetwork": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 0}]}],
            "initContainers": [
                {"name": "i", "ports": [{"containerPort": 81}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 82, "protocol": "UDP"}]},
            ],
        }),
    );
    assert!(pod.host_network && !pod.owns_addresses());
    assert_eq!(pod.ips.len(), 2);
    let ports: Vec<_> = pod
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.protocol, port.port))
        .collect();
    assert_eq!(ports, [("web", Protocol::Tcp, 80), ("", Protocol::Udp, 82)]);
    assert_eq!(
        flaws,
        [
            "status.podIPs[2]: \"?\" is not an IP address; write one like 10.0.0.1 or fd00::1",
            "spec.containers[0].ports[1].containerPort: 0 is not a port; use 1 to 65535",
        ]
    );
}

#[test]
fn namespaces_and_nodes() {
    let object = json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "lie", "a": "b"}}});
    let Object::Namespace(namespace) = used(Kind::Namespace, object).object else {
        panic!("not a namespace");
    };
    assert_eq!(namespace.labels["kubernetes.io/metadata.name"], "shop");
    assert_eq!(namespace.labels["a"], "b");

    let object = json!({"metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "west"}}, "status": {"addresses": [
        {"type": "Hostname", "address": "node-a"},
        {"type": "InternalIP", "address": "192.168.0.1"},
        {"type": "ExternalIP", "address": "192.168.0.1"},
        {"type": "InternalIP", "address": "fd00:1"},
        {"type": "ExternalIP", "address": "2001:db8::1"},
        {"type": "ExternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "192.168.0.2"},
    ]}});
    let converted = used(Kind::Node, object);
    let Object::Node(node) = converted.object else {
        panic!("not a node");
    };
    let texts = |addresses: &[std::net::IpAddr]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        texts(&node.addresses),
        ["192.168.0.1", "2001:db8::1", "192.0.2.1", "192.168.0.2"]
    );
    assert_eq!(texts(&node.primary), ["192.168.0.1", "2001:db8::1"]);
    assert_eq!(node.zone, "west");
    assert!(!node.leaving);
    assert_eq!(converted.flaws.len(), 1);
    assert_eq!(converted.flaws[0].field, "status.addresses[3]");
}

#[test]
fn a_node_that_is_about_to_go_is_leaving() {
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    let other = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let deleted = json!({"name": "a", "deletionTimestamp": "2026-01-02T03:04:05Z"});
    for (object, leaving) in [
        (
            json!({"metadata": {"name": "a"}, "spec": {"taints": taint}}),
            true,
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"taints": other}}),
            false,
        ),
        (json!({"metadata": deleted}), true),
    ] {
        let Object::Node(node) = used(Kind::Node, object).object else {
            panic!("not a node");
        };
        assert_eq!(node.leaving, leaving);
    }
}

#[test]
fn health_checks_are_for_traffic_that_stays_on_the_node() {
    for (policy, port, wanted) in [
        ("Local", json!(31_000), Some(31_000)),
        ("Local", json!(0), None),
        ("Cluster", json!(31_000), None),
    ] {
        let object = json!({
            "metadata": {"name": "web"},
            "spec": {
                "clusterIP": "172.30.0.41",
                "externalTrafficPolicy": policy,
                "healthCheckNodePort": port,
                "ports": [{"port": 80}],
            },
        });
        let Object::Service(service) = used(Kind::Service, object).object else {
            panic!("not a Service");
        };
        assert_eq!(service.health_check_node_port, wanted, "{policy} {port}");
    }
}
