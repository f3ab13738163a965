//! Network namespaces of one test alone, and how threads and processes get into them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::unistd::gettid;

use crate::process::start;

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";

/// How long a device may take to carry packets.
const CARRIER_LIMIT: Duration = Duration::from_secs(5);

/// What the names of everything the harness makes on a machine begin with.
///
/// The process id follows, so that [`crate::topology::sweep`] knows whose they were.
pub const PREFIX: &str = "weir-";

/// A name no other live test uses: `weir-PID-COUNTER-ROLE`.
#[must_use]
pub fn unique_name(role: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{n}-{role}", process::id())
}

/// Somewhere a thread or a process can be put: a network namespace and, on nodes, a cgroup.
///
/// Cheap to clone; holding one keeps the namespace in the kernel even after its name is gone.
#[derive(Clone, Debug)]
pub struct Place {
    name: Arc<str>,
    netns: Arc<File>,
    cgroup: Option<Arc<Path>>,
}

impl Place {
    /// The network namespace that a file stands for, such as `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: name.into(),
            netns: Arc::new(file),
            cgroup: None,
        })
    }

    /// The same namespace, with a cgroup that must be in threaded mode (see [`crate::topology`]).
    #[must_use]
    pub fn with_cgroup(&self, cgroup: &Path) -> Self {
        Self {
            cgroup: Some(cgroup.into()),
            ..self.clone()
        }
    }

    /// The name of the namespace, as in `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread of its own inside this place and waits for it; a panic in `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter().expect("enter a namespace the test holds open");
                f()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread inside this place; the caller joins it.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let place = self.clone();
        let thread = thread::Builder::new()
            .name(self.name.to_string())
            .spawn(move || {
                place
                    .enter()
                    .expect("enter a namespace the test holds open");
                f()
            });
        thread.with_context(|| format!("start a thread in {}", self.name))
    }

    /// A command whose process will run inside this place and end with the test process.
    ///
    /// Start it with [`crate::process::Process`] or, for short commands, directly.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        crate::process::move_into(
            &mut command,
            Arc::clone(&self.netns),
            self.cgroup.as_deref(),
        );
        command
    }

    /// Moves the calling thread in, for good.
    fn enter(&self) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            let file = cgroup.join("cgroup.threads");
            fs::write(&file, gettid().to_string())
                .with_context(|| format!("join {}", file.display()))?;
        }
        setns(&*self.netns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter {}", self.name))
    }
}

/// A network namespace that ends with this value, also when a test panics.
#[derive(Debug)]
pub struct Namespace {
    place: Place,
}

impl Namespace {
    /// A new namespace with loopback up and IPv6 addresses usable at once.
    pub fn new(role: &str) -> Result<Self> {
        let name = unique_name(role);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NETNS_DIR).join(&name);
        let namespace = Self {
            place: Place::open(&name, &path)?,
        };
        namespace.ip("link set lo up")?;
        // Duplicate address detection would keep every new link-local address unusable for a second.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), 0)?;
        }
        Ok(namespace)
    }

    /// The name, as in `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// The file that names the namespace, as the CNI calls it (`CNI_NETNS`) and `nsenter --net=` takes it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(self.name())
    }

    /// Gives lines of `ip` commands (without the word `ip`) to one `ip -batch` in this namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        feed(ip.args(["-n", self.name(), "-batch", "-"]), lines)
    }

    /// The same for the command `bridge`.
    pub fn bridge(&self, lines: &str) -> Result<()> {
        let mut bridge = Command::new("bridge");
        feed(bridge.args(["-n", self.name(), "-batch", "-"]), lines)
    }

    /// The output of one `ip` command in this namespace.
    pub fn ip_output(&self, args: &[&str]) -> Result<String> {
        run(Command::new("ip").args(["-n", self.name()]).args(args))
    }

    /// Waits until `devices` carry packets.
    ///
    /// The kernel notices a carrier up to a second after a device is set up, and drops what is sent before.
    ///
    /// # Errors
    /// A device is missing, or still down after five seconds; the error shows all devices.
    pub fn wait_for_carrier(&self, devices: &[&str]) -> Result<()> {
        let deadline = Instant::now() + CARRIER_LIMIT;
        loop {
            let links = self.ip_output(&["-br", "link"])?;
            let up: Vec<_> = links.lines().filter_map(device_up).collect();
            if devices.iter().all(|device| up.contains(device)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "no carrier on all of {devices:?} in {}:\n{links}",
                self.name()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Loads an nftables rule set in this namespace.
    pub fn nft(&self, rules: &str) -> Result<()> {
        feed(self.place.command("nft").args(["-f", "-"]), rules)
    }

    /// Sets a network sysctl of this namespace, named as under `/proc/sys` (`net/ipv4/ip_forward`).
    pub fn sysctl(&self, name: &str, value: u32) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.place
            .run(|| fs::write(&path, value.to_string()))
            .with_context(|| format!("set {name}={value} in {}", self.name()))
    }
}

impl AsRef<Place> for Namespace {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

impl AsRef<Place> for Place {
    fn as_ref(&self) -> &Place {
        self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", self.name()])) {
            eprintln!("namespace is left behind: {error:#}");
        }
    }
}

/// The names of the namespaces on this machine that a harness made.
pub fn names() -> Result<Vec<String>> {
    let entries = match fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        // Nobody has named a namespace since boot.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(format!("list {NETNS_DIR}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The device that a line of `ip -br link` is about, if its state is UP: `eth0@if7  UP  02:... <...>`.
fn device_up(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let device = words.next()?.split('@').next()?;
    (words.next()? == "UP").then_some(device)
}

/// Runs a command to its end and gives its standard output; its standard error is in the error.
pub fn run(command: &mut Command) -> Result<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = start(command).with_context(|| format!("run {command:?}"))?;
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        errors.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with `input` as its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = start(command).with_context(|| format!("run {command:?}"))?;
    let mut stdin = child.stdin.take().context("a piped standard input")?;
    // A command that ends early says why on its standard error, which tells more than the broken pipe.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} with\n{input}\n{}: {}",
        output.status,
        errors.trim()
    );
    written.with_context(|| format!("feed {command:?}"))
}
