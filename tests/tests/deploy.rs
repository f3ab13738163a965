//! What `deploy/` promises about rights and rolling updates stands in the manifests, and the agent understands its arguments.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Container, Namespace, Pod, PodSpec, Probe, SecurityContext, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_tests::cluster::weir_binary;
use weir_tests::skip_without_root;

/// The three rights that the agent works with.
const CAPABILITIES: [&str; 3] = ["BPF", "PERFMON", "NET_ADMIN"];

#[test]
fn every_field_is_one_that_the_api_knows() -> Result<()> {
    for object in objects("weir.yaml")? {
        match object["kind"].as_str() {
            Some("Namespace") => known::<Namespace>(&object),
            Some("ServiceAccount") => known::<ServiceAccount>(&object),
            Some("ClusterRole") => known::<ClusterRole>(&object),
            Some("ClusterRoleBinding") => known::<ClusterRoleBinding>(&object),
            Some("DaemonSet") => known::<DaemonSet>(&object),
            kind => anyhow::bail!("a kind that this test does not know: {kind:?}"),
        }?;
    }
    for object in objects("cni.yaml")? {
        known::<DaemonSet>(&object)?;
    }
    for object in objects("cleanup.yaml")? {
        known::<Pod>(&object)?;
    }
    Ok(())
}

#[test]
fn the_agent_has_three_capabilities_and_nothing_else() -> Result<()> {
    let pod = agent_pod()?;
    least_privilege(&pod, only(&pod.containers)?)?;
    let cleanup = cleanup_pod()?;
    least_privilege(&cleanup, only(&cleanup.containers)?)?;
    ensure!(cleanup.automount_service_account_token == Some(false));
    Ok(())
}

#[test]
fn what_installs_the_plugin_has_no_capability_and_is_undone_in_the_same_place() -> Result<()> {
    let set: DaemonSet = read(only_of("cni.yaml", "DaemonSet")?)?;
    let pod = set.spec.context("spec")?.template.spec;
    let (pod, cleanup) = (pod.context("a pod's spec")?, cleanup_pod()?);
    // It must start where no pod can that has a network of its own.
    ensure!(pod.host_network == Some(true));
    ensure!(pod.automount_service_account_token == Some(false));
    let undo = cleanup.init_containers.as_deref().context("a step")?;
    let (install, undo) = (only(&pod.containers)?, only(undo)?);
    for (container, pod) in [(install, &pod), (undo, &cleanup)] {
        confined(pod, container, &[])?;
        for (volume, path) in [
            ("configurations", "/etc/cni/net.d"),
            ("plugins", "/opt/cni/bin"),
        ] {
            let mut volumes = pod.volumes.iter().flatten();
            let host = volumes.find(|it| it.name == volume);
            let host = host.and_then(|it| it.host_path.as_ref());
            ensure!(host.context("a host path")?.path == path);
        }
        let (configurations, plugins) = (
            format!("--conf-dir={}", mount_of(container, "configurations")?),
            format!("--bin-dir={}", mount_of(container, "plugins")?),
        );
        let arguments = arguments(container);
        ensure!(arguments.contains(&configurations) && arguments.contains(&plugins));
    }
    ensure!(arguments(install)[1..4] == ["cni", "install", "--watch"]);
    ensure!(arguments(undo)[1..3] == ["cni", "uninstall"]);
    // As the agent's.
    let agent = agent_pod()?;
    let run = mount_of(only(&agent.containers)?, "run")?;
    ensure!(arguments(install).contains(&format!("--run-dir={run}")));
    Ok(())
}

#[test]
fn only_the_step_that_mounts_is_privileged() -> Result<()> {
    let pod = agent_pod()?;
    let init = only(pod.init_containers.as_deref().context("an init step")?)?;
    let rights = security(init)?;
    ensure!(rights.privileged == Some(true));
    ensure!(rights.read_only_root_filesystem == Some(true));
    ensure!(capabilities(rights)? == (vec!["ALL"], vec!["SYS_ADMIN"]));
    let hands_on = |container: &Container| {
        let mounts = container.volume_mounts.iter().flatten();
        mounts
            .filter(|mount| mount.mount_propagation.as_deref() == Some("Bidirectional"))
            .count()
    };
    ensure!(hands_on(init) == 1 && hands_on(only(&pod.containers)?) == 0);
    let arguments = arguments(init);
    let mounted = format!("--mount={}", mount_of(init, "bpffs")?);
    ensure!(arguments == ["weir", "init", &mounted], "{arguments:?}");
    Ok(())
}

