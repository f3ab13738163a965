//! What else runs on a cluster goes on working with no kube-proxy: names, the API server's Service, host networks, host ports,
//! the kubelet's probes, and what `kubectl` does to pods.

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cluster::http;
use weir_tests::lab::{self, Lab, pod};

use crate::fixture::{cluster, eventually};
use crate::plugin;

/// Where the kubelet looks, and others too.
const HTTP: &str = ", args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}, \
                    livenessProbe: {httpGet: {path: /healthz, port: 8080}}";

/// The port of a node that leads to a pod.
const HOST_PORT: u16 = 18081;

/// The port of a server on a node's own network.
const NODE_SERVER: u16 = 18080;

/// A Service of the server on the host's network, and a policy under which only probes and host networks reach a pod.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: on-host}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: host-server}
  ports: [{port: 80, targetPort: 18080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec:
  podSelector: {matchLabels: {app: closed}}
  policyTypes: [Ingress]
---
";

/// In a soak whosever sockets are served. Where nobody's are, a node's own processes have no way to Services, and everything else works.
#[test]
fn a_cluster_works_with_no_kube_proxy() -> Result<()> {
    works(&[], true)?;
    if weir_tests::soaks() {
        works(&["WEIR_SOCKET_LB=all"], true)?;
        works(&["WEIR_SOCKET_LB=none"], false)?;
    }
    Ok(())
}

fn works(environment: &[&str], nodes_reach_services: bool) -> Result<()> {
    let Some(mut lab) = cluster(environment)? else {
        return Ok(());
    };
    let host = |pod: String| {
        pod.replace(
            "spec:\n",
            "spec:\n  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet\n",
        )
    };
    let on_host = HTTP.replace("8080", &NODE_SERVER.to_string());
    let port = format!("{HTTP}, ports: [{{containerPort: 8080, hostPort: {HOST_PORT}}}]");
    let mut objects = OBJECTS.to_owned();
    for node in ["node1", "node2"] {
        objects += &pod(&format!("client-{node}"), node, "");
    }
    objects += &host(pod("host-client", "node1", ""));
    objects += &host(pod("host-server", "node2", &on_host));
    objects += &pod("closed", "node2", HTTP);
    objects += &pod("published", "node2", &port);
    let pods = [
        "client-node1",
        "client-node2",
        "host-client",
        "host-server",
        "closed",
        "published",
    ];
    // Ready: the kubelet's probes reach pods, one that policy closes to everybody else included.
    lab.start_pods(&objects, &pods)?;
    for client in ["client-node1", "client-node2"] {
        names(&lab, client)?;
        fetch(&lab, client, "http://on-host.default/hostname", "node2")?;
        ensure!(refused(&lab, client, "closed")?, "{client} is let in");
    }
    if nodes_reach_services {
        names(&lab, "host-client")?;
        fetch(
            &lab,
            "host-client",
            "http://on-host.default/hostname",
            "node2",
        )?;
    } else {
        let answer = curl(&lab, "host-client", "https://10.96.0.1/livez");
        ensure!(answer.is_err(), "a node reached a Service: {answer:?}");
    }
    commands(&lab)?;
    published(&lab)?;
    plugin::asks_all_agents(&mut lab)
}

/// By both addresses of the DNS server's Service, and by the API server's.
fn names(lab: &Lab, client: &str) -> Result<()> {
    for server in lab::DNS.both() {
        eventually(|| {
            let question = [
                "exec",
                client,
                "--",
                "dig",
                "+short",
                "+search",
                &format!("@{server}"),
                "kubernetes.default",
            ];
            let answer = lab.kubectl(&question)?;
            ensure!(
                answer.lines().last() == Some("10.96.0.1"),
                "{server} answers {client} {answer:?}"
            );
            Ok(())
        })?;
    }
    fetch(lab, client, "https://kubernetes.default/livez", "ok")
}

fn curl(lab: &Lab, client: &str, url: &str) -> Result<String> {
    lab.kubectl(&[
        "exec",
        client,
        "--",
        "curl",
        "--silent",
        "--show-error",
        "--insecure",
        "--max-time",
        "5",
        url,
    ])
}

fn fetch(lab: &Lab, client: &str, url: &str, expected: &str) -> Result<()> {
    eventually(|| {
        let answer = curl(lab, client, url)?;
        ensure!(answer == expected, "{url} answers {client} {answer:?}");
        Ok(())
    })
}

/// Whether a pod's address answers nothing.
fn refused(lab: &Lab, client: &str, server: &str) -> Result<bool> {
    let url = format!("http://{}:8080/hostname", address(lab, server)?);
    let answer = lab.kubectl(&[
        "exec",
        client,
        "--",
        "curl",
        "--silent",
        "--max-time",
        "1",
        &url,
    ]);
    Ok(answer.is_err())
}

fn address(lab: &Lab, pod: &str) -> Result<String> {
    lab.kubectl(&["get", "pod", pod, "-o=jsonpath={.status.podIP}"])
}

/// `kubectl exec`, `logs`, `port-forward`.
fn commands(lab: &Lab) -> Result<()> {
    ensure!(lab.kubectl(&["exec", "closed", "--", "hostname"])? == "closed");
    let logs = lab.kubectl(&["logs", "closed"])?;
    ensure!(!logs.is_empty(), "a server that says nothing at its start");
    let logs = lab.kubectl(&["--namespace=weir-system", "logs", "daemonset/weir"])?;
    ensure!(logs.contains("\"level\""), "the agent's log: {logs}");
    let port = 28080;
    let forward = lab
        .kubectl_command()
        .args(["port-forward", "pod/closed", &format!("{port}:8080")])
        .stdout(Stdio::null())
        .spawn();
    let mut forward = forward.context("run kubectl port-forward")?;
    let answer = eventually(|| {
        http::get(
            lab.outside(),
            (Ipv4Addr::LOCALHOST, port).into(),
            "/hostname",
        )
    });
    forward.kill().context("stop kubectl port-forward")?;
    forward.wait()?;
    let (code, text) = answer?;
    ensure!(
        (code, text.as_str()) == (200, "closed"),
        "by port-forward: {code} {text}"
    );
    Ok(())
}

/// A host port leads to its pod, from outside the cluster and from pods.
fn published(lab: &Lab) -> Result<()> {
    let node = lab.node("node2")?.addresses().v4;
    let (code, text) =
        eventually(|| http::get(lab.outside(), (node, HOST_PORT).into(), "/hostname"))?;
    ensure!((code, text.as_str()) == (200, "published"), "{code} {text}");
    fetch(
        lab,
        "client-node1",
        &format!("http://{node}:{HOST_PORT}/hostname"),
        "published",
    )
}
