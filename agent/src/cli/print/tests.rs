//! What people and programs get to read.

use std::sync::Arc;

use super::{
    Explained, ShownPolicy, ShownService, Table, explanation, flows, json, matrix, matrix_page,
    matrix_picture, pods, policies, policy, service, services, status,
};
use crate::admin::tests::cluster::cluster;
use crate::admin::{
    self, Device, Evidence, FeatureState, FlowLog, FlowRow, Held, HeldFrontend, HeldVerdict,
    MapFill, Pods, Rejection, Sockets, Status, Tried, Watch,
};
use crate::explain::{Question, explain, policy_details};
use crate::flows::tests::{event, record};
use crate::model::{
    Attachment, Direction, ObjectName, Policy, Protocol, Sandbox, Snapshot, SocketLb,
};
use crate::review::{self, Matrix, MatrixEnd, PortRange, Reach};

/// A shop with an open Service, a mistaken one, default-deny and a rule with the wrong port.
const SHOP: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system, labels: {kubernetes.io/metadata.name: kube-system}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: kube-system, name: dns, uid: u0, labels: {k8s-app: kube-dns}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 53, protocol: UDP, name: dns}]}]}
status: {phase: Running, podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: front, uid: u1, labels: {app: front}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: back, uid: u2, labels: {app: back}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080, name: http}]}]}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: back, labels: {tier: backend}}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], sessionAffinity: ClientIP, selector: {app: back}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: back-1, labels: {kubernetes.io/service-name: back}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.0.2], nodeName: n1, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: back}}]
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: slip}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], selector: {app: bakc}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: kube-system, name: kube-dns}
spec: {clusterIP: 10.96.0.53, clusterIPs: [10.96.0.53], selector: {k8s-app: kube-dns}, ports: [{port: 53, targetPort: 53, protocol: UDP, name: dns}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: kube-system, name: dns-1, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}]
endpoints: [{addresses: [10.0.0.9], nodeName: n1, conditions: {ready: true}, targetRef: {kind: Pod, namespace: kube-system, name: dns}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: to-back, labels: {team: shop}}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: 80}]}]
"#;

fn shop() -> Snapshot {
    load(SHOP)
}

fn load(manifests: &str) -> Snapshot {
    cluster("n1", manifests, &[("10.0.0.2", 7)])
}

fn ask(snapshot: &Snapshot, source: &str, destination: &str) -> Explained {
    let question = Question::parse(source, destination).unwrap();
    explain(snapshot, &question).unwrap().into()
}

#[test]
fn a_denial_through_a_service() {
    let answer = ask(&shop(), "shop/front", "shop/svc/back");
    insta::assert_snapshot!(explanation(&answer, false));
}

#[test]
fn a_service_that_several_pods_ask_is_shown_once() {
    let mut answer = ask(&shop(), "shop/front", "shop/svc/back");
    let again = answer.explanation.translations.clone();
    answer.explanation.translations.extend(again);
    let text = explanation(&answer, false);
    assert_eq!(text.matches("Service shop/back at").count(), 1, "{text}");
}

#[test]
fn a_denial_as_json() {
    let answer = ask(&shop(), "shop/front", "shop/svc/back");
    insta::assert_snapshot!(json("Explanation", &answer).unwrap());
}

