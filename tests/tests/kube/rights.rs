//! The rights that the manifest for users gives are enough, and an agent that lost one does no harm.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::controlplane::ControlPlane;
use weir_tests::process::Process;
use weir_tests::topology::least_privilege;

use crate::api::{admits, apply, get, object, service};
use crate::cluster::{Cluster, Home, NODE, eventually};
use crate::events;

const NAMESPACE: &str = "weir-system";
const ACCOUNT: &str = "weir";
/// Where the kubelet puts a pod's credentials, below /var/run.
const CREDENTIALS: &str = "secrets/kubernetes.io/serviceaccount";
/// A file system of the agent alone over /var/run with those credentials, as in a pod, and then the agent.
const POD: &str = r#"set -e
mount -t tmpfs tmpfs /var/run
mkdir -p "/var/run/$2"
cp "$1"/* "/var/run/$2"
shift 2
exec "$@""#;

#[test]
fn the_manifests_rights_are_enough() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let manifest = manifest()?;
    apply(&cluster.control, &manifest)?;
    let credentials = credentials(&cluster.control)?;
    let home = cluster.home("weir");
    let mut agent = start(&cluster, &home, credentials.path())?;
    cluster.wait_synced(&mut agent, &home)?;

    // Every watch works with them, beyond its first list.
    apply(&cluster.control, &[service("shop", "web", "web")])?;
    cluster.wait_backends(&home, "web", &["web-1", "web-2"])?;
    for ip in cluster.cluster_ips("web")? {
        cluster.reaches("client", SocketAddr::new(ip, 80), &["web-1", "web-2"])?;
    }
    events::tells_of_a_bad_slice(&cluster)?;
    let logs = agent.logs();
    ensure!(
        !forbidden(&logs),
        "the agent lacks rights that it wants: {logs}"
    );
    ensure!(
        logs.contains("watch failed"),
        "the first API server is dead: {logs}"
    );
    may_do_nothing_else(&cluster.control)?;

    // Without the last right: while one kind cannot be listed, the kernel keeps what it has.
    let clients = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    apply(&cluster.control, &[admits("web", "web", clients)])?;
    for to in cluster.sockets("web-1") {
        cluster.is_denied("stranger", to)?;
    }
    let maps = cluster.dump(&home)?;
    let role = manifest
        .iter()
        .find(|object| object["kind"] == "ClusterRole");
    let role = role.context("the manifest has a role")?;
    let mut poorer = role.clone();
    let rules = poorer["rules"].as_array_mut().context("rules")?;
    let lost = rules.pop().context("a rule")?;
    ensure!(
        lost["resources"] == json!(["networkpolicies", "servicecidrs"]),
        "{lost}"
    );
    apply(&cluster.control, &[poorer])?;
    agent.restart()?;
    cluster.wait_answers(&mut agent, &home)?;
    eventually("the agent is refused one kind", || {
        let mut status = cluster.ask(&home, &["status"])?;
        let watches = status["watches"].take();
        let listed = watches.as_array().into_iter().flatten();
        let listed = listed.filter(|watch| watch["synced"] == true).count();
        let refused = forbidden(&agent.logs());
        Ok(if refused && listed == 6 {
            Ok(())
        } else {
            Err(watches.to_string())
        })
    })?;
    ensure!(
        cluster.dump(&home)? == maps,
        "without a kind the maps change"
    );
    for to in cluster.sockets("web-1") {
        cluster.is_denied("stranger", to)?;
    }

    // Given back, they are used.
    apply(&cluster.control, std::slice::from_ref(role))?;
    cluster.wait_synced(&mut agent, &home)?;
    ensure!(cluster.dump(&home)? == maps, "a restart changes the maps");
    agent.ensure_running()
}

/// The objects of the manifest for users.
fn manifest() -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/weir.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_multiple(&text).context("read the manifest")
}

/// What the kubelet would give a pod of the agent's service account: a token and the authority's certificate.
fn credentials(control: &ControlPlane) -> Result<TempDir> {
    let token = control.block_on(async |client| {
        let accounts = Api::<ServiceAccount>::namespaced(client, NAMESPACE);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let answer = accounts
            .create_token_request(ACCOUNT, &params, &request)
            .await?;
        Ok(answer.status.context("a token")?.token)
    })?;
    let published = object("v1", "ConfigMap", NAMESPACE, "kube-root-ca.crt");
    let authority = eventually("the controller publishes the authority", || {
        Ok(get(control, &published).map_err(|error| format!("{error:#}")))
    })?;
    let authority = authority["data"]["ca.crt"].as_str();
    let files = [
        ("token", token.as_str()),
        ("ca.crt", authority.context("a certificate")?),
        ("namespace", NAMESPACE),
    ];
    let directory = tempfile::tempdir()?;
    for (name, content) in files {
        fs::write(directory.path().join(name), content)?;
    }
    Ok(directory)
}

/// Starts the agent as its pod would, with a list of API servers of which the first is dead.
fn start(cluster: &Cluster, home: &Home, credentials: &Path) -> Result<Process> {
    let alive = cluster.control.server();
    // Nothing listens on the node's own discard port.
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let servers = format!("https://{dead},{alive}");
    let pod = [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        POD,
        "pod",
    ];
    let mut args: Vec<_> = pod.into_iter().map(str::to_owned).collect();
    args.push(credentials.display().to_string());
    args.push(CREDENTIALS.to_owned());
    args.extend(least_privilege(&cluster.binary));
    args.extend(home.run_args(&["--api-server", &servers]));
    cluster.topology.spawn_agent(NODE, "unshare", args)
}

/// The account has no right to change anything, nor to read what is secret.
fn may_do_nothing_else(control: &ControlPlane) -> Result<()> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let may = |verb: &str, resource: &str| -> Result<bool> {
        let args = [
            "auth",
            "can-i",
            verb,
            resource,
            "--all-namespaces",
            "--as",
            &user,
        ];
        let output = control.kubectl().args(args).output()?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(["yes", "no"].contains(&answer.as_str()), "{output:?}");
        Ok(answer == "yes")
    };
    ensure!(
        may("watch", "pods")?,
        "the account that was asked about is the agent's"
    );
    for (verb, resource) in [
        ("list", "secrets"),
        ("list", "configmaps"),
        ("patch", "events.events.k8s.io"),
        ("update", "nodes"),
        ("create", "pods"),
    ] {
        ensure!(!may(verb, resource)?, "the agent may {verb} {resource}");
    }
    Ok(())
}

fn forbidden(logs: &str) -> bool {
    logs.to_lowercase().contains("forbidden")
}
