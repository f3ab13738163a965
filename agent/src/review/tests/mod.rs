mod changes;
mod coverage;
mod guards;
mod in_use;
mod matrix;
mod pieces;
mod worlds;

use super::*;
use crate::source::manifests;

/// A shop as a repository has it: two workloads, nothing that a cluster adds.
pub(super) const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: front}
spec: {template: {metadata: {labels: {app: front}}, spec: {containers: [{name: c}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {namespace: shop, name: back}
spec: {template: {metadata: {labels: {app: back}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}}}
";

/// The rest of a cluster: two nodes, DNS, the API server and Prometheus.
pub(super) const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {zone: a}}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {zone: b}}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: kube-system, name: coredns-1, labels: {k8s-app: kube-dns}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: kube-system, name: kube-dns}
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, targetPort: 5353, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 5353}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: default, name: kubernetes}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{name: https, port: 6443}]
endpoints: [{addresses: [192.168.0.1]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: monitoring, name: prometheus-0, labels: {app.kubernetes.io/name: prometheus}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.10}]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}
---
";

pub(super) fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// A pod that a Deployment has made.
pub(super) fn made(name: &str, app: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: {name}, labels: {{app: {app}, pod-template-hash: abc}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: {address}}}]}}\n"
    )
}

pub(super) fn proposal(cluster: &str, manifests: &str) -> Proposal {
    let read = |text: &str| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, text).expect("a file");
        let repository = manifests::read(&[file], false).expect("a file");
        assert_eq!(repository.refused, [], "{text}");
        repository
    };
    let proposed = read(manifests);
    Proposal {
        cluster: read(cluster).objects,
        manifests: proposed.objects,
        locations: proposed.locations,
        ..Proposal::default()
    }
}

pub(super) fn reviewed(cluster: &str, manifests: &str) -> Review {
    review(&proposal(cluster, manifests))
}

fn end(end: &End) -> String {
    match end {
        End::Pods {
            namespace,
            workload,
            pods,
        } => format!("{namespace}/{workload}*{pods}"),
        End::Nodes { addresses } => format!("{addresses:?}"),
        End::Outside { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr}[{}]", except.join(" "))
        }
    }
}

/// Changes, one a line.
pub(super) fn lines(changes: &[Change]) -> Vec<String> {
    let ends = |ends: &[End]| ends.iter().map(end).collect::<Vec<_>>().join(" ");
    let lines = changes.iter().map(|change| {
        let because = change.because.iter().map(|decision| {
            let names = decision.all_policies().map(|name| name.name.as_str());
            format!(
                "{} {:?} {}",
                decision.direction.as_str(),
                decision.outcome,
                names.collect::<Vec<_>>().join(" ")
            )
        });
        format!(
            "{} -> {}: {}{} | {}",
            ends(&change.from),
            ends(&change.to),
            in_words(&change.ports),
            if change.families.is_empty() {
                String::new()
            } else {
                format!(" {:?}", change.families)
            },
            because.collect::<Vec<_>>().join(", ")
        )
    });
    lines.collect()
}
