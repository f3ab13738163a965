//! Clusters in a few lines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::compile::testing::edit;
use crate::explain::{Explanation, Question, explain};
use crate::model::{
    ContainerPort, Endpoint, EndpointSlice, Labels, Namespace, Node, ObjectName, Operator, Peer,
    Pod, Policy, PolicyPort, PortMatch, Protocol, Requirement, Rule, Selector, Service,
    ServicePort, SlicePort, Snapshot,
};

/// `a=1,b=2`.
pub(super) fn labels(text: &str) -> Labels {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').expect("KEY=VALUE");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

pub(super) fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').expect("NAMESPACE/NAME");
    ObjectName::new(namespace, name)
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace()
        .map(|ip| ip.parse().expect("an address"))
        .collect()
}

/// `http=8080/TCP 53/UDP`.
fn ports(text: &str) -> Vec<(String, u16, Protocol)> {
    text.split_whitespace()
        .map(|port| {
            let (name, port) = port.split_once('=').unwrap_or(("", port));
            let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
            let protocol = match protocol {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => Protocol::Sctp,
            };
            (name.to_owned(), port.parse().expect("a port"), protocol)
        })
        .collect()
}

/// A cluster to ask questions of.
#[derive(Clone, Default)]
pub(super) struct Cluster(pub(super) Snapshot);

impl Cluster {
    pub(super) fn namespace(mut self, name: &str, extra: &str) -> Self {
        let mut labels = labels(extra);
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        let namespace = Namespace {
            name: name.to_owned(),
            labels,
        };
        self.0
            .namespaces
            .insert(name.to_owned(), Arc::new(namespace));
        self
    }

    pub(super) fn node(mut self, name: &str, addresses: &str) -> Self {
        let node = Node {
            name: name.to_owned(),
            addresses: ips(addresses),
            primary: ips(addresses),
            ..Node::default()
        };
        self.0.nodes.insert(name.to_owned(), Arc::new(node));
        self
    }

    pub(super) fn pod(mut self, pod: &str, node: &str, at: &str, has: &str, open: &str) -> Self {
        let pod = Pod {
            name: name(pod),
            uid: pod.to_owned(),
            mirrors: None,
            scraped: None,
            labels: labels(has),
            ips: ips(at),
            host_network: false,
            terminal: false,
            node: node.to_owned(),
            ports: ports(open)
                .into_iter()
                .map(|(name, port, protocol)| ContainerPort {
                    name,
                    protocol,
                    port,
                })
                .collect(),
            created: 0,
        };
        self.0.pods.insert(pod.name.clone(), Arc::new(pod));
        self
    }

    pub(super) fn edit_pod(mut self, pod: &str, edit: impl FnOnce(&mut Pod)) -> Self {
        edit(Arc::make_mut(
            self.0.pods.get_mut(&name(pod)).expect("a pod"),
        ));
        self
    }

    pub(super) fn host_network(self, pod: &str) -> Self {
        self.edit_pod(pod, |pod| pod.host_network = true)
    }

    /// A Service; `open` is `NAME=PORT/PROTOCOL` with one targetPort for all of them.
    pub(super) fn service(
        mut self,
        service: &str,
        at: &str,
        selects: &str,
        open: &str,
        target: &str,
    ) -> Self {
        let service = Service {
            name: name(service),
            cluster_ips: ips(at),
            ports: ports(open)
                .into_iter()
                .map(|(name, port, protocol)| ServicePort {
                    name,
                    protocol,
                    port,
                    target_port: target.to_owned(),
                    ..ServicePort::default()
                })
                .collect(),
            selector: labels(selects),
            ..Service::default()
        };
        self.0
            .services
            .insert(service.name.clone(), Arc::new(service));
        self
    }

    pub(super) fn edit_service(mut self, at: &str, edit: impl FnOnce(&mut Service)) -> Self {
        let service = self.0.services.get_mut(&name(at)).expect("a Service");
        edit(Arc::make_mut(service));
        self
    }

