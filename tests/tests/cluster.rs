//! Real clusters come up, work, live side by side, and leave nothing behind.
//!
//! A first run builds Kubernetes and packs images, which takes a quarter of an hour.

// xtask: minutes=45 slow

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_tests::lab::{self, AGNHOST};
use weir_tests::{netns, topology};

/// How long a pod may take to run, and what has crashed to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of the whole machine that kubelets and proxies like to change.
const SETTINGS: [&str; 5] = [
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
];

#[test]
fn a_cluster_resolves_names_and_leaves_the_machine_as_it_was() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let before = machine()?;
    let mut cluster = Cluster::up("whole", &["--nodes=2", "--proxy=kube-proxy-nftables"])?;
    let zones = cluster.kubectl(&[
        "get",
        "nodes",
        "-o=jsonpath={range .items[*]}{.metadata.name}={.metadata.labels.topology\\.kubernetes\\.io/zone} {end}",
    ])?;
    ensure!(zones == "node1=zone1 node2=zone2", "zones are {zones:?}");
    cluster.resolves_names()?;
    ensure!(
        machine()? == before,
        "the machine has changed under a cluster"
    );
    let host = cluster.shell(&["--node=node2", "--", "hostname"])?;
    ensure!(host == "node2", "node2 is called {host}");
    cluster.down()?;
    ensure!(machine()? == before, "the machine has changed");
    Ok(())
}

#[test]
fn two_clusters_live_side_by_side_and_one_may_crash() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (first, second) = thread::scope(|scope| {
        let first =
            scope.spawn(|| Cluster::up("first", &["--nodes=1", "--proxy=kube-proxy-iptables"]));
        let second = Cluster::up(
            "second",
            &["--nodes=2", "--cni=vxlan", "--proxy=kube-proxy-nftables"],
        );
        (first.join().expect("no panic"), second)
    });
    let (mut first, mut second) = (first?, second?);
    kill(Pid::from_raw(first.process.cast_signed()), Signal::SIGKILL)?;
    second.resolves_names()?;
    let status = run(Command::new(PROGRAM).arg("status"))?;
    let crashed = format!("cluster {} has crashed", first.name);
    ensure!(status.contains(&crashed), "no word of a crash in: {status}");
    first.down()?;
    second.resolves_names()?;
    second.down()
}

