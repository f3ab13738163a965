//! A default-deny breaks name lookups; what `weir explain --fix` prints mends them, applied as it is.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::cluster::Cluster;
use weir_tests::probe::{Answer, DnsServer, Outcome, Probe, Protocol, Query, Records};

use crate::fixture::{FEW, Variant, cluster_ips, each};

const NAME: &str = "web.default.svc.cluster.local";

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
";

#[test]
fn lookups_of_dns_pods_on_port_53() -> Result<()> {
    each(&FEW, |variant| on_pods(variant, 53))
}

#[test]
fn lookups_of_dns_pods_on_another_port() -> Result<()> {
    each(&FEW, |variant| on_pods(variant, 5353))
}

#[test]
fn lookups_of_dns_in_the_nodes_own_network() -> Result<()> {
    each(&FEW, |variant| {
        let spec = variant.nodes().pod("client", "node1", &[]);
        let mut cluster = Cluster::build(&spec, variant.attach)?;
        let mut servers = Vec::new();
        let mut pods = String::new();
        for node in cluster.topology().nodes() {
            let [v4, v6] = node.addresses().both();
            for ip in [v4, v6] {
                servers.push(DnsServer::start_on(
                    node,
                    SocketAddr::new(ip, 53),
                    records(),
                )?);
            }
            pods += &format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: dns-{0}, namespace: kube-system, uid: dns-{0}, labels: {{k8s-app: kube-dns}}}}\n\
                 spec: {{nodeName: {0}, hostNetwork: true, containers: [{{name: dns, image: dns}}]}}\n\
                 status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]}}\n",
                node.name()
            );
        }
        cluster.apply("dns.yaml", &(service(53) + &pods))?;
        breaks_and_is_mended(&mut cluster)?;
        variant.ensure_nothing_dropped(cluster.topology())
    })
}

fn on_pods(variant: Variant, port: u16) -> Result<()> {
    let spec = variant
        .nodes()
        .pod("client", "node1", &[])
        .pod_in("kube-system", "dns-1", "node1", &[("k8s-app", "kube-dns")])
        .pod_in("kube-system", "dns-2", "node2", &[("k8s-app", "kube-dns")]);
    let mut cluster = Cluster::build(&spec, variant.attach)?;
    let server = |pod| DnsServer::start(cluster.topology().pod(pod), port, records());
    let _servers = [server("dns-1")?, server("dns-2")?];
    cluster.apply("dns.yaml", &service(port))?;
    breaks_and_is_mended(&mut cluster)?;
    variant.ensure_nothing_dropped(cluster.topology())
}

fn breaks_and_is_mended(cluster: &mut Cluster) -> Result<()> {
    cluster.start_agents()?;
    ensure_lookups(cluster, true)?;
    cluster.apply("deny.yaml", DENY)?;
    cluster.settle()?;
    ensure_lookups(cluster, false)?;
    let question = [
        "explain",
        "default/client",
        "kube-system/svc/kube-dns:53/UDP",
    ];
    let answer = cluster.ask("node1", &question)?;
    ensure!(
        answer.code == Some(1) && answer.stdout.contains("default/default-deny"),
        "{answer:?}"
    );
    let fix = cluster.ask("node1", &[&question[..], &["--fix"]].concat())?;
    cluster.apply("fix.yaml", &fix.stdout)?;
    cluster.settle()?;
    ensure_lookups(cluster, true)?;
    let answer = cluster.ask("node1", &question)?;
    ensure!(answer.code == Some(0), "{answer:?}");
    Ok(())
}

/// Several lookups each way, so that every server gets some.
fn ensure_lookups(cluster: &Cluster, answered: bool) -> Result<()> {
    let timeout = Duration::from_millis(if answered { 3000 } else { 300 });
    for ip in cluster_ips(53) {
        for protocol in [Protocol::Udp, Protocol::UdpUnconnected, Protocol::Tcp] {
            for _ in 0..if answered { 8 } else { 2 } {
                let query = Query {
                    probe: Probe::tcp(SocketAddr::new(ip, 53))
                        .protocol(protocol)
                        .timeout(timeout),
                    name: NAME.to_owned(),
                    ipv6: false,
                };
                let answer = query.run(cluster.topology().pod("client"));
                let expected = if answered {
                    Answer::Addresses(records()[NAME].clone())
                } else {
                    Answer::None(Outcome::Timeout)
                };
                ensure!(
                    answer == expected,
                    "{ip} {protocol:?}: {answer:?} instead of {expected:?}"
                );
            }
        }
    }
    Ok(())
}

fn records() -> Records {
    Records::from([(NAME.to_owned(), vec![[10, 96, 0, 7].into()])])
}

fn service(port: u16) -> String {
    let [v4, v6] = cluster_ips(53);
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}\n\
         spec:\n  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]\n  ipFamilyPolicy: RequireDualStack\n  selector: {{k8s-app: kube-dns}}\n\
         \x20 ports:\n  - {{name: dns, port: 53, targetPort: {port}, protocol: UDP}}\n  - {{name: dns-tcp, port: 53, targetPort: {port}, protocol: TCP}}\n"
    )
}