    /// An EndpointSlice of one family with these pods; `open` as the controller would resolve it.
    pub(super) fn slice(mut self, service: &str, v4: bool, pods: &[&str], open: &str) -> Self {
        let endpoints = pods
            .iter()
            .map(|pod| {
                let pod = &self.0.pods[&name(pod)];
                let of_family = pod.ips.iter().find(|ip| ip.is_ipv4() == v4);
                Endpoint {
                    node: Some(pod.node.clone()),
                    pod: Some(pod.name.clone()),
                    ..Endpoint::new(*of_family.expect("address"))
                }
            })
            .collect();
        let service = name(service);
        let slice = EndpointSlice {
            name: ObjectName::new(
                &service.namespace,
                format!("{}-{}", service.name, self.0.slices.len()),
            ),
            service,
            endpoints,
            ports: ports(open)
                .into_iter()
                .map(|(name, port, protocol)| SlicePort {
                    name,
                    protocol,
                    port,
                })
                .collect(),
            trigger: None,
        };
        self.0.slices.insert(slice.name.clone(), Arc::new(slice));
        self
    }

    pub(super) fn edit_slices(mut self, change: impl FnMut(&mut EndpointSlice)) -> Self {
        edit(&mut self.0.slices, change);
        self
    }

    /// A policy as a user writes it, with policyTypes.
    pub(super) fn policy(mut self, yaml: &str) -> Self {
        let policy = serde_saphyr::from_str(yaml).expect("a NetworkPolicy");
        let policy = convert(policy);
        let old = self
            .0
            .policies
            .insert(policy.name.clone(), Arc::new(policy));
        assert!(old.is_none(), "replaces another policy:\n{yaml}");
        self
    }

    /// `spec` of a policy in one line.
    pub(super) fn rule(self, policy: &str, spec: &str) -> Self {
        let name = name(policy);
        self.policy(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: {}, name: {}}}\nspec: {spec}\n",
            name.namespace, name.name
        ))
    }

    pub(super) fn ask(&self, source: &str, destination: &str) -> Explanation {
        let question = Question::parse(source, destination).expect("a question");
        explain(&self.0, &question).expect("an answer")
    }

    pub(super) fn fail(&self, source: &str, destination: &str) -> String {
        let question = Question::parse(source, destination).expect("a question");
        explain(&self.0, &question)
            .expect_err("no answer")
            .to_string()
    }

    /// Applies all fixes of an answer verbatim.
    pub(super) fn fixed(&self, explanation: &Explanation) -> Self {
        explanation
            .fixes
            .iter()
            .fold(self.clone(), |cluster, fix| cluster.policy(&fix.yaml))
    }
}

fn convert(policy: api::NetworkPolicy) -> Policy {
    let spec = policy.spec.expect("spec");
    let types = spec.policy_types.expect("policyTypes");
    let ingress = types.contains(&"Ingress".to_owned()).then(|| {
        let rules = spec.ingress.unwrap_or_default().into_iter();
        rules.map(|r| rule(r.from, r.ports)).collect()
    });
    let egress = types.contains(&"Egress".to_owned()).then(|| {
        let rules = spec.egress.unwrap_or_default().into_iter();
        rules.map(|r| rule(r.to, r.ports)).collect()
    });
    Policy {
        name: ObjectName::new(
            policy.metadata.namespace.expect("namespace"),
            policy.metadata.name.expect("name"),
        ),
        uid: String::new(),
        labels: [].into(),
        pod_selector: spec.pod_selector.map(selector).unwrap_or_default(),
        ingress,
        egress,
    }
}

