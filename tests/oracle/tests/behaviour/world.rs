//! The cluster of these tests, and the questions they ask it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use weir_oracle::{
    Cluster, ClusterNetworkPolicy, Flow, Judgement, addresses, judge, judge_cluster_wide,
    parse_address, protocol,
};

pub(crate) const ALLOW: bool = true;
pub(crate) const DENY: bool = false;

/// Protocol and destination port.
pub(crate) type Service = (u8, u16);

pub(crate) const HTTP: Service = (protocol::TCP, 80);
pub(crate) const PING: Service = (protocol::ICMP, 0);
pub(crate) const GRE: Service = (protocol::GRE, 0);
/// An address outside the cluster.
pub(crate) const WORLD: &str = "203.0.113.9";
pub(crate) const WORLD6: &str = "2001:db8::9";

pub(crate) fn tcp(port: u16) -> Service {
    (protocol::TCP, port)
}

pub(crate) fn udp(port: u16) -> Service {
    (protocol::UDP, port)
}

pub(crate) fn sctp(port: u16) -> Service {
    (protocol::SCTP, port)
}

/// Pods `a` (node-1) and `b` (node-2) in each of the namespaces `x`, `y` and `z`, with a label of
/// their name; in `z` a pod without labels, and the namespace `z` has no labels either.
pub(crate) struct World(pub(crate) Cluster);

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self(Cluster::default());
        for (name, labels) in [
            ("x", "{team: x, env: prod}"),
            ("y", "{team: y, env: prod}"),
            ("z", "{}"),
        ] {
            world.namespace(&format!("{{metadata: {{name: {name}, labels: {labels}}}}}"));
        }
        for number in [1, 2] {
            world.node(&format!(
                "{{metadata: {{name: node-{number}}}, status: {{addresses: [
                    {{type: InternalIP, address: 192.168.1.{number}}}, {{type: InternalIP, address: 'fd00:1::{number}'}}]}}}}"
            ));
        }
        for (third, namespace) in [(1, "x"), (2, "y"), (3, "z")] {
            world.pod(&plain_pod(namespace, "a", "{app: a}", 1, third, 1));
            world.pod(&plain_pod(namespace, "b", "{app: b}", 2, third, 2));
        }
        world.pod(&plain_pod("z", "bare", "{}", 1, 3, 3));
        world
    }

    pub(crate) fn namespace(&mut self, yaml: &str) {
        self.0
            .namespaces
            .push(serde_saphyr::from_str::<Namespace>(yaml).expect(yaml));
    }

    pub(crate) fn node(&mut self, yaml: &str) {
        self.0
            .nodes
            .push(serde_saphyr::from_str::<Node>(yaml).expect(yaml));
    }

    pub(crate) fn pod(&mut self, yaml: &str) {
        self.0
            .pods
            .push(serde_saphyr::from_str::<Pod>(yaml).expect(yaml));
    }

    /// Adds the policy `namespace/name` with this spec.
    pub(crate) fn policy(&mut self, namespace: &str, name: &str, spec: &str) {
        let yaml = format!("metadata: {{namespace: {namespace}, name: {name}}}\nspec: {spec}");
        self.0
            .policies
            .push(serde_saphyr::from_str::<NetworkPolicy>(&yaml).expect(&yaml));
    }

    /// Adds the cluster-wide policy `name` with this spec.
    pub(crate) fn cluster_policy(&mut self, name: &str, spec: &str) {
        let yaml = format!("metadata: {{name: {name}}}\nspec: {spec}");
        let policy = serde_saphyr::from_str::<ClusterNetworkPolicy>(&yaml).expect(&yaml);
        self.0.cluster_policies.push(policy);
    }

    /// The world with one policy named `only`.
    pub(crate) fn with(namespace: &str, spec: &str) -> Self {
        let mut world = Self::new();
        world.policy(namespace, "only", spec);
        world
    }

    /// `x/a` is that pod's IPv4 address, `x/a#6` its IPv6 address; a node's name likewise; all else
    /// must be an address.
    pub(crate) fn address(&self, end: &str) -> IpAddr {
        let (name, ipv6) = end
            .strip_suffix("#6")
            .map_or((end, false), |name| (name, true));
        let shown: Vec<IpAddr> = match name.split_once('/') {
            Some((namespace, name)) => addresses(self.find_pod(namespace, name)),
            None if name.starts_with("node-") => self.node_addresses(name),
            None => return end.parse().expect(end),
        };
        shown
            .into_iter()
            .find(|address| address.is_ipv6() == ipv6)
            .expect(end)
    }

    pub(crate) fn find_pod(&self, namespace: &str, name: &str) -> &Pod {
        let named = |pod: &&Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref() == Some(name)
        };
        self.0
            .pods
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("no pod {namespace}/{name}"))
    }

    fn node_addresses(&self, name: &str) -> Vec<IpAddr> {
        let node = self
            .0
            .nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some(name))
            .expect(name);
        let listed = node
            .status
            .as_ref()
            .and_then(|status| status.addresses.as_ref())
            .expect(name);
        listed
            .iter()
            .filter_map(|entry| parse_address(&entry.address))
            .collect()
    }

    pub(crate) fn flow(
        &self,
        from: &str,
        to: &str,
        (protocol, destination_port): Service,
        observer: &str,
    ) -> Flow {
        Flow {
            source: self.address(from),
            destination: self.address(to),
            protocol,
            destination_port,
            observer_node: observer.to_owned(),
            born_on_node: false,
        }
    }

    /// The verdicts of every node together, which must be the cluster's.
    pub(crate) fn judge(&self, from: &str, to: &str, service: Service) -> Judgement {
        let mut both = Judgement::default();
        for observer in ["node-1", "node-2"] {
            let seen = judge(&self.0, &self.flow(from, to, service, observer));
            both.egress = both.egress.or(seen.egress);
            both.ingress = both.ingress.or(seen.ingress);
        }
        assert_eq!(
            both,
            judge_cluster_wide(&self.0, &self.flow(from, to, service, "elsewhere"))
        );
        both
    }

    /// The verdict on a packet that `node` itself sends, as `node` sees it.
    pub(crate) fn judge_from_host(
        &self,
        node: &str,
        from: &str,
        to: &str,
        service: Service,
    ) -> Judgement {
        judge(
            &self.0,
            &Flow {
                born_on_node: true,
                ..self.flow(from, to, service, node)
            },
        )
    }

    /// Checks flows: from, to, service, allowed.
    #[track_caller]
    pub(crate) fn check(&self, flows: &[(&str, &str, Service, bool)]) {
        for &(from, to, service, expected) in flows {
            let judgement = self.judge(from, to, service);
            assert_eq!(
                judgement.allowed(),
                expected,
                "{from} -> {to} {service:?}: {judgement:#?}"
            );
        }
    }
}

/// A running pod with addresses of both families, whose port `http` is 80.
pub(crate) fn plain_pod(
    namespace: &str,
    name: &str,
    labels: &str,
    node: u8,
    third: u8,
    last: u8,
) -> String {
    format!(
        "{{metadata: {{namespace: {namespace}, name: {name}, labels: {labels}}},
           spec: {{nodeName: node-{node}, containers: [{{name: main, ports: [{{name: http, containerPort: 80}}]}}]}},
           status: {{phase: Running, podIP: 10.1.{third}.{last},
                    podIPs: [{{ip: 10.1.{third}.{last}}}, {{ip: 'fd00:10:{third}::{last}'}}]}}}}"
    )
}
