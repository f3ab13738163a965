//! NetworkPolicies, as clients in pods and on nodes see them.

use anyhow::Result;
use weir_tests::probe::Protocol::{Tcp, Udp};

use crate::fixture::{ALL, DENY, Fixture, PORT, each, vip};

#[test]
fn policies_hold_on_the_same_node_and_across_nodes() -> Result<()> {
    each(&ALL, |variant| {
        let mut fixture = Fixture::new(variant)?;
        for client in ["client", "other", "far"] {
            fixture.ensure_reaches(client, Tcp, fixture.server("near"), &["near"])?;
        }
        fixture.apply("deny.yaml", DENY)?;
        for client in ["client", "other", "spare"] {
            for protocol in [Tcp, Udp] {
                fixture.ensure_silence(client, protocol, fixture.server("near"))?;
                fixture.ensure_silence(client, protocol, fixture.server("far"))?;
                fixture.ensure_silence(client, protocol, vip("near", 80))?;
            }
        }
        // Who is denied is not isolated for what it opens itself.
        fixture.ensure_reaches("near", Tcp, fixture.server("client"), &["client"])?;
        the_kubelet_is_exempt(&fixture)?;

        fixture.apply("allow.yaml", &allow("client"))?;
        for name in ["near", "far"] {
            fixture.ensure_reaches("client", Tcp, fixture.server(name), &[name])?;
            fixture.ensure_reaches("client", Tcp, vip(name, 80), &[name])?;
            fixture.ensure_silence("client", Udp, fixture.server(name))?;
            fixture.ensure_silence("other", Tcp, fixture.server(name))?;
        }
        // The same file with another peer: one is let in as the other is shut out.
        fixture.apply("allow.yaml", &allow("other"))?;
        fixture.ensure_reaches("other", Tcp, fixture.server("far"), &["far"])?;
        fixture.ensure_silence("client", Tcp, fixture.server("far"))?;

        fixture.cluster.delete("allow.yaml")?;
        fixture.cluster.delete("deny.yaml")?;
        fixture.cluster.settle()?;
        fixture.ensure_reaches("client", Udp, fixture.server("far"), &["far"])?;
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// What is born on a pod's own node may probe it; what comes from another node may not.
fn the_kubelet_is_exempt(fixture: &Fixture) -> Result<()> {
    for protocol in [Tcp, Udp] {
        fixture.ensure_reaches("node1", protocol, fixture.server("near"), &["near"])?;
        fixture.ensure_reaches("node2", protocol, fixture.server("far"), &["far"])?;
        fixture.ensure_silence("node2", protocol, fixture.server("near"))?;
        fixture.ensure_silence("node1", protocol, fixture.server("far"))?;
    }
    Ok(())
}

fn allow(client: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow, namespace: default}}
spec:
  podSelector: {{matchLabels: {{tier: back}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: {client}}}}}}}]
    ports: [{{port: {PORT}, protocol: TCP}}]
"
    )
}
