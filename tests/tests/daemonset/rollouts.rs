//! Rolling updates of what a Service leads to, as users write them: no request may fail, wherever it comes from.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::lab::{AGNHOST, Lab, Node, pod};

use crate::fixture::{cluster, eventually};
use crate::requests::{Kind, Requests};

const REPLICAS: usize = 3;
/// Rounds of the update.
const ROUNDS: usize = 3;
const SOAK_ROUNDS: usize = 10;
/// How long a pod serves after it is told to end, for everybody to hear of it.
const GRACE: u64 = 4;

/// Node ports by externalTrafficPolicy, and where a load balancer asks which nodes have endpoints.
const CLUSTER: u16 = 30080;
const LOCAL: u16 = 30081;
const HEALTH: u16 = 30082;

fn objects() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {REPLICAS}
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: main
          image: '{AGNHOST}'
          args: [netexec, --http-port=8080]
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
          lifecycle: {{preStop: {{sleep: {{seconds: {GRACE}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {CLUSTER}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web-local}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: {HEALTH}
  ipFamilyPolicy: RequireDualStack
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {LOCAL}}}]
---
"
    )
}

/// A process of the node's own that asks all addresses in turn, each time by a connection of its own, and writes who answered.
fn asking(node: &str, addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}/hostname"))
        .collect();
    let script = format!(
        "while sleep 0.02; do for url in {}; do curl --silent --show-error --globoff --max-time 5 $url 2>&1 && echo || echo FAILED; done; done",
        urls.join(" ")
    );
    pod("asking", node, &format!(", command: [sh, -c, '{script}']"))
        .replace("spec:\n", "spec:\n  hostNetwork: true\n")
}

#[test]
fn rolling_updates_lose_no_request() -> Result<()> {
    let Some(lab) = cluster(&[])? else {
        return Ok(());
    };
    lab.apply(&objects())?;
    roll(&lab, "status")?;
    let services: Vec<_> = cluster_ips(&lab)?
        .into_iter()
        .map(|ip| SocketAddr::new(ip, 80))
        .collect();
    let clients = asking("node1", &services) + &pod("client", "node2", "");
    lab.start_pods(&clients, &["asking", "client"])?;
    let requests = clients_of(&lab, &services)?;
    let rounds = if weir_tests::soaks() {
        SOAK_ROUNDS
    } else {
        ROUNDS
    };
    for round in 0..rounds {
        roll(&lab, "restart")?;
        roll(&lab, "status").with_context(|| format!("round {round}"))?;
    }
    // The last ones are still on their way out.
    thread::sleep(Duration::from_secs(GRACE + 2));
    let mut seen = BTreeSet::new();
    for client in requests {
        let tally = client.finish()?;
        println!("{}", tally.summary());
        tally.ensure_answered()?;
        // A connection that is kept lasts as long as its pod does.
        ensure!(tally.closed <= rounds * REPLICAS, "{}", tally.summary());
        seen.extend(tally.answered.into_keys());
    }
    // Each round has replaced all pods.
    ensure!(seen.len() == (rounds + 1) * REPLICAS, "{seen:?} answered");
    nodes_own(&lab, &seen)
}

/// New connections and kept ones from a pod; from outside, to all nodes, and to those that a load balancer would choose.
fn clients_of(lab: &Lab, services: &[SocketAddr]) -> Result<Vec<Requests>> {
    let pod = lab.place("default", "client")?;
    let nodes = ["node1", "node2"]
        .map(|node| lab.node(node).map(Node::addresses))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut requests = Vec::new();
    for &service in services {
        eventually(|| Requests::once(&pod, service))?;
        requests.push(Requests::start(&pod, Kind::New, vec![service])?);
        requests.push(Requests::start(&pod, Kind::Kept, vec![service])?);
        let at = |port| -> Vec<_> {
            let ips = nodes.iter().map(|node| node.like(service.ip()));
            ips.map(|ip| SocketAddr::new(ip, port)).collect()
        };
        for address in at(CLUSTER) {
            eventually(|| Requests::once(lab.outside(), address))?;
        }
        requests.push(Requests::start(lab.outside(), Kind::New, at(CLUSTER))?);
        requests.push(Requests::start(lab.outside(), Kind::Kept, at(CLUSTER))?);
        let balanced = Kind::Balanced { health: HEALTH };
        requests.push(Requests::start(lab.outside(), balanced, at(LOCAL))?);
    }
    Ok(requests)
}

/// What the process on the node has written.
fn nodes_own(lab: &Lab, seen: &BTreeSet<String>) -> Result<()> {
    let log = lab.kubectl(&["logs", "asking"])?;
    let strange: Vec<_> = log
        .lines()
        .filter(|line| !seen.contains(*line))
        .take(5)
        .collect();
    println!("the node's own: {} requests", log.lines().count());
    ensure!(
        strange.is_empty(),
        "the node's own requests: {strange:?}, among {}",
        log.lines().count()
    );
    ensure!(log.lines().count() > 100, "few requests: {log}");
    Ok(())
}

fn cluster_ips(lab: &Lab) -> Result<Vec<IpAddr>> {
    let addresses = lab.kubectl(&["get", "service", "web", "-o=jsonpath={.spec.clusterIPs[*]}"])?;
    let addresses = addresses.split_whitespace().map(str::parse);
    addresses
        .collect::<Result<_, _>>()
        .context("cluster IPs of a Service")
}

fn roll(lab: &Lab, what: &str) -> Result<()> {
    let mut words = vec!["rollout", what, "deployment/web"];
    if what == "status" {
        words.push("--timeout=120s");
    }
    lab.kubectl(&words).map(drop)
}