#[test]
fn the_pod_stays_where_pods_are_evicted_and_packets_come_first() -> Result<()> {
    let pod = agent_pod()?;
    ensure!(pod.priority_class_name.as_deref() == Some("system-node-critical"));
    let everything = |pod: &PodSpec| {
        let mut tolerations = pod.tolerations.iter().flatten();
        tolerations.any(|it| {
            it.operator.as_deref() == Some("Exists") && it.key.is_none() && it.effect.is_none()
        })
    };
    ensure!(everything(&pod) && everything(&cleanup_pod()?));
    // Neither its network nor its names hang on what it is to provide.
    ensure!(pod.host_network == Some(true) && pod.dns_policy.as_deref() == Some("Default"));

    let update = daemon_set()?.spec.context("spec")?.update_strategy;
    let update = update.context("a strategy")?;
    ensure!(update.type_.as_deref() == Some("RollingUpdate"));
    let rolling = update.rolling_update.context("rolling")?;
    ensure!(rolling.max_unavailable == Some(IntOrString::Int(1)));
    // Two agents of one node would want the same ports.
    ensure!(rolling.max_surge == Some(IntOrString::Int(0)));
    Ok(())
}

#[test]
fn a_node_that_drains_keeps_its_agent() -> Result<()> {
    let pod = agent_pod()?;
    let agent = only(&pod.containers)?;
    let path = |probe: &Option<Probe>| -> Result<String> {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref());
        let get = get.context("a probe by HTTP")?;
        ensure!(get.port == IntOrString::String("health".to_owned()));
        get.path.clone().context("a path")
    };
    // /healthz fails on a node that is about to go, for load balancers: no reason to restart an agent.
    ensure!(path(&agent.startup_probe)? == "/livez");
    ensure!(path(&agent.liveness_probe)? == "/livez");
    ensure!(path(&agent.readiness_probe)? == "/readyz");
    Ok(())
}

#[test]
fn what_must_outlive_the_pod_is_on_the_host() -> Result<()> {
    let pod = agent_pod()?;
    let agent = only(&pod.containers)?;
    let mut paths = BTreeSet::new();
    for volume in pod.volumes.as_deref().unwrap_or_default() {
        let host = volume.host_path.as_ref().context("only host paths")?;
        paths.insert((mount_of(agent, &volume.name)?, host.path.as_str()));
    }
    let expected = [
        ("/bpffs", "/sys/fs/bpf"),
        ("/run/weir", "/run/weir"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/var/lib/weir", "/var/lib/weir"),
    ];
    ensure!(paths == BTreeSet::from(expected), "{paths:?}");
    let cgroup = agent.volume_mounts.iter().flatten();
    let mut cgroup = cgroup.filter(|mount| mount.name == "cgroup");
    ensure!(cgroup.all(|mount| mount.read_only == Some(true)));

    // The same pins, in the agent and in what removes them.
    let cleanup = cleanup_pod()?;
    let cleaner = only(&cleanup.containers)?;
    for container in [agent, cleaner] {
        let pins = variable(container, "WEIR_BPFFS")?;
        ensure!(pins == format!("{}/weir", mount_of(container, "bpffs")?));
    }
    Ok(())
}

#[test]
fn one_image_and_arguments_that_it_understands() -> Result<()> {
    let pod = agent_pod()?;
    let cleanup = cleanup_pod()?;
    let init = pod.init_containers.as_deref().unwrap_or_default();
    let image = format!("weir:{}", env!("CARGO_PKG_VERSION"));
    let undo = cleanup.init_containers.as_deref().unwrap_or_default();
    let set: DaemonSet = read(only_of("cni.yaml", "DaemonSet")?)?;
    let install = set.spec.and_then(|spec| spec.template.spec);
    let install = install.context("a pod's spec")?.containers;
    let agents = pod.containers.iter().chain(init);
    for container in agents
        .chain(&install)
        .chain(undo)
        .chain(&cleanup.containers)
    {
        ensure!(
            container.image.as_deref() == Some(&image),
            "{:?}",
            container.image
        );
        // The image has no shell and no other program: its entry point is the agent.
        ensure!(container.command.is_none(), "{:?}", container.command);
        let arguments = arguments(container);
        weir::cli::parse(arguments.iter().map(Into::into))
            .map_err(|error| anyhow::anyhow!("{arguments:?}: {error}"))?;
        ensure!(container.resources.is_some(), "{}", container.name);
    }
    Ok(())
}

/// What the init step mounts in its container shows on the host, once.
#[test]
fn the_init_step_mounts_for_the_host() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let binary = match weir_binary() {
        Ok(binary) => binary,
        Err(missing) => {
            println!("SKIP: {missing}");
            return Ok(());
        }
    };
    let directory = tempfile::tempdir()?;
    // A host of its own; then a container whose volume is a peer of the host's mount, as `Bidirectional` makes it.
    let script = r#"set -e
mount -t tmpfs tmpfs "$1"
mount --make-shared "$1"
mkdir "$1/bpf"
for _ in 1 2; do unshare --mount --propagation unchanged "$2" init --mount "$1/bpf"; done
stat --file-system --format %T "$1/bpf"
grep --count " $1/bpf bpf " /proc/self/mounts"#;
    let host = [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "host",
    ];
    let output = Command::new("unshare")
        .args(host)
        .arg(directory.path())
        .arg(&binary)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    let at = format!("at {}/bpf", directory.path().display());
    let expected = [
        &format!("mounted a BPF file system {at}"),
        &format!("there is a BPF file system {at}"),
        "bpf_fs",
        "1",
    ];
    ensure!(output.status.success() && lines == expected, "{output:?}");

    // Without the right it says so, and what was to be done.
    let lacking = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    let output = Command::new("setpriv")
        .args(lacking)
        .arg(&binary)
        .args(["init", "--mount"])
        .arg(directory.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(said.contains("mount a BPF file system at"), "{said}");
    Ok(())
}

fn least_privilege(pod: &PodSpec, container: &Container) -> Result<()> {
    confined(pod, container, &CAPABILITIES)
}

fn confined(pod: &PodSpec, container: &Container, added: &[&str]) -> Result<()> {
    let rights = security(container)?;
    ensure!(rights.privileged == Some(false));
    ensure!(rights.allow_privilege_escalation == Some(false));
    ensure!(rights.read_only_root_filesystem == Some(true));
    ensure!(capabilities(rights)? == (vec!["ALL"], added.to_vec()));
    let profile = pod.security_context.as_ref();
    let profile = profile.and_then(|context| context.seccomp_profile.as_ref());
    ensure!(profile.context("seccomp")?.type_ == "RuntimeDefault");
    ensure!(rights.seccomp_profile.is_none() && rights.app_armor_profile.is_none());
    for shared in [pod.host_pid, pod.host_ipc] {
        ensure!(shared != Some(true));
    }
    Ok(())
}

fn security(container: &Container) -> Result<&SecurityContext> {
    let context = container.security_context.as_ref();
    context.with_context(|| format!("{}: a security context", container.name))
}

/// What is dropped, and what is added.
fn capabilities(rights: &SecurityContext) -> Result<(Vec<&str>, Vec<&str>)> {
    let capabilities = rights.capabilities.as_ref().context("capabilities")?;
    Ok((words(&capabilities.drop), words(&capabilities.add)))
}

fn words(list: &Option<Vec<String>>) -> Vec<&str> {
    list.iter().flatten().map(String::as_str).collect()
}

/// The command line that the kubelet makes.
fn arguments(container: &Container) -> Vec<String> {
    let args = container.args.iter().flatten().cloned();
    std::iter::once("weir".to_owned()).chain(args).collect()
}

fn variable<'a>(container: &'a Container, name: &str) -> Result<&'a str> {
    let mut variables = container.env.iter().flatten();
    let found = variables.find(|variable| variable.name == name);
    let value = found.and_then(|variable| variable.value.as_deref());
    value.with_context(|| format!("{}: {name}", container.name))
}

