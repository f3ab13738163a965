//! The command lines of a control plane's programs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Nodes;
use super::pki::{Files, Pki};
use crate::topology::{Host, SERVICE_CIDR_V4, SERVICE_CIDR_V6};

/// The controllers that run where tests write nodes: those that make what an agent watches, and those that namespaces
/// need to come and go.
///
/// Not those that judge nodes by their kubelets, which would evict every pod there.
const CONTROLLERS: &[&str] = &[
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "service-cidr-controller",
    "serviceaccount-controller",
];

pub(super) fn etcd(dir: &Path) -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        // The data ends with the test.
        "--unsafe-no-fsync".to_owned(),
    ]
}

/// What the API server writes down of the requests of service accounts: who asked for what, not the answers.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]},
        {"level": "None"}
    ]
}"#;

/// The name of the file that has them.
pub(super) const AUDIT_LOG: &str = "audit.jsonl";

pub(super) fn apiserver(dir: &Path, host: &Host, pki: &Pki, nodes: Nodes) -> Result<Vec<String>> {
    let mut names: Vec<_> = host
        .addresses()
        .both()
        .iter()
        .map(ToString::to_string)
        .collect();
    // The first address of each Service subnet is the API server's own Service.
    names.extend(
        [
            "127.0.0.1",
            "10.96.0.1",
            "fd10:96::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .map(str::to_owned),
    );
    let Files { certificate, key } = pki.server("kube-apiserver", &names)?;
    let (signing_key, public_key) = pki.key_pair("service-accounts")?;
    let audit = dir.join("audit-policy.json");
    fs::write(&audit, AUDIT_POLICY).with_context(|| format!("write {}", audit.display()))?;
    let mut args = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={}", host.addresses().v4),
        format!("--tls-cert-file={}", certificate.display()),
        format!("--tls-private-key-file={}", key.display()),
        format!("--client-ca-file={}", pki.ca().display()),
        format!("--service-cluster-ip-range={SERVICE_CIDR_V4},{SERVICE_CIDR_V6}"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-signing-key-file={}",
            signing_key.display()
        ),
        format!("--service-account-key-file={}", public_key.display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", audit.display()),
        format!("--audit-log-path={}", dir.join(AUDIT_LOG).display()),
    ];
    match nodes {
        // It would refuse Pods in a new namespace until a controller has made the default service account.
        Nodes::Written => args.push("--disable-admission-plugins=ServiceAccount".to_owned()),
        Nodes::Real => {
            let user = "kube-apiserver-kubelet-client";
            let Files { certificate, key } = pki.client(user, Some("system:masters"))?;
            args.extend([
                format!("--kubelet-client-certificate={}", certificate.display()),
                format!("--kubelet-client-key={}", key.display()),
                format!("--kubelet-certificate-authority={}", pki.ca().display()),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ]);
        }
    }
    Ok(args)
}

pub(super) fn controller_manager(kubeconfig: &Path, pki: &Pki, nodes: Nodes) -> Vec<String> {
    let mut args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-ca-file={}", pki.ca().display()),
        format!("--service-cluster-ip-range={SERVICE_CIDR_V4},{SERVICE_CIDR_V6}"),
        "--leader-elect=false".to_owned(),
    ];
    match nodes {
        Nodes::Written => args.extend([
            format!("--controllers={}", CONTROLLERS.join(",")),
            // Tests wait for what it does.
            "--endpointslice-updates-batch-period=0s".to_owned(),
        ]),
        Nodes::Real => args.extend([
            "--use-service-account-credentials=true".to_owned(),
            // Others lose their lease when the API server goes away, and begin anew. This one remembers, and would say
            // that all nodes had been silent.
            "--node-monitor-grace-period=1h".to_owned(),
        ]),
    }
    args
}

pub(super) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
    ]
}