fn rule(
    peers: Option<Vec<api::NetworkPolicyPeer>>,
    ports: Option<Vec<api::NetworkPolicyPort>>,
) -> Rule {
    let peer = |peer: api::NetworkPolicyPeer| match peer.ip_block {
        Some(block) => Peer::Block {
            cidr: block.cidr.parse().expect("cidr"),
            except: block
                .except
                .unwrap_or_default()
                .iter()
                .map(|cidr| cidr.parse().expect("except"))
                .collect(),
        },
        None => Peer::Pods {
            namespaces: peer.namespace_selector.map(selector),
            pods: peer.pod_selector.map(selector),
        },
    };
    let port = |port: api::NetworkPolicyPort| PolicyPort {
        protocol: match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            _ => Protocol::Sctp,
        },
        port: match port.port {
            None => PortMatch::All,
            Some(IntOrString::String(name)) => PortMatch::Named(name),
            Some(IntOrString::Int(first)) => PortMatch::Range(
                first.try_into().expect("a port"),
                port.end_port.unwrap_or(first).try_into().expect("a port"),
            ),
        },
    };
    Rule {
        peers: peers.unwrap_or_default().into_iter().map(peer).collect(),
        ports: ports.unwrap_or_default().into_iter().map(port).collect(),
    }
}

fn selector(selector: LabelSelector) -> Selector {
    let equal = selector.match_labels.unwrap_or_default();
    let equal = equal.into_iter().map(|(key, value)| Requirement {
        key,
        operator: Operator::In([value].into()),
    });
    let expressions: BTreeMap<_, _> = selector
        .match_expressions
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .collect();
    let expressions = expressions.into_values().map(|expression| {
        let values = expression.values.unwrap_or_default().into_iter().collect();
        Requirement {
            key: expression.key,
            operator: match expression.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                _ => Operator::DoesNotExist,
            },
        }
    });
    Selector {
        requirements: equal.chain(expressions).collect(),
    }
}

/// The shop: two nodes, dual stack, a DNS Service, a Service per tier; nothing isolated.
pub(super) fn shop() -> Cluster {
    Cluster(Snapshot {
        node_name: "n1".to_owned(),
        ..Snapshot::default()
    })
    .node("n1", "192.168.0.1 fd0a::1")
    .node("n2", "192.168.0.2 fd0a::2")
    .namespace("shop", "team=shop")
    .namespace("web", "team=web")
    .namespace("kube-system", "")
    .pod("web/frontend", "n1", "10.1.0.2 fd01::2", "app=frontend", "")
    .pod(
        "shop/backend-1",
        "n1",
        "10.1.0.3 fd01::3",
        "app=backend,pod-template-hash=1a",
        "http=8080",
    )
    .pod(
        "shop/backend-2",
        "n2",
        "10.2.0.3 fd02::3",
        "app=backend,pod-template-hash=1a",
        "http=8080",
    )
    .pod(
        "shop/database",
        "n2",
        "10.2.0.4 fd02::4",
        "app=database",
        "sql=5432",
    )
    .pod(
        "kube-system/dns",
        "n1",
        "10.1.0.9 fd01::9",
        "k8s-app=kube-dns",
        "dns=5353/UDP dns-tcp=5353/TCP metrics=9153",
    )
    .service(
        "shop/backend",
        "10.96.0.10 fd96::10",
        "app=backend",
        "80",
        "http",
    )
    .slice(
        "shop/backend",
        true,
        &["shop/backend-1", "shop/backend-2"],
        "8080",
    )
    .slice(
        "shop/backend",
        false,
        &["shop/backend-1", "shop/backend-2"],
        "8080",
    )
    .service(
        "kube-system/kube-dns",
        "10.96.0.53 fd96::53",
        "k8s-app=kube-dns",
        "dns=53/UDP dns-tcp=53/TCP",
        "dns",
    )
    .slice(
        "kube-system/kube-dns",
        true,
        &["kube-system/dns"],
        "dns=5353/UDP dns-tcp=5353/TCP",
    )
    .slice(
        "kube-system/kube-dns",
        false,
        &["kube-system/dns"],
        "dns=5353/UDP dns-tcp=5353/TCP",
    )
}
