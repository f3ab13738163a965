//! The program in the drivers of uplinks.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::bpf::{self, XdpLink};
use super::error::{During, Error, Result};
use super::object::{self, Capacities, Constants};
use super::pins::{self, Pins};

/// Name of the program, also in pins.
pub(super) const PROGRAM: &str = "xdp_net";

/// What became of the attempt to attach to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdpState {
    /// The program is in the driver.
    Attached,
    /// Somebody else's program is there, and stays.
    Foreign,
    /// The driver runs no XDP programs.
    Unsupported,
    /// The driver runs some, but not now: its settings, the MTU among them, do not allow it.
    Refused(String),
}

/// The loaded program.
#[derive(Debug)]
pub(super) struct Xdp(OwnedFd);

impl Xdp {
    pub(super) fn load(pins: &Pins, capacities: Capacities, constants: Constants) -> Result<Self> {
        object::load_xdp(pins, capacities, constants).map(Self)
    }

    pub(super) fn program(&self) -> &OwnedFd {
        &self.0
    }

    /// Attaches the program in a device's driver, or puts it in the place of an earlier agent's without a gap. Never by the
    /// kernel's generic XDP.
    pub(super) fn attach(&self, pins: &Pins, ifindex: u32) -> Result<XdpState> {
        let action = || format!("attach `{PROGRAM}` to device {ifindex}");
        let path = link_path(pins, ifindex);
        if let Some((link, found)) = open_link(&path)? {
            if found.ifindex == ifindex {
                let wanted = bpf::program_info(self.0.as_fd()).during(action)?.id;
                if found.program != wanted {
                    bpf::update_link(link.as_fd(), self.0.as_fd()).during(action)?;
                }
                return Ok(XdpState::Attached);
            }
            // The index had another device, which took its link with it when it went.
            pins::remove(&path)?;
        }
        let link = match bpf::create_xdp_link(self.0.as_fd(), ifindex) {
            Ok(link) => link,
            Err(error) => return refused(error).map_err(|error| Error::kernel(action(), error)),
        };
        bpf::pin(&link, &path).during(action)?;
        Ok(XdpState::Attached)
    }
}

/// What the kernel's answer says of the device; an error if it is about something else.
fn refused(error: io::Error) -> io::Result<XdpState> {
    match error.raw_os_error() {
        // Of the same kind, or generic.
        Some(libc::EBUSY | libc::EEXIST) => Ok(XdpState::Foreign),
        Some(libc::EOPNOTSUPP) => Ok(XdpState::Unsupported),
        Some(libc::ENODEV | libc::EPERM | libc::EACCES) => Err(error),
        _ => Ok(XdpState::Refused(error.to_string())),
    }
}

/// Detaches what an agent attached to any device; that there is nothing is no error.
pub(super) fn detach(pins: &Pins) -> Result<()> {
    for path in pins::list(&pins.links())? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(parse_link_name).is_none() {
            continue;
        }
        if let Some((link, _)) = open_link(&path)? {
            // At once: without its pin it would go some time later.
            bpf::detach_link(link.as_fd()).during(|| format!("detach {}", path.display()))?;
        }
        pins::remove(&path)?;
    }
    Ok(())
}

/// The link at a pin, if there is one.
fn open_link(path: &Path) -> Result<Option<(OwnedFd, XdpLink)>> {
    let action = || format!("read {}", path.display());
    let fd = match bpf::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        fd => fd.during(action)?,
    };
    match bpf::xdp_link(fd.as_fd()).during(action)? {
        Some(link) => Ok(Some((fd, link))),
        None => Err(Error::ForeignPin {
            path: path.to_owned(),
            found: "something that is no XDP link".to_owned(),
            expected: format!("the XDP link of `{PROGRAM}`"),
        }),
    }
}

fn link_path(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{ifindex}_{PROGRAM}"))
}

fn parse_link_name(name: &str) -> Option<u32> {
    let (ifindex, program) = name.split_once('_')?;
    (program == PROGRAM).then(|| ifindex.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_are_read_back() {
        for (name, expected) in [
            ("7_xdp_net", Some(7)),
            ("7_from_net", None),
            ("x_xdp_net", None),
            ("xdp_net", None),
        ] {
            assert_eq!(parse_link_name(name), expected, "{name}");
        }
    }

    #[test]
    fn the_kernels_answer_tells_whose_fault_it_is() {
        let state = |code| refused(io::Error::from_raw_os_error(code)).ok();
        assert_eq!(state(libc::EBUSY), Some(XdpState::Foreign));
        assert_eq!(state(libc::EEXIST), Some(XdpState::Foreign));
        assert_eq!(state(libc::EOPNOTSUPP), Some(XdpState::Unsupported));
        assert!(matches!(state(libc::ERANGE), Some(XdpState::Refused(_))));
        assert_eq!(state(libc::ENODEV), None);
        assert_eq!(state(libc::EPERM), None);
    }
}
