//! Tables of API objects and what becomes of them.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as net};
use serde_json::{Value, json};

use super::*;
use crate::model::{
    self, Endpoint, EndpointSlice, Kind, ObjectName, Operator, Peer, Pod, Policy, PortMatch,
    Protocol, Service, ServicePort, SlicePort, TrafficPolicy,
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
        Kind::Pod => pod(read::<core::Pod>(object)),
        Kind::Namespace => namespace(read::<core::Namespace>(object)),
        Kind::Node => node(read::<core::Node>(object)),
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
fn bad_objects_are_rejected_by_field_and_remedy() {
    let bad_selector =
        |expression: Value| spec(json!({"podSelector": {"matchExpressions": [expression]}}));
    let cases = [
        (
            Kind::Service,
            json!({"metadata": {}}),
            "Service n/: metadata.name: the object has no name; give it one",
        ),
        (
            Kind::Service,
            service_with("ports", json!([{"port": 0}])),
            "Service n/a: spec.ports[0].port: 0 is not a port; use 1 to 65535",
        ),
        (
            Kind::Service,
            service_with("ports", json!([{"port": 65536}])),
            "Service n/a: spec.ports[0].port: 65536 is not a port; use 1 to 65535",
        ),
        (
            Kind::Service,
            service_with("ports", json!([])),
            "Service n/a: spec.ports: a Service needs at least one port",
        ),
        (
            Kind::Service,
            service_with("ports", json!([{"port": 80, "protocol": "tcp"}])),
            "Service n/a: spec.ports[0].protocol: \"tcp\" is not a protocol; use TCP, UDP or SCTP",
        ),
        (
            Kind::Service,
            service_with("ports", json!([{"port": 80, "targetPort": 70000}])),
            "Service n/a: spec.ports[0].targetPort: 70000 is not a port; use 1 to 65535",
        ),
        (
            Kind::Service,
            service_with(
                "ports",
                json!([{"port": 80, "name": "x"}, {"port": 80, "name": "y"}]),
            ),
            "Service n/a: spec.ports[1].port: port 80/TCP is there twice; remove one",
        ),
        (
            Kind::Service,
            service_with("ports", json!([{"port": 80}, {"port": 81}])),
            "Service n/a: spec.ports[1].name: port name \"\" is there twice; give each port its own name",
        ),
        (
            Kind::Service,
            service_with("clusterIP", json!("10.0.0.300")),
            "Service n/a: spec.clusterIP[0]: \"10.0.0.300\" is not an IP address; write one like 10.0.0.1 or fd00::1",
        ),
        (
            Kind::Service,
            service_with("clusterIP", json!("")),
            "Service n/a: spec.clusterIP: the Service has no clusterIP; give it one, because only an API server can choose it (or \"None\" for a headless Service)",
        ),
        (
            Kind::Service,
            service_with("clusterIPs", json!(["10.0.0.1", "10.0.0.2"])),
            "Service n/a: spec.clusterIPs[1]: at most one address of each family; remove 10.0.0.2",
        ),
        (
            Kind::Service,
            service_with("internalTrafficPolicy", json!("local")),
            "Service n/a: spec.internalTrafficPolicy: \"local\" is not a traffic policy; use Cluster or Local",
        ),
        (
            Kind::Service,
            service_with("type", json!("Nodeport")),
            "Service n/a: spec.type: \"Nodeport\" is not a type; use ClusterIP, NodePort, LoadBalancer or ExternalName",
        ),
        (
            Kind::EndpointSlice,
            slice_with("addressType", json!("FQDN")),
            "EndpointSlice n/a-1: addressType: slices of type FQDN cannot be load-balanced; use addressType IPv4 or IPv6",
        ),
        (
            Kind::EndpointSlice,
            slice_with("addressType", json!("IPv5")),
            "EndpointSlice n/a-1: addressType: \"IPv5\" is not an address type; use IPv4 or IPv6",
        ),
        (
            Kind::EndpointSlice,
            slice_with("ports", json!([{"port": 80, "protocol": "QUIC"}])),
            "EndpointSlice n/a-1: ports[0].protocol: \"QUIC\" is not a protocol; use TCP, UDP or SCTP",
        ),
        (
            Kind::EndpointSlice,
            slice_with("ports", json!([{"port": -1}])),
            "EndpointSlice n/a-1: ports[0].port: -1 is not a port; use 1 to 65535",
        ),
        (
            Kind::EndpointSlice,
            slice_with("ports", json!([{"port": 80}, {"port": 81}])),
            "EndpointSlice n/a-1: ports[1].name: port name \"\" is there twice; give each port its own name",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})),
            "NetworkPolicy n/a: spec.ingress[1].from[0].ipBlock.cidr: \"10.0.0.0\" is not a CIDR; write one like 10.0.0.0/8 or fd00::/64",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}),
            ),
            "NetworkPolicy n/a: spec.ingress[1].from[0].ipBlock.except[1]: 11.0.0.0/16 is no strict part of cidr 10.0.0.0/8; name a smaller block inside it",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "NetworkPolicy n/a: spec.ingress[1].from[0].ipBlock.except[0]: 10.0.0.0/8 is no strict part of cidr 10.0.0.0/8; name a smaller block inside it",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(json!({"ipBlock": {"cidr": "::/0", "except": ["10.0.0.0/8"]}})),
            "NetworkPolicy n/a: spec.ingress[1].from[0].ipBlock.except[0]: 10.0.0.0/8 is no strict part of cidr ::/0; name a smaller block inside it",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(json!({"podselector": {}})),
            "NetworkPolicy n/a: spec.ingress[1].from[0]: the peer has none of podSelector, namespaceSelector and ipBlock; give it one",
        ),
        (
            Kind::NetworkPolicy,
            ingress_peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            "NetworkPolicy n/a: spec.ingress[1].from[0]: ipBlock cannot stand beside a selector; make it a peer of its own",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"port": 0})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].port: 0 is not a port; use 1 to 65535",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"port": "80"})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].port: \"80\" is not a port name; use one with a letter, or write the number without quotes",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"port": 90, "endPort": 80})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].endPort: endPort 80 is below port 90; it is the last port of the range",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"port": "web", "endPort": 80})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].endPort: endPort needs a port that is a number",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"endPort": 80})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].endPort: endPort needs a port that is a number",
        ),
        (
            Kind::NetworkPolicy,
            egress_port(json!({"protocol": "ICMP"})),
            "NetworkPolicy n/a: spec.egress[0].ports[0].protocol: \"ICMP\" is not a protocol; use TCP, UDP or SCTP",
        ),
        (
            Kind::NetworkPolicy,
            spec(json!({"policyTypes": ["Ingress", "Outgress"]})),
            "NetworkPolicy n/a: spec.policyTypes[1]: \"Outgress\" is not a policy type; use Ingress or Egress",
        ),
        (
            Kind::NetworkPolicy,
            bad_selector(json!({"key": "k", "operator": "Like"})),
            "NetworkPolicy n/a: spec.podSelector.matchExpressions[0].operator: \"Like\" is not an operator; use In, NotIn, Exists or DoesNotExist",
        ),
        (
            Kind::NetworkPolicy,
            bad_selector(json!({"key": "k", "operator": "In"})),
            "NetworkPolicy n/a: spec.podSelector.matchExpressions[0].values: operator In needs at least one value",
        ),
        (
            Kind::NetworkPolicy,
            bad_selector(json!({"key": "k", "operator": "Exists", "values": ["v"]})),
            "NetworkPolicy n/a: spec.podSelector.matchExpressions[0].values: operator Exists takes no values; remove them",
        ),
    ];
    for (kind, mut object, wanted) in cases {
        object["metadata"]["namespace"] = "n".into();
        let rejection = convert(kind, object.clone()).expect_err(&object.to_string());
        assert_eq!(rejection.to_string(), wanted);
    }
}

