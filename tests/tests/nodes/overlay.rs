//! Services through an overlay: what `from_pod` translates and `to_pod` translates back, conntrack, the reverse path check and
//! masquerading in between find in order.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::probe::{EchoServer, Mirror, Probe, Protocol};
use weir_tests::topology::{DualStack, OVERLAY_MTU, TUNNEL_V4, TUNNEL_V6, Transmitted};

use crate::fixture::{Fixture, MIRROR, OVERLAYS, PORT, cluster_ips, each, service, to_mirror};

/// A transfer takes well under a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

const MEGABYTES_5: u32 = 5_000_000;

/// The longest frame on the underlay. What is longer is cut in segments later, if ever.
const FRAME: u64 = 1514;

#[test]
fn transfers_through_services_cross_the_overlay_whole() -> Result<()> {
    each(&OVERLAYS, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let _mirror = Mirror::start(&fixture.place("far"), MIRROR)?;
        let mirror = service("mirror", "app", "far", 30);
        fixture.apply("mirror.yaml", &to_mirror(&mirror))?;
        let topology = fixture.cluster.topology();
        for ip in cluster_ips(30) {
            let sent = transfers(&fixture, ip)?;
            println!("{variant:?} {ip}: {sent:?}");
            ensure!(sent.in_tunnel.mean_size() > 2 * FRAME, "{sent:?}");
        }
        for node in topology.nodes() {
            node.finish_frames()?;
        }
        for ip in cluster_ips(30) {
            let sent = transfers(&fixture, ip)?;
            println!("{variant:?} {ip}, finished: {sent:?}");
            ensure!(sent.in_tunnel.mean_size() > 2 * FRAME, "{sent:?}");
            ensure!(sent.on_wire.mean_size() <= FRAME, "{sent:?}");
        }
        variant.ensure_nothing_dropped(topology)
    })
}

/// What node1 sent while its pod transferred by TCP.
#[derive(Debug)]
struct Sent {
    in_tunnel: Transmitted,
    on_wire: Transmitted,
}

fn transfers(fixture: &Fixture, ip: IpAddr) -> Result<Sent> {
    let node = fixture.cluster.topology().node("node1");
    let (tunnel, headers) = if ip.is_ipv4() {
        (TUNNEL_V4, 28)
    } else {
        (TUNNEL_V6, 48)
    };
    let transmitted = || anyhow::Ok([node.transmitted(tunnel)?, node.transmitted("eth0")?]);
    let (client, probe) = (
        fixture.place("client"),
        Probe::tcp((ip, 80).into()).timeout(PATIENCE),
    );
    let before = transmitted()?;
    probe.transfer(&client, MEGABYTES_5)?;
    let after = transmitted()?;
    for protocol in [Protocol::Udp, Protocol::UdpUnconnected] {
        // What fills a tunnel, and what is sent in pieces.
        for length in [u32::from(OVERLAY_MTU) - headers, 4000] {
            probe.protocol(protocol).transfer(&client, length)?;
        }
    }
    let [in_tunnel, on_wire] = [0, 1].map(|device| after[device].since(before[device]));
    ensure!(
        in_tunnel.bytes > MEGABYTES_5.into(),
        "{tunnel} sent {in_tunnel:?}"
    );
    Ok(Sent { in_tunnel, on_wire })
}

#[test]
fn a_service_leads_out_of_the_cluster_through_masquerading() -> Result<()> {
    each(&OVERLAYS, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let outside = fixture.cluster.topology().host("outside");
        let addresses = outside.addresses();
        let _server = EchoServer::start(outside, "outside", PORT)?;
        fixture.apply("outside.yaml", &without_selector("outside", 31, addresses))?;
        let topology = fixture.cluster.topology();
        topology.node("node1").finish_frames()?;
        for to in cluster_ips(31) {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected] {
                let outcome = Probe::tcp((to, 80).into())
                    .protocol(protocol)
                    .run(topology.pod("client"));
                // A machine that knows no pods has seen the node, and the client the Service.
                let node = topology.node("node1").addresses().like(to);
                ensure!(
                    outcome.identity() == Some("outside")
                        && outcome.source().map(|source| source.ip()) == Some(node),
                    "{to} {protocol:?}: {outcome:?}"
                );
            }
        }
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// A Service whose EndpointSlices name machines that are no pods.
fn without_selector(name: &str, end: u8, backend: DualStack) -> String {
    let selector = format!("selector: {{app: {name}}}");
    let mut objects = service(name, "app", name, end).replace(&selector, "type: ClusterIP");
    for ip in backend.both() {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        objects += &slice(name, family, ip);
    }
    objects
}

pub(crate) fn slice(service: &str, family: &str, ip: IpAddr) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-{0}, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: {family}\n\
         ports: [{{name: tcp, port: {PORT}, protocol: TCP}}, {{name: udp, port: {PORT}, protocol: UDP}}]\n\
         endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]\n",
        family.to_lowercase()
    )
}
