//! What the API says is what the kernel does: objects of every kind come, change and go.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::api::{admits, apply, delete, merge, namespace, object, pod, service};
use crate::cluster::{Cluster, Home, PORT, eventually};

#[test]
fn objects_come_change_and_go() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    let mut agent = cluster.start_agent(&home)?;
    // The API server's own Service, which it makes when it is ready.
    cluster.wait_objects(&home, "Service", 1)?;
    cluster.wait_objects(&home, "EndpointSlice", 1)?;
    let empty = cluster.dump(&home)?;

    services(&cluster, &home)?;
    policies(&cluster, &home)?;
    bad_objects(&cluster, &home)?;
    deletions(&mut cluster, &home, &empty)?;

    agent.ensure_running()?;
    cluster.control.ensure_running()
}

/// A Service with its endpoints, as the real controller makes them.
fn services(cluster: &Cluster, home: &Home) -> Result<()> {
    let control = &cluster.control;
    let web = service("shop", "web", "web");
    apply(control, std::slice::from_ref(&web))?;
    cluster.wait_backends(home, "web", &["web-1", "web-2"])?;
    let ips = cluster.cluster_ips("web")?;
    ensure!(ips.len() == 2, "a Service of both families: {ips:?}");
    let frontends = ips.iter().map(|&ip| SocketAddr::new(ip, 80));
    let frontends: Vec<_> = frontends.collect();
    for &to in &frontends {
        // Each of them in the end.
        for server in ["web-1", "web-2"] {
            cluster.reaches("client", to, &[server])?;
        }
    }
    let dump = cluster.dump(home)?.to_string();
    for to in &frontends {
        ensure!(dump.contains(&to.to_string()), "{to} is in no map: {dump}");
    }

    // Not ready: new connections go elsewhere, but not those of a Service that wants such endpoints too.
    let mut eager = service("shop", "eager", "web");
    eager["spec"]["publishNotReadyAddresses"] = true.into();
    apply(control, &[eager.clone()])?;
    ready(cluster, "web-1", false)?;
    cluster.wait_backends(home, "web", &["web-2"])?;
    cluster.wait_backends(home, "eager", &["web-1", "web-2"])?;
    for &to in &frontends {
        for _ in 0..10 {
            cluster.reaches("client", to, &["web-2"])?;
        }
    }
    ready(cluster, "web-1", true)?;
    cluster.wait_backends(home, "web", &["web-1", "web-2"])?;

    // Labels decide who is behind a Service.
    merge(control, &pod("shop", "web-2"), &labels("app", json!("off")))?;
    cluster.wait_backends(home, "web", &["web-1"])?;
    merge(control, &pod("shop", "web-2"), &labels("app", json!("web")))?;
    cluster.wait_backends(home, "web", &["web-1", "web-2"])?;

    // Another port: the former one leads nowhere.
    let mut moved = web.clone();
    for port in 0..2 {
        moved["spec"]["ports"][port]["port"] = 81.into();
    }
    apply(control, &[moved])?;
    for &ip in &ips {
        cluster.reaches("client", SocketAddr::new(ip, 81), &["web-1", "web-2"])?;
    }
    let dump = cluster.dump(home)?.to_string();
    for to in &frontends {
        ensure!(
            !dump.contains(&format!("\"{to}/")),
            "{to} is still in a map: {dump}"
        );
    }
    apply(control, &[web])?;
    for &to in &frontends {
        cluster.reaches("client", to, &["web-1", "web-2"])?;
    }
    Ok(())
}

/// A policy on `web-1`, and everything that its verdicts depend on.
fn policies(cluster: &Cluster, home: &Home) -> Result<()> {
    let control = &cluster.control;
    let both = |check: &dyn Fn(SocketAddr) -> Result<()>| {
        cluster.sockets("web-1").into_iter().try_for_each(check)
    };
    let open = |from: &'static str| both(&|to| cluster.reaches(from, to, &["web-1"]));
    let closed = |from: &'static str| both(&|to| cluster.is_denied(from, to));
    open("stranger")?;

    let clients = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    apply(control, &[admits("web", "web", json!([clients]))])?;
    closed("stranger")?;
    open("client")?;
    // By the Service's address too, whichever backend it takes: the other one's node has no agent here.
    for ip in cluster.cluster_ips("web")? {
        cluster.reaches("stranger", SocketAddr::new(ip, 80), &["web-2"])?;
        cluster.reaches("client", SocketAddr::new(ip, 80), &["web-1"])?;
    }

    // Labels of pods.
    merge(
        control,
        &pod("shop", "client"),
        &labels("app", json!("other")),
    )?;
    closed("client")?;
    merge(
        control,
        &pod("shop", "client"),
        &labels("app", json!("client")),
    )?;
    open("client")?;

    // Labels of namespaces.
    let teams = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    apply(control, &[admits("web", "web", json!([clients, teams]))])?;
    merge(control, &namespace("lab"), &labels("team", json!("a")))?;
    open("stranger")?;
    merge(control, &namespace("lab"), &labels("team", Value::Null))?;
    closed("stranger")?;

    // Rules: the same peers, another port.
    let mut narrow = admits("web", "web", json!([clients]));
    narrow["spec"]["ingress"][0]["ports"] = json!([{"protocol": "TCP", "port": PORT + 1}]);
    apply(control, &[narrow])?;
    closed("client")?;
    apply(control, &[admits("web", "web", json!([clients]))])?;
    open("client")?;

    // The selected pods.
    merge(control, &pod("shop", "web-1"), &labels("app", json!("off")))?;
    open("stranger")?;
    merge(control, &pod("shop", "web-1"), &labels("app", json!("web")))?;
    closed("stranger")?;
    cluster.wait_backends(home, "web", &["web-1", "web-2"])
}

