//! Objects that are rejected, and those that are not ours.

use super::*;
use crate::model::ForeignService;
use crate::model::Rule;

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
            service_with(
                "loadBalancerSourceRanges",
                json!(["10.0.0.0/8", "10.0.0.1"]),
            ),
            "Service n/a: spec.loadBalancerSourceRanges[1]: \"10.0.0.1\" is not a CIDR; write one like 10.0.0.0/8 or fd00::/64",
        ),
        (
            Kind::Service,
            service_with("sessionAffinity", json!("Cookie")),
            "Service n/a: spec.sessionAffinity: \"Cookie\" is not a session affinity; use None or ClientIP",
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
        let told = match convert(kind, object.clone()) {
            Err(rejection) => rejection.to_string(),
            // Left out of an object that is used all the same.
            Ok(Some(converted)) => format!("{} n/a: {}", kind.as_str(), converted.flaws[0]),
            Ok(None) => panic!("{object}"),
        };
        assert_eq!(told, wanted);
    }
}

#[test]
fn a_part_of_a_policy_that_cannot_be_used_allows_nothing_and_isolates_all_the_same() {
    let policy = |object: Value| match convert(Kind::NetworkPolicy, object) {
        Ok(Some(Converted {
            object: Object::Policy(policy),
            flaws,
        })) => (policy, flaws.len()),
        other => panic!("{other:?}"),
    };
    let bad = json!({"ipBlock": {"cidr": "10.0.0.0/33"}});
    let good = json!({"podSelector": {}});
    let rules = |rule: Value| spec(json!({"podSelector": {}, "ingress": [rule]}));
    // Nothing is left of the list, which would otherwise mean everybody.
    let (only_bad, flaws) = policy(rules(json!({"from": [bad]})));
    assert_eq!((only_bad.ingress, flaws), (Some(vec![Rule::nobody()]), 1));
    let (one_good, flaws) = policy(rules(json!({"from": [bad, good]})));
    assert_eq!(flaws, 1);
    assert_eq!(one_good, policy(rules(json!({"from": [good]}))).0);
    let (no_port, flaws) = policy(rules(json!({"from": [good], "ports": [{"port": 0}]})));
    assert_eq!((no_port.ingress, flaws), (Some(vec![Rule::nobody()]), 1));
    // Egress is isolated by a rule of no use, too.
    let egress = spec(json!({"podSelector": {}, "egress": [{"to": [bad]}]}));
    let (egress, flaws) = policy(egress);
    assert_eq!((egress.egress, flaws), (Some(vec![Rule::nobody()]), 1));
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
        (Kind::Service, labelled(a_service(), headless)),
        (Kind::EndpointSlice, labelled(a_slice(), proxy)),
        (Kind::EndpointSlice, labelled(a_slice(), headless)),
        (Kind::EndpointSlice, unnamed_slice),
        (Kind::Pod, spec(json!({"containers": []}))),
        (Kind::Pod, spec(json!({"containers": [], "nodeName": ""}))),
    ] {
        assert_eq!(convert(kind, object.clone()), Ok(None), "{object}");
    }
    // Its addresses must be known: they are not nobody's.
    let foreign = used(Kind::Service, labelled(a_service(), proxy)).object;
    let expected = ForeignService {
        name: ObjectName::new("n", "a"),
        cluster_ips: vec![[10, 0, 0, 1].into()],
    };
    assert_eq!(foreign, Object::Foreign(expected));
    // The same objects without the mark are.
    used(Kind::Service, a_service());
    used(Kind::EndpointSlice, a_slice());
}