#[test]
fn what_nodes_hold_and_have_seen() {
    let name = |name: &str| ObjectName::new("shop", name);
    let verdict = |direction, held, intended| HeldVerdict {
        pod: name("back"),
        direction,
        peer: "10.0.0.1".parse().unwrap(),
        port: 8080,
        intended,
        held,
        tried: None,
    };
    let tried = |passed, reason: &str, to: Option<&str>| {
        Some(Tried {
            passed,
            reason: reason.to_owned(),
            to: to.map(|to| to.parse().unwrap()),
        })
    };
    let frontend = |held: Option<&[&str]>| HeldFrontend {
        service: name("back"),
        frontend: "10.96.0.1:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        intended: ["10.0.0.2:8080".parse().unwrap()].into(),
        held: held.map(|held| held.iter().map(|it| it.parse().unwrap()).collect()),
        tried: None,
    };
    let both = ["10.0.0.2:8080", "10.0.0.3:8080"];
    let right = Evidence {
        node: "n1".to_owned(),
        verdicts: vec![HeldVerdict {
            tried: tried(true, "not_isolated", Some("10.0.0.1:8080")),
            ..verdict(Direction::Egress, Held::Open, true)
        }],
        frontends: vec![frontend(Some(&both[..1])), frontend(Some(&both[..1]))],
        connections: 2,
        packets: [14, 0],
        ..Evidence::default()
    };
    let rule = Held::Allowed(Some((name("to-back"), 0)));
    let wrong = Evidence {
        node: "n2".to_owned(),
        verdicts: vec![
            verdict(Direction::Ingress, Held::Denied, true),
            verdict(Direction::Ingress, Held::Unknown, true),
            verdict(Direction::Ingress, Held::Allowed(None), false),
            verdict(Direction::Egress, Held::Open, false),
            verdict(Direction::Egress, rule, false),
        ],
        frontends: [None, Some(&both[..]), Some(&both[1..]), Some(&[])]
            .map(frontend)
            .to_vec(),
        drops: 7,
        last_drops: vec![record(&event())],
        ..Evidence::default()
    };
    let (front, back) = (Some("10.96.0.1:80"), Some("10.0.0.2:8080"));
    let tries = [
        (Held::Open, true, tried(true, "not_isolated", back)),
        (Held::Open, true, tried(false, "spoofed_source", None)),
        (Held::Denied, false, tried(true, "established", back)),
        (Held::Denied, false, tried(true, "not_ip", None)),
    ];
    let odd = Evidence {
        node: "n3".to_owned(),
        verdicts: tries
            .map(|(held, intended, tried)| HeldVerdict {
                tried,
                ..verdict(Direction::Egress, held, intended)
            })
            .to_vec(),
        frontends: [
            tried(true, "policy_allowed", back),
            tried(true, "not_local", front),
            tried(false, "no_endpoint", None),
            tried(false, "policy_denied", None),
        ]
        .map(|tried| HeldFrontend {
            tried,
            ..frontend(Some(&both[..1]))
        })
        .to_vec(),
        ..Evidence::default()
    };
    let idle = Evidence {
        node: "n4".to_owned(),
        ..Evidence::default()
    };
    let mut answer = ask(&shop(), "shop/front", "shop/svc/back");
    answer.nodes = vec![right, wrong, odd, idle];
    answer.unanswered = vec!["n5: no agent answers".to_owned()];
    insta::assert_snapshot!(explanation(&answer, false));
}

#[test]
fn a_denied_lookup() {
    let answer = ask(&shop(), "shop/back", "kube-system/svc/kube-dns:53/UDP");
    insta::assert_snapshot!(explanation(&answer, false));
}

#[test]
fn an_allowance() {
    let mut snapshot = shop();
    let mut policies = snapshot.policies.iter();
    let (name, policy) = policies.find(|(name, _)| name.name == "to-back").unwrap();
    let mut policy = Policy::clone(policy);
    policy.egress.as_mut().unwrap()[0].ports.clear();
    snapshot.policies = imbl::OrdMap::unit(name.clone(), Arc::new(policy));
    let answer = ask(&snapshot, "shop/front", "shop/back");
    insta::assert_snapshot!(explanation(&answer, false));
}

#[test]
fn a_service_that_leads_nowhere() {
    let answer = ask(&shop(), "shop/front", "shop/svc/slip");
    insta::assert_snapshot!(explanation(&answer, false));
}

/// `back` at a load balancer's addresses, of which one sends to nodes itself (ipMode Proxy), and at node port 30080.
fn exposed(external_policy: &str) -> Snapshot {
    let shop = SHOP.replace(
        "{clusterIP: 10.96.0.1,",
        &format!("{{type: LoadBalancer, externalTrafficPolicy: {external_policy}, loadBalancerSourceRanges: [10.0.0.0/24], clusterIP: 10.96.0.1,"),
    );
    let shop = shop.replace("[{port: 80, targetPort: 8080}]}\n---\napiVersion: discovery", "[{port: 80, targetPort: 8080, nodePort: 30080}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: Proxy}]}}\n---\napiVersion: discovery");
    load(&(shop + NODE_2))
}