/// What the API server takes and no proxy can use is named, and disturbs nothing.
fn bad_objects(cluster: &Cluster, home: &Home) -> Result<()> {
    let control = &cluster.control;
    let before = cluster.dump(home)?;
    let mut names = object("discovery.k8s.io/v1", "EndpointSlice", "shop", "names");
    names["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    names["addressType"] = "FQDN".into();
    names["endpoints"] = json!([{"addresses": ["web.example.com"]}]);
    names["ports"] = json!([{"name": "tcp", "protocol": "TCP", "port": 8080}]);
    let mut elsewhere = object("v1", "Service", "shop", "elsewhere");
    elsewhere["spec"] = json!({"type": "ExternalName", "externalName": "web.example.com"});
    apply(control, &[elsewhere.clone(), names.clone()])?;

    let rejections = || -> Result<Vec<Value>> {
        let mut status = cluster.ask(home, &["status"])?;
        serde_json::from_value(status["rejections"].take()).context("rejections")
    };
    let told = eventually("the slice of names is reported", || {
        let rejections = rejections()?;
        Ok(match &rejections[..] {
            [] => Err("nothing is".to_owned()),
            _ => Ok(rejections),
        })
    })?;
    let slice = told.first().filter(|_| told.len() == 1);
    let told_of = |field: &str| slice.and_then(|slice| slice[field].as_str()).unwrap_or("");
    ensure!(
        told_of("kind") == "EndpointSlice"
            && told_of("name") == "shop/names"
            && told_of("message").contains("FQDN"),
        "{told:?}"
    );
    ensure!(cluster.dump(home)? == before, "a bad object changes a map");
    cluster.wait_backends(home, "web", &["web-1", "web-2"])?;

    delete(control, &[names, elsewhere])?;
    eventually("what is gone is reported no more", || {
        let rejections = rejections()?;
        Ok(if rejections.is_empty() {
            Ok(())
        } else {
            Err(format!("{rejections:?}"))
        })
    })
}

/// Every kind goes, and leaves the maps as they were in the beginning.
fn deletions(cluster: &mut Cluster, home: &Home, empty: &Value) -> Result<()> {
    let policy = admits("web", "web", json!([]));
    delete(&cluster.control, &[policy])?;
    for to in cluster.sockets("web-1") {
        cluster.reaches("stranger", to, &["web-1"])?;
    }

    let frontends = cluster.cluster_ips("web")?;
    delete(&cluster.control, &[pod("shop", "web-2")])?;
    cluster.wait_backends(home, "web", &["web-1"])?;
    for &ip in &frontends {
        for _ in 0..10 {
            cluster.reaches("client", SocketAddr::new(ip, 80), &["web-1"])?;
        }
    }
    let gone = ["web", "eager"].map(|name| object("v1", "Service", "shop", name));
    delete(&cluster.control, &gone)?;
    let nodes = cluster.objects(home, "Node")?;
    delete(&cluster.control, &[object("v1", "Node", "", "node2")])?;
    cluster.wait_objects(home, "Node", nodes - 1)?;

    // A whole namespace, with what is in it.
    let namespaces = cluster.objects(home, "Namespace")?;
    let mut inside = admits("all", "any", json!([]));
    inside["metadata"]["namespace"] = "brief".into();
    let outside = [namespace("brief"), service("brief", "web", "web"), inside];
    apply(&cluster.control, &outside)?;
    cluster.wait_objects(home, "Namespace", namespaces + 1)?;
    cluster.wait_objects(home, "NetworkPolicy", 1)?;
    delete(&cluster.control, &[namespace("brief")])?;
    cluster.wait_objects(home, "Namespace", namespaces)?;
    cluster.wait_objects(home, "NetworkPolicy", 0)?;
    // `kubernetes` alone is left.
    cluster.wait_objects(home, "Service", 1)?;

    // The pod returns: nothing but its class was in the maps.
    let web = cluster.topology.pod("web-2");
    let publish = weir_tests::controlplane::publish_pod;
    let control = &cluster.control;
    control.block_on(async |client| publish(&client, web).await)?;
    eventually("the maps are as in the beginning", || {
        let dump = cluster.dump(home)?;
        Ok(if dump == *empty {
            Ok(())
        } else {
            Err(format!("{dump} instead of {empty}"))
        })
    })?;

    // A pod of this node goes for good: it has no address in the maps any more, and its device no programs.
    let address = cluster.topology.pod("stranger").addresses().v4.to_string();
    ensure!(empty.to_string().contains(&address), "{empty}");
    let veth = cluster.topology.pod("stranger").veth().to_owned();
    delete(&cluster.control, &[pod("lab", "stranger")])?;
    cluster.stop_servers();
    cluster.topology.remove_pod("stranger")?;
    eventually("nothing is left of the pod", || {
        let (dump, status) = (cluster.dump(home)?, cluster.ask(home, &["status"])?);
        let left =
            dump.to_string().contains(&address) || status["devices"].to_string().contains(&veth);
        Ok(if left {
            Err(format!("{dump} {status}"))
        } else {
            Ok(())
        })
    })
}

fn labels(key: &str, value: Value) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

/// Reports a pod's readiness, as its kubelet does.
fn ready(cluster: &Cluster, name: &str, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let conditions =
        ["ContainersReady", "Ready"].map(|kind| json!({"type": kind, "status": status}));
    let patch = json!({"status": {"conditions": conditions}});
    merge(&cluster.control, &pod("shop", name), &patch)
}