#[test]
fn weir_serves_clusters_of_all_kinds_alone() -> Result<()> {
    if skip() {
        return Ok(());
    }
    for cni in ["ptp", "bridge", "bridge-nf", "vxlan", "flannel"] {
        let spec = ["--nodes=2", "--proxy=weir", &format!("--cni={cni}")];
        let mut cluster = Cluster::up(cni, &spec)?;
        cluster.resolves_names().with_context(|| cni.to_owned())?;
        cluster.down()?;
    }
    Ok(())
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir-cluster");

/// A cluster that is up; taken down with this value, also where a test fails.
struct Cluster {
    name: String,
    /// The process it belongs to.
    process: u32,
    up: bool,
}

impl Cluster {
    fn up(name: &str, spec: &[&str]) -> Result<Self> {
        let mut cluster = Self {
            name: format!("suite-{}-{name}", std::process::id()),
            process: 0,
            up: true,
        };
        let begun = Instant::now();
        cluster.run("up", spec)?;
        println!("{name}: up after {:.0} s", begun.elapsed().as_secs_f64());
        let status = run(Command::new(PROGRAM).arg("status"))?;
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("cluster {} is up", cluster.name)))
            .with_context(|| format!("{name} is not in: {status}"))?;
        let process = line.rsplit(' ').next().context("a process")?;
        cluster.process = process.parse().with_context(|| line.to_owned())?;
        Ok(cluster)
    }

    fn run(&self, action: &str, args: &[&str]) -> Result<String> {
        run(Command::new(PROGRAM)
            .args([action, "--name", &self.name])
            .args(args))
    }

    fn shell(&self, args: &[&str]) -> Result<String> {
        Ok(self.run("shell", args)?.trim().to_owned())
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.shell(&[&["--", "kubectl"], args].concat())
    }

    /// From a pod on each node, the cluster's DNS server answers at both its Service addresses, and so does the API server.
    fn resolves_names(&self) -> Result<()> {
        let nodes = self.kubectl(&["get", "nodes", "-o=jsonpath={.items[*].metadata.name}"])?;
        for node in nodes.split(' ') {
            let pod = format!("client-{node}");
            let place = format!(r#"{{"spec": {{"nodeName": "{node}"}}}}"#);
            let image = format!("--image={AGNHOST}");
            let begun = Instant::now();
            self.kubectl(&["delete", "pod", &pod, "--ignore-not-found", "--now"])?;
            // A new namespace has no service account at once.
            eventually(|| {
                self.kubectl(&[
                    "run",
                    &pod,
                    &image,
                    "--restart=Never",
                    "--overrides",
                    &place,
                ])
            })?;
            self.kubectl(&[
                "wait",
                "--for=condition=Ready",
                "--timeout=60s",
                "pod",
                &pod,
            ])?;
            println!(
                "{node}: a pod ran after {:.1} s",
                begun.elapsed().as_secs_f64()
            );
            for server in [lab::DNS.v4.to_string(), lab::DNS.v6.to_string()] {
                let answer = self.kubectl(&[
                    "exec",
                    &pod,
                    "--",
                    "dig",
                    "+short",
                    "+search",
                    &format!("@{server}"),
                    "kubernetes.default",
                ])?;
                // What it says of a packet that was lost on a busy machine, before it asked again, comes first.
                let last = answer.lines().last();
                ensure!(
                    last == Some("10.96.0.1"),
                    "{server} answers {answer:?} on {node}"
                );
            }
            let url = "https://kubernetes.default/livez";
            let ca = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
            let answer = self.kubectl(&[
                "exec", &pod, "--", "curl", "-sS", "-m", "10", "--cacert", ca, url,
            ])?;
            ensure!(
                answer == "ok",
                "the API server answers {answer:?} on {node}"
            );
        }
        Ok(())
    }

    /// Takes it down, and checks that nothing is left of it.
    fn down(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.run("down", &[])?;
        self.up = false;
        println!(
            "{}: down after {:.1} s",
            self.name,
            begun.elapsed().as_secs_f64()
        );
        let left = leftovers(self.process)?;
        ensure!(left.is_empty(), "left of {}: {left:#?}", self.name);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.up
            && let Err(error) = self.run("down", &[])
        {
            eprintln!("{} stays up: {error:#}", self.name);
        }
    }
}

fn skip() -> bool {
    let missing = lab::missing();
    if let Some(missing) = &missing {
        println!("SKIP: {missing}");
    }
    missing.is_some()
}

/// Runs a command to its end and gives its standard output.
fn run(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output()?;
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    ensure!(status.success(), "{command:?}: {status}: {out}{err}");
    Ok(out.into_owned())
}

fn eventually(mut attempt: impl FnMut() -> Result<String>) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if Instant::now() > deadline => bail!("after {PATIENCE:?}: {error:#}"),
            Err(_) => thread::sleep(Duration::from_millis(500)),
            done => return done,
        }
    }
}

/// What everybody on this machine shares: its own network and the kernel's settings.
fn machine() -> Result<Vec<String>> {
    let mut state = Vec::new();
    for words in [
        ["ip", "-o", "link"].as_slice(),
        &["ip", "-o", "route"],
        &["ip", "-o", "-6", "route"],
        &["nft", "list", "ruleset"],
    ] {
        state.push(run(Command::new(words[0]).args(&words[1..]))?);
    }
    for setting in SETTINGS {
        // Not every kernel has every setting.
        let value = fs::read_to_string(Path::new("/proc/sys").join(setting));
        state.push(format!("{setting}: {value:?}"));
    }
    Ok(state)
}

/// What bears the name of a harness process: namespaces, mounts, cgroups, directories, processes.
fn leftovers(process: u32) -> Result<Vec<PathBuf>> {
    let mark = format!("weir-{process}-");
    let (mounts, cgroups) = topology::leftovers()?;
    let mut found: Vec<PathBuf> = netns::names()?.into_iter().map(PathBuf::from).collect();
    found.extend(mounts);
    found.extend(cgroups);
    for dir in [std::env::temp_dir(), "/var/tmp".into()] {
        for entry in fs::read_dir(dir)? {
            found.push(entry?.path());
        }
    }
    found.retain(|path| path.to_string_lossy().contains(&mark));
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        // A process may end while one looks.
        let words = fs::read(entry.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&mark) {
            found.push(entry);
        }
    }
    Ok(found)
}