#[test]
fn objects_that_are_not_ours() {
    let labelled = |mut object: Value, label: &str| {
        object["metadata"]["labels"][label] = "".into();
        object
    };
    let (proxy, headless) = (
        "service.kubernetes.io/service-proxy-name",
        "service.kubernetes.io/headless",
    );
    let a_service = || service_with("type", json!("ClusterIP"));
    let a_slice = || slice_with("endpoints", json!([]));
    let mut unnamed_slice = a_slice();
    unnamed_slice["metadata"]["labels"] = json!({});
    for (kind, object) in [
        (Kind::Service, service_with("clusterIP", json!("None"))),
        (Kind::Service, service_with("clusterIPs", json!(["None"]))),
        (Kind::Service, service_with("type", json!("ExternalName"))),
        (Kind::Service, labelled(a_service(), proxy)),
        (Kind::Service, labelled(a_service(), headless)),
        (Kind::EndpointSlice, labelled(a_slice(), proxy)),
        (Kind::EndpointSlice, labelled(a_slice(), headless)),
        (Kind::EndpointSlice, unnamed_slice),
        (Kind::Pod, spec(json!({"containers": []}))),
        (Kind::Pod, spec(json!({"containers": [], "nodeName": ""}))),
    ] {
        assert_eq!(convert(kind, object.clone()), Ok(None), "{object}");
    }
    // The same objects without the mark are.
    used(Kind::Service, a_service());
    used(Kind::EndpointSlice, a_slice());
}

#[test]
fn a_service_is_defaulted() {
    let object = json!({
        "metadata": {"name": "web"},
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
    };
    let wanted = Service {
        name: ObjectName::new("default", "web"),
        cluster_ips: vec!["172.30.0.41".parse().unwrap()],
        ports: vec![
            port("a", Protocol::Tcp, 80, "80"),
            port("b", Protocol::Udp, 80, "80"),
            port("c", Protocol::Tcp, 81, "http"),
            port("d", Protocol::Tcp, 82, "82"),
        ],
        internal_traffic_policy: TrafficPolicy::Cluster,
        selector: model::Labels::new(),
    };
    assert_eq!(
        used(Kind::Service, object),
        Converted::whole(Object::Service(wanted))
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
        ]),
    );
    let mut object = object;
    object["ports"] =
        json!([{"port": 0, "name": "zero"}, {"name": "none"}, {"port": 53, "protocol": "UDP"}]);
    let endpoint = |address: &str| Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        pod: None,
    };
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
        ],
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 53,
        }],
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

    let object = json!({"metadata": {"name": "node-a"}, "status": {"addresses": [
        {"type": "Hostname", "address": "node-a"},
        {"type": "InternalIP", "address": "192.168.0.1"},
        {"type": "ExternalIP", "address": "192.168.0.1"},
        {"type": "InternalIP", "address": "fd00:1"},
    ]}});
    let converted = used(Kind::Node, object);
    let Object::Node(node) = converted.object else {
        panic!("not a node");
    };
    assert_eq!(
        node.addresses,
        ["192.168.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(converted.flaws.len(), 1);
    assert_eq!(converted.flaws[0].field, "status.addresses[3]");
}
