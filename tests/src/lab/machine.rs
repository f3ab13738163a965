//! A machine of its own for each node, made of namespaces: network, processes, mounts, host name, IPC, cgroups.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::cgroups::{self, Cgroups};
use super::init::{Init, READY};
use crate::netns::{Namespace, Place, unique_name};
use crate::process::{Process, join, start};

/// Where images and containers have room: a machine's /tmp may be in memory.
pub(crate) const DIRECTORIES: &str = "/var/tmp";

/// Where a node finds the programs of Kubernetes.
const PROGRAMS: &str = "/opt/kubernetes/bin";
/// Where Debian keeps CNI plugins.
pub(super) const PLUGINS: &str = "/usr/lib/cni";
/// What a node searches for programs.
const PATH: &str =
    "/opt/kubernetes/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a node may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// What a machine is made from.
pub(super) struct MachineSpec<'a> {
    pub(super) name: &'a str,
    /// The program that begins each machine.
    pub(super) init: &'a Path,
    /// The directory that is its [`PROGRAMS`].
    pub(super) programs: &'a Path,
    /// Further directories of this machine, with their names on the node, below `/opt` or `/var`.
    pub(super) binds: Vec<(PathBuf, PathBuf)>,
}

/// A machine; it ends with this value, and everything on it.
pub(super) struct Machine {
    name: String,
    // Fields drop in this order.
    init: Process,
    _cgroups: Cgroups,
    namespace: Namespace,
    entrance: Entrance,
    dir: TempDir,
}

/// How processes get onto a machine, also those of other programs than the one that made it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Entrance {
    /// Its first process.
    pid: u32,
    /// The `cgroup.procs` files of its own processes.
    cgroups: Vec<PathBuf>,
}

impl Machine {
    /// Makes the directory and the files of a machine, but does not begin it.
    pub(super) fn prepare(spec: &MachineSpec<'_>) -> Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix(&unique_name(spec.name))
            .tempdir_in(DIRECTORIES)
            .context("make a node's directory")?;
        for part in [
            "etc/cni/net.d",
            "etc/kubernetes",
            "logs",
            "opt/cni/bin",
            "opt/kubernetes/bin",
            "var/cache",
            "var/lib",
            "var/log",
            "var/tmp",
            "work",
        ] {
            create(&dir.path().join(part))?;
        }
        let var = dir.path().join("var");
        let anyone = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(var.join("tmp"), anyone).context("open a node's /var/tmp")?;
        // As the file hierarchy standard wants it.
        for (name, target) in [("run", "/run"), ("lock", "/run/lock")] {
            symlink(target, var.join(name)).with_context(|| format!("link /var/{name}"))?;
        }
        // Links, so that what a pod installs there stays on its node.
        let plugins = fs::read_dir(PLUGINS).with_context(|| format!("list {PLUGINS}"))?;
        for plugin in plugins {
            let plugin = plugin?;
            let link = dir.path().join("opt/cni/bin").join(plugin.file_name());
            symlink(plugin.path(), link).context("link a CNI plugin")?;
        }
        Ok(dir)
    }

    /// Begins a machine on `namespace`.
    pub(super) fn begin(
        spec: &MachineSpec<'_>,
        dir: TempDir,
        namespace: Namespace,
    ) -> Result<Self> {
        let cgroups = Cgroups::new(&unique_name(spec.name))?;
        let (roots, leaves) = cgroups.procs();
        let mut binds = vec![(spec.programs.to_owned(), beside(PROGRAMS))];
        binds.extend(
            spec.binds
                .iter()
                .map(|(from, to)| (from.clone(), beside(to))),
        );
        for (_, to) in &binds {
            create(&dir.path().join(to))?;
        }
        let init = Init {
            name: spec.name.to_owned(),
            dir: dir.path().to_owned(),
            binds,
            hierarchies: cgroups::hierarchies()?,
            roots,
            leaves: leaves.clone(),
        };
        let file = dir.path().join("init.json");
        fs::write(&file, serde_json::to_vec(&init)?).context("write what a node is made from")?;
        let (place, program) = (
            AsRef::<Place>::as_ref(&namespace).clone(),
            spec.init.to_owned(),
        );
        let log = dir.path().join("logs/init.log");
        let mut init = Process::start(&format!("init of {}", spec.name), &log, move || {
            // It forks: the first process of a process namespace is a child. With that child ends the namespace.
            let mut command = place.command("unshare");
            command
                .args([
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--mount",
                    "--uts",
                    "--ipc",
                    "--",
                ])
                .arg(&program)
                .arg("init")
                .arg(&file);
            command
        })?;
        let ready = dir.path().join(READY);
        init.wait_until(BEGIN_LIMIT, || {
            fs::metadata(&ready).is_ok_and(|file| file.len() > 0)
        })?;
        let entrance = Entrance {
            pid: child_of(init.pid())?,
            cgroups: leaves,
        };
        Ok(Self {
            name: spec.name.to_owned(),
            init,
            _cgroups: cgroups,
            namespace,
            entrance,
            dir,
        })
    }

    /// Runs a program with arguments on this machine; it ends with the value that is returned.
    pub(super) fn start(&self, name: &str, words: Vec<String>) -> Result<Process> {
        let entrance = self.entrance.clone();
        let shown = format!("{name} on {}", self.name);
        Process::start(
            &shown,
            &self.logs().join(name).with_extension("log"),
            move || {
                let mut command = entrance.command();
                command.args(&words);
                command
            },
        )
    }

    /// How to get onto it.
    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// Its network.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The directory of the log files.
    pub(super) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// Checks that the machine still runs.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.init.ensure_running()
    }
}

impl Entrance {
    /// A command that runs the words added to it on the machine, as one of its own processes.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args(["--wd=/", "--"]).env("PATH", PATH);
        join(&mut command, cgroups::open(&self.cgroups));
        command
    }

    /// The machine's files, as processes elsewhere see them.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root")
    }

    /// Gives the images of an archive, as `docker save` writes it or in OCI's layout, to the machine's containerd.
    ///
    /// # Errors
    /// containerd does not run, or refuses the archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let mut command = self.command();
        command.args(["ctr", "--namespace=k8s.io", "images", "import", "-"]);
        command
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = start(&mut command).with_context(|| format!("run {command:?}"))?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "import {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

/// The only child of a process.
fn child_of(pid: u32) -> Result<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let child = children.trim().parse();
    child.with_context(|| format!("{file} names no single process: {children:?}"))
}

/// A path of the node as one below its directory.
fn beside(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))
}

/// Copies a file.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