/// Another node, without endpoints.
const NODE_2: &str = "
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
";

#[test]
fn connections_to_all_kinds_of_frontends() {
    let answers = [
        ("Local", "203.0.113.7", "192.0.2.1:80"),
        ("Local", "203.0.113.7", "192.168.0.2:30080"),
        ("Local", "kube-system/dns", "192.0.2.2:80"),
        ("Cluster", "203.0.113.7", "192.168.0.2:30080"),
        ("Cluster", "kube-system/dns", "192.168.0.2:30080"),
    ]
    .map(|(policy, source, destination)| {
        explanation(&ask(&exposed(policy), source, destination), false)
    });
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn a_list_of_all_kinds_of_frontends() {
    insta::assert_snapshot!(services(&admin::services(&exposed("Local")), false));
}

#[test]
fn colour_is_only_added() {
    let answer = ask(&shop(), "shop/front", "shop/back");
    let coloured = explanation(&answer, true);
    assert!(
        coloured.contains("\u{1b}[1m\u{1b}[31mdenied\u{1b}[0m"),
        "{coloured}"
    );
    let mut plain = coloured;
    for code in ["\u{1b}[1m", "\u{1b}[31m", "\u{1b}[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, explanation(&answer, false));
}

/// The shop with a pod that starts, and a tracked connection of another.
fn lists_of_the_shop(wide: bool) -> [Table; 4] {
    let mut snapshot = shop();
    let announced = Sandbox {
        attachment: Attachment {
            container: "c".to_owned(),
            interface: "eth0".to_owned(),
        },
        network: "pods".to_owned(),
        pod: ObjectName::new("shop", "starting"),
        uid: String::new(),
        addresses: vec!["10.0.0.77".parse().unwrap()],
        device: None,
    };
    snapshot
        .sandboxes
        .insert(announced.attachment.clone(), Arc::new(announced));
    let flow = FlowRow {
        protocol: 6,
        source: "10.0.0.1".parse().unwrap(),
        source_port: 40000,
        source_pod: Some(ObjectName::new("shop", "front")),
        destination: "fd00::2".parse().unwrap(),
        destination_port: 8080,
        destination_pod: None,
        service: Some(("10.96.0.1".parse().unwrap(), 80)),
        packets: [5, 4],
        bytes: [500, 4000],
        rules: [1, 0xabc],
    };
    [
        services(&admin::services(&snapshot), wide),
        pods(&admin::pods(&snapshot), wide),
        policies(&admin::policies(&snapshot), wide),
        flows(&[flow], wide),
    ]
}

#[test]
fn lists() {
    let lists = lists_of_the_shop(false).map(|list| list.to_string());
    insta::assert_snapshot!(lists.join("\n"));
}

#[test]
fn wide_lists() {
    let lists = lists_of_the_shop(true).map(|list| list.to_string());
    insta::assert_snapshot!(lists.join("\n"));
}

#[test]
fn lists_without_headers() {
    let lists = lists_of_the_shop(false).map(|list| list.without_headers().to_string());
    insta::assert_snapshot!(lists.join("\n"));
}

#[test]
fn the_state_of_an_agent() {
    let text = |text: &str| text.to_owned();
    insta::assert_snapshot!(status(&Status {
        version: text("1.2.3"),
        node: text("n1"),
        kernel: text("6.12.1"),
        uptime_seconds: 90,
        synced: false,
        generation: 2,
        epoch: 3,
        last_sync_seconds: Some(1.25),
        last_error: Some(text("cannot write table `class`")),
        attach_mode: text("tcx"),
        sockets: Sockets {
            served: SocketLb::Host,
            cgroup: Some(text("/sys/fs/cgroup")),
            attached: true,
        },
        pods: Pods {
            known: 5,
            announced: 4,
            unknown: 1,
        },
        watches: vec![Watch {
            kind: text("Service"),
            synced: true,
            objects: 4,
        }],
        devices: vec![
            Device {
                name: text("eth0"),
                ifindex: 2,
                pod: None,
                uplink: true,
                xdp: Some(text("attached")),
            },
            Device {
                name: text("veth7"),
                ifindex: 7,
                pod: Some(text("shop/back")),
                uplink: false,
                xdp: None,
            },
        ],
        maps: vec![MapFill {
            name: text("flow"),
            entries: 50,
            capacity: 200,
        }],
        events_lost: 3,
        flow_log: Some(FlowLog {
            file: text("/var/log/weir/flows.jsonl"),
            written: 40,
            lost: 2,
            error: Some(text("No space left on device (os error 28)")),
        }),
        features: vec![FeatureState {
            name: text("tcx"),
            present: false,
            otherwise: text("clsact"),
        }],
        rejections: vec![Rejection {
            kind: text("Service"),
            name: text("shop/zero"),
            message: text("port 0"),
        }],
    }));
}

/// A policy with each kind of peer: one that finds pods, one that finds none, blocks, other namespaces.
const RULES: &str = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: rules, labels: {team: shop}}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [front, back]}]}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: fornt}}}]
    ports: [{port: 8080}, {port: http}]
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    - ipBlock: {cidr: 192.168.0.0/16, except: [192.168.7.0/24]}
    - ipBlock: {cidr: 203.0.113.0/24}
  - ports: [{port: 53, protocol: UDP}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {}}
  egress:
  - {name: to-nodes, action: Deny, to: [{nodes: {}}]}
  - {action: Pass, to: [{networks: [0.0.0.0/0]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
"#;

#[test]
fn policies_in_full() {
    let snapshot = load(&(SHOP.to_owned() + RULES));
    let shown = |name: ObjectName, rejections: &[&str]| {
        let rejection = |message: &&str| Rejection {
            kind: "NetworkPolicy".to_owned(),
            name: name.to_string(),
            message: (*message).to_owned(),
        };
        policy(&ShownPolicy {
            details: policy_details(&snapshot, &name).unwrap(),
            rejections: rejections.iter().map(rejection).collect(),
        })
    };
    let texts = [
        shown(ObjectName::new("shop", "rules"), &["a bad block"]),
        shown(ObjectName::new("shop", "default-deny"), &[]),
        shown(ObjectName::cluster("guard"), &[]),
    ];
    insta::assert_snapshot!(texts.join("\n"));
    let missing = ObjectName::new("shop", "guard");
    assert_eq!(policy_details(&snapshot, &missing), None);
}

#[test]
fn services_in_full() {
    let shown = |snapshot: &Snapshot, name: &str| {
        let mut frontends = admin::services(snapshot);
        frontends.retain(|row| row.translation.service.name == name);
        service(&ShownService {
            frontends,
            rejections: Vec::new(),
        })
    };
    let texts = [shown(&exposed("Local"), "back"), shown(&shop(), "slip")];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn who_reaches_whom() {
    // The slips of the shop mended: front reaches one port of back.
    let policies = RULES.replace("fornt", "front");
    let snapshot = load(&(SHOP.replace("[{port: 80}]}]\n", "[{port: 8080}]}]\n") + &policies));
    let http = PortRange {
        protocol: Protocol::Tcp,
        first: 8080,
        last: 8080,
    };
    let texts = [
        matrix(&review::matrix(&snapshot, |_| true, None)),
        matrix(&review::matrix(&snapshot, |_| true, Some(http))),
        matrix(&review::matrix(&snapshot, |it| it == "shop", None)),
        matrix(&review::matrix(&snapshot, |it| it == "web", None)),
    ];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn who_reaches_whom_as_a_page_and_a_picture() {
    let matrix = review::matrix(&load(&format!("{SHOP}{RULES}")), |_| true, None);
    insta::assert_snapshot!("matrix_page", matrix_page(&matrix));
    insta::assert_snapshot!("matrix_picture", matrix_picture(&matrix));
}

#[test]
fn names_are_no_markup_in_a_page() {
    let end = MatrixEnd {
        namespace: "<script>".to_owned(),
        workload: "deploy/\"&".to_owned(),
        pods: 1,
    };
    let matrix = Matrix {
        port: None,
        workloads: vec![end],
        reach: vec![vec![Reach::Nothing]],
    };
    for text in [matrix_page(&matrix), matrix_picture(&matrix)] {
        assert!(!text.contains("<script>"), "{text}");
        assert!(
            text.contains("&lt;script&gt;/deploy/&quot;&amp; to"),
            "{text}"
        );
    }
}
