//! Programs that translate addresses of Services in the sockets of a cgroup and the cgroups below it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::bpf::{self, CgroupLink, SocketHook};
use super::error::{During, Error, Result};
use super::object::{self, Capacities, Constants};
use super::pins::{self, Pins};

/// Hooks and the names of their programs, also of their pins, in the order in which they are attached: answers are translated
/// before anything is asked.
pub(super) const HOOKS: [(SocketHook, &str); 8] = [
    (SocketHook::Recvmsg4, "recvmsg4"),
    (SocketHook::Recvmsg6, "recvmsg6"),
    (SocketHook::Getpeername4, "getpeername4"),
    (SocketHook::Getpeername6, "getpeername6"),
    (SocketHook::Sendmsg4, "sendmsg4"),
    (SocketHook::Sendmsg6, "sendmsg6"),
    (SocketHook::Connect4, "connect4"),
    (SocketHook::Connect6, "connect6"),
];

/// Whose sockets are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Directory of the cgroup (version 2) whose sockets they are.
    pub cgroup: PathBuf,
    /// Whether pods' sockets are served, too, or only those of this process's network namespace.
    pub pods: bool,
}

/// The loaded programs.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// As given.
    pub(crate) options: SocketOptions,
    programs: [OwnedFd; HOOKS.len()],
    /// Whether a refusal is ECONNREFUSED; else it is EPERM.
    pub(crate) chooses_error: bool,
    /// Whether the node's own sockets can be told from pods'.
    pub(crate) knows_node: bool,
}

impl Sockets {
    /// Loads the programs over the maps of the directory.
    pub(crate) fn load(
        pins: &Pins,
        capacities: Capacities,
        options: &SocketOptions,
    ) -> Result<Self> {
        let cookie =
            bpf::netns_cookie().during(|| "ask for the cookie of the network namespace")?;
        let load = |chooses_error| {
            let constants = Constants {
                node_netns: cookie.unwrap_or(0),
                serves_pods: options.pods,
                chooses_error,
                ..Constants::default()
            };
            let names = HOOKS.map(|(_, name)| name);
            object::load_for_sockets(pins, capacities, constants, names)
        };
        // Older kernels have no bpf_set_retval for these programs, which the verifier tells.
        let (programs, chooses_error) = match load(true) {
            Err(Error::Verifier { .. }) => (load(false)?, false),
            programs => (programs?, true),
        };
        Ok(Self {
            options: options.clone(),
            programs,
            chooses_error,
            knows_node: cookie.is_some(),
        })
    }

    /// Attaches all programs, or puts them in the place of an earlier agent's: every call meets one of the two.
    pub(crate) fn attach(&self, pins: &Pins) -> Result<()> {
        let directory = self.options.cgroup.display();
        let cgroup =
            File::open(&self.options.cgroup).during(|| format!("open cgroup {directory}"))?;
        let number = self.number()?;
        for ((hook, name), program) in HOOKS.into_iter().zip(&self.programs) {
            let action = || format!("attach `{name}` to cgroup {directory}");
            let path = pins.links().join(name);
            let earlier = open_link(&path)?;
            if let Some((link, found)) = &earlier
                && fits(*found, number, hook)
            {
                let wanted = bpf::program_info(program.as_fd()).during(action)?.id;
                if found.program != wanted {
                    bpf::update_link(link.as_fd(), program.as_fd()).during(action)?;
                }
                continue;
            }
            let link =
                bpf::create_cgroup_link(program.as_fd(), cgroup.as_fd(), hook).during(action)?;
            // The earlier link is another cgroup's, and lives until here.
            pins::remove(&path)?;
            bpf::pin(&link, &path).during(action)?;
        }
        Ok(())
    }

    /// Whether all programs are attached.
    pub(crate) fn attached(&self, pins: &Pins) -> Result<bool> {
        let number = self.number()?;
        for (hook, name) in HOOKS {
            match open_link(&pins.links().join(name))? {
                Some((_, found)) if fits(found, number, hook) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Number of the cgroup.
    fn number(&self) -> Result<u64> {
        let directory = &self.options.cgroup;
        fs::metadata(directory)
            .map(|found| found.ino())
            .during(|| format!("look at cgroup {}", directory.display()))
    }
}

/// Detaches an earlier agent's programs; that there are none is no error.
pub(crate) fn detach(pins: &Pins) -> Result<()> {
    for (_, name) in HOOKS.into_iter().rev() {
        let path = pins.links().join(name);
        match open_link(&path) {
            Ok(Some((link, _))) => {
                bpf::detach_link(link.as_fd())
                    .during(|| format!("detach `{name}` from its cgroup"))?;
                pins::remove(&path)?;
            }
            Ok(None) | Err(Error::ForeignPin { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn fits(link: CgroupLink, cgroup: u64, hook: SocketHook) -> bool {
    link.cgroup == cgroup && link.hook == hook as u32
}

/// The link at a pin, if there is one.
fn open_link(path: &Path) -> Result<Option<(OwnedFd, CgroupLink)>> {
    let action = || format!("read {}", path.display());
    let fd = match bpf::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        fd => fd.during(action)?,
    };
    match bpf::cgroup_link(fd.as_fd()).during(action)? {
        Some(link) => Ok(Some((fd, link))),
        None => Err(Error::ForeignPin {
            path: path.to_owned(),
            found: "something that is no link of a cgroup".to_owned(),
            expected: "a program for sockets".to_owned(),
        }),
    }
}
