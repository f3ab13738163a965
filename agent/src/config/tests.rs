mod documents;
mod files;
mod kube_proxy;

use std::path::PathBuf;

use clap::Parser;

use super::{Established, ForeignSources, LogFormat, RemovedBackends, RunConfig, cgroup_mount};
use crate::model::{AttachMode, SocketLb, XdpMode};

#[derive(Parser)]
struct Run {
    #[command(flatten)]
    config: RunConfig,
}

fn parse(arguments: &[&str]) -> Result<RunConfig, String> {
    let arguments = std::iter::once(&"weir").chain(arguments);
    Run::try_parse_from(arguments)
        .map(|run| run.config)
        .map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.bpffs, PathBuf::from("/sys/fs/bpf/weir"));
    assert_eq!(config.admin_socket(), PathBuf::from("/run/weir/admin.sock"));
    assert_eq!(
        config.hubble_socket(),
        Some(PathBuf::from("/run/weir/hubble.sock"))
    );
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/weir"));
    assert_eq!(config.healthz_address.to_string(), "[::]:10256");
    assert_eq!(config.metrics_address.to_string(), "127.0.0.1:10249");
    assert_eq!(config.attach, AttachMode::Auto);
    assert_eq!(config.socket_lb, SocketLb::Host);
    assert_eq!(config.removed_backends, RemovedBackends::Keep);
    assert_eq!(config.established, Established::Judge);
    assert_eq!(config.foreign_sources, ForeignSources::Drop);
    assert_eq!(config.xdp, XdpMode::Off);
    assert_eq!(config.log_format, LogFormat::Text);
    config.validate().unwrap();
}

#[test]
fn what_is_given_counts() {
    let config = parse(&[
        "--api-server=https://10.0.0.1:6443,https://10.0.0.2:6443",
        "--attach=clsact",
        "--socket-lb=all",
        "--removed-backends=reset",
        "--established=keep",
        "--foreign-sources=judge",
        "--xdp=auto",
        "--node-name=n1",
        "--log-format=json",
        "--healthz-address=127.0.0.1:1",
        "--flow-log=/var/lib/weir/log/flows.jsonl",
    ])
    .unwrap();
    assert_eq!(config.api_servers.len(), 2);
    assert_eq!(config.attach, AttachMode::Clsact);
    assert_eq!(config.socket_lb, SocketLb::All);
    assert_eq!(config.removed_backends, RemovedBackends::Reset);
    assert_eq!(config.established, Established::Keep);
    assert_eq!(config.foreign_sources, ForeignSources::Judge);
    assert_eq!(config.xdp, XdpMode::Auto);
    assert_eq!(config.node_name().unwrap(), "n1");
    assert_eq!(config.log_format, LogFormat::Json);
    config.validate().unwrap();
}

#[test]
fn mistakes_name_the_option() {
    for (arguments, message) in [
        (&["--attach=tc"][..], "none of auto, tcx, clsact"),
        (&["--socket-lb=pods"], "none of host, all, none"),
        (&["--removed-backends=drop"], "--removed-backends"),
        (&["--established=reset"], "--established"),
        (&["--foreign-sources=keep"], "--foreign-sources"),
        (&["--xdp=generic"], "none of off, auto"),
        (&["--flow-capacity=10"], "--flow-capacity"),
        (&["--healthz-address=10256"], "--healthz-address"),
        (
            &["--manifests=/a", "--kubeconfig=/b"],
            "cannot be used with",
        ),
        (&["--log-format=xml"], "--log-format"),
    ] {
        let error = parse(arguments).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    for (arguments, message) in [
        (
            &["--manifests=/nonexistent"][..],
            "--manifests /nonexistent is no directory",
        ),
        (
            &["--kubeconfig=/nonexistent"],
            "--kubeconfig /nonexistent is no file",
        ),
        (&["--api-server=10.0.0.1:6443"], "write https://HOST:PORT"),
        (
            &["--flow-log=/var/lib/weir/flows.jsonl"],
            "is in the directory of --state-dir",
        ),
        (
            &["--log-level=a=b=c"],
            "--log-level \"a=b=c\" cannot be read",
        ),
    ] {
        let error = parse(arguments).unwrap().validate().unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn cgroup2_is_found_from_the_mounts() {
    let unified = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
    let hybrid =
        "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    let spaced = "none /tmp/a\\040b\\134c cgroup2 rw 0 0\n";
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(cgroup_mount(unified), path("/sys/fs/cgroup"));
    assert_eq!(cgroup_mount(hybrid), path("/sys/fs/cgroup/unified"));
    assert_eq!(cgroup_mount(spaced), path("/tmp/a b\\c"));
    assert_eq!(cgroup_mount("tmpfs /cgroup2 tmpfs rw 0 0\n"), None);
}

#[test]
fn a_cgroup_root_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let flag = format!("--cgroup-root={}", directory.path().display());
    let error = parse(&[&flag]).unwrap().cgroup_root().unwrap_err();
    assert!(
        error.to_string().contains("in no cgroup2 hierarchy"),
        "{error}"
    );
}
