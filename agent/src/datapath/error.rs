//! What can go wrong between the agent and the kernel, and what to do about it.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Failure of the data path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary holds no object file.
    #[error("this weir was built without kernel programs: build it with `cargo xtask build`")]
    NoObject,
    /// The object file is damaged or does not have what the agent expects.
    #[error(
        "the embedded kernel programs cannot be used ({0}): build weir again with `cargo xtask build`"
    )]
    BadObject(String),
    /// Capabilities are missing.
    #[error(
        "cannot {action} ({source}): the agent lacks {missing}; add it to the container's securityContext.capabilities"
    )]
    Capability {
        /// What was tried.
        action: String,
        /// Names of the capabilities.
        missing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refused program `{program}` ({source}); please report this with the kernel's version and its log:\n{log}"
    )]
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// The verifier's whole log.
        log: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// tcx was asked for, and the kernel has none.
    #[error(
        "this kernel has no tcx, which came with Linux 6.6: start the agent with `--attach auto` or `--attach clsact`"
    )]
    NoTcx,
    /// The kernel is too old, or built without something.
    #[error(
        "this kernel cannot make {feature}, which came with Linux {since}: Weir needs Linux 5.10 or newer; use another kernel on this node"
    )]
    MissingFeature {
        /// What it cannot make.
        feature: &'static str,
        /// Since when others can.
        since: &'static str,
    },
    /// The directory for pins is not in a BPF file system.
    #[error("{} is not in a BPF file system: run `mount -t bpf bpf {}` on the host, or mount the host's /sys/fs/bpf into the container", directory.display(), mount.display())]
    MissingBpffs {
        /// The directory wanted.
        directory: PathBuf,
        /// Where to mount.
        mount: PathBuf,
    },
    /// Another agent holds the directory.
    #[error("another weir agent uses {}: give each agent of this kernel its own bpffs directory", .0.display())]
    SecondAgent(PathBuf),
    /// A pin is not what this version of Weir puts there.
    #[error("{} holds {found}, but this weir expects {expected}: stop the agent and run `weir cleanup`, then start it again", path.display())]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A table has no room.
    #[error(
        "table `{table}` is full at {capacity} entries: the planner must begin a larger generation"
    )]
    TableFull {
        /// Name of the table.
        table: &'static str,
        /// Most entries it can have.
        capacity: u32,
    },
    /// A plan has steps that do not fit the state that the data path is in.
    #[error("the plan cannot be carried out: {0}")]
    BadPlan(String),
    /// Anything else that the kernel refused.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried, on which object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Result of the data path.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the device is no longer there: no failure, pods end.
    #[must_use]
    pub fn is_device_gone(&self) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
    }

    /// The error of an action that the kernel refused: names the missing capability where that is the reason.
    pub(crate) fn kernel(action: impl Display, source: io::Error) -> Self {
        let action = action.to_string();
        let denied = matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        match missing_capabilities() {
            Some(missing) if denied => Self::Capability {
                action,
                missing,
                source,
            },
            _ => Self::Kernel { action, source },
        }
    }
}

/// Names of the capabilities that the agent needs and does not have.
fn missing_capabilities() -> Option<String> {
    use rustix::thread::{CapabilitySet, capabilities};
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    ];
    let present = capabilities(None).ok()?.effective;
    // CAP_SYS_ADMIN implies the first two (capabilities(7)).
    let admin = present.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|(capability, _)| {
            let implied = admin && *capability != CapabilitySet::NET_ADMIN;
            !present.contains(*capability) && !implied
        })
        .map(|(_, name)| name)
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// Adds to an I/O error what was being done.
pub(crate) trait During<T> {
    /// See [`Error::kernel`].
    fn during<D: Display>(self, action: impl FnOnce() -> D) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during<D: Display>(self, action: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::kernel(action(), source))
    }
}