/// Where a volume is in a container.
fn mount_of<'a>(container: &'a Container, volume: &str) -> Result<&'a str> {
    let mut mounts = container.volume_mounts.iter().flatten();
    let mount = mounts.find(|mount| mount.name == volume);
    let mount = mount.with_context(|| format!("{}: volume {volume}", container.name))?;
    Ok(&mount.mount_path)
}

fn only(containers: &[Container]) -> Result<&Container> {
    match containers {
        [container] => Ok(container),
        _ => anyhow::bail!("{} containers", containers.len()),
    }
}

fn agent_pod() -> Result<PodSpec> {
    let set = daemon_set()?.spec.context("spec")?;
    set.template.spec.context("a pod's spec")
}

fn cleanup_pod() -> Result<PodSpec> {
    let pod: Pod = read(only_of("cleanup.yaml", "Pod")?)?;
    pod.spec.context("spec")
}

fn daemon_set() -> Result<DaemonSet> {
    read(only_of("weir.yaml", "DaemonSet")?)
}

fn only_of(file: &str, kind: &str) -> Result<Value> {
    let mut found = objects(file)?.into_iter();
    let object = found.find(|object| object["kind"] == kind);
    object.with_context(|| format!("{file}: a {kind}"))
}

fn objects(file: &str) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("read {}", path.display()))
}

fn read<T: DeserializeOwned>(object: Value) -> Result<T> {
    Ok(serde_json::from_value(object)?)
}

/// A field that the type does not have would get lost on the way.
fn known<T: DeserializeOwned + Serialize>(object: &Value) -> Result<()> {
    let back = serde_json::to_value(read::<T>(object.clone())?)?;
    ensure!(back == *object, "not the same:\n{object}\n{back}");
    Ok(())
}
