//! Whether kube-proxy still runs here.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where kube-proxy tells its mode unless it was told otherwise (`--metrics-bind-address`).
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
const MODES: [&str; 3] = ["iptables", "ipvs", "nftables"];
/// It is on this machine: an answer takes no time.
const PATIENCE: Duration = Duration::from_millis(500);

/// kube-proxy, as it was seen to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// A process on the node.
    Process {
        /// Its number.
        id: u32,
        /// Whether the kubelet started it.
        in_pod: bool,
    },
    /// It answers at its port: where only a container's processes are in sight.
    Port {
        /// The mode that it told.
        mode: &'static str,
    },
}

impl Running {
    /// A command that ends it for good.
    #[must_use]
    pub fn end(&self) -> String {
        match self {
            Self::Process { id, in_pod: false } => format!("kill {id}"),
            _ => "kubectl -n kube-system delete daemonset kube-proxy".to_owned(),
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { id, .. } => write!(f, "process {id} is kube-proxy"),
            Self::Port { mode } => write!(f, "kube-proxy in mode {mode} answers at {METRICS}"),
        }
    }
}

/// kube-proxy of this network namespace, if it runs.
#[must_use]
pub fn kube_proxy() -> Option<Running> {
    process().or_else(|| mode().map(|mode| Running::Port { mode }))
}

fn process() -> Option<Running> {
    let here = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    let entries = fs::read_dir("/proc").ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let groups = || fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        is_kube_proxy(&process, here).then(|| Running::Process {
            id,
            in_pod: groups().contains("kubepods"),
        })
    })
}

/// Tables of the kernel's old iptables in this network namespace, which nf_tables does not show: what is in them is not known. The
/// file exists once the module is loaded.
#[must_use]
pub fn legacy_tables() -> Vec<String> {
    let mut tables = BTreeSet::new();
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(file));
        tables.extend(text.unwrap_or_default().lines().map(str::to_owned));
    }
    tables.into_iter().collect()
}

/// Processes end while one looks: what cannot be read is not there any more.
fn is_kube_proxy(process: &Path, network: u64) -> bool {
    let named = fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "kube-proxy\n");
    named && fs::metadata(process.join("ns/net")).is_ok_and(|file| file.ino() == network)
}

fn mode() -> Option<&'static str> {
    let mut stream = TcpStream::connect_timeout(&METRICS, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET /proxyMode HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .ok()?;
    // Whoever sends more, or for longer, is somebody else.
    let deadline = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = stream.read(&mut piece).ok()?;
        answer.extend_from_slice(&piece[..length]);
        if length == 0 {
            break;
        }
        if answer.len() > 4096 || Instant::now() > deadline {
            return None;
        }
    }
    let answer = String::from_utf8(answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    MODES.into_iter().find(|mode| body.trim() == *mode)
}
