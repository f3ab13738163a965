//! Programs on devices: tcx links where the kernel has them, classic filters elsewhere.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use weir_common::abi::Hook;

use super::bpf::{self, AttachPoint, LinkInfo};
use super::clsact::Netlink;
use super::error::{During, Error, Result};
use super::object::{Programs, program_name};
use super::pins::{self, Pins};

/// What a device leads to, and so which programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The host end of a pod's veth.
    Pod,
    /// An uplink or tunnel device of the node.
    Net,
}

impl Role {
    /// The hooks at its ingress and egress.
    const fn hooks(self) -> [Hook; 2] {
        match self {
            Self::Pod => [Hook::FromPod, Hook::ToPod],
            Self::Net => [Hook::FromNet, Hook::ToNet],
        }
    }
}

/// Whether the kernel has tcx: it looks for the device only after it has understood the request.
pub(crate) fn has_tcx(programs: &Programs) -> bool {
    const NO_DEVICE: u32 = i32::MAX as u32;
    let result = bpf::create_tcx_link(programs.get(Hook::FromPod), NO_DEVICE, AttachPoint::Ingress);
    result.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

const fn attach_point(hook: Hook) -> AttachPoint {
    match hook {
        Hook::FromPod | Hook::FromNet => AttachPoint::Ingress,
        Hook::ToPod | Hook::ToNet => AttachPoint::Egress,
    }
}

/// Attaches both programs to a device before all others, or puts them in the place of an earlier agent's.
pub(crate) fn attach_tcx(pins: &Pins, programs: &Programs, ifindex: u32, role: Role) -> Result<()> {
    for hook in role.hooks() {
        let program = programs.get(hook);
        let action = || format!("attach `{}` to device {ifindex}", program_name(hook));
        let path = link_path(pins, ifindex, hook);
        let wanted = bpf::program_info(program).during(action)?.id;
        match open_link(&path).during(action)? {
            Found::Link(link, info) if fits(info, ifindex, hook) => {
                if info.program != wanted {
                    bpf::update_link(link.as_fd(), program).during(action)?;
                }
                continue;
            }
            // The index had another device, which took its link with it when it went.
            Found::Link(..) => pins::remove(&path)?,
            Found::Nothing => {}
            Found::Foreign => {
                return Err(Error::ForeignPin {
                    path,
                    found: "something that is no tcx link".to_owned(),
                    expected: format!("the tcx link of `{}`", program_name(hook)),
                });
            }
        }
        let link = bpf::create_tcx_link(program, ifindex, attach_point(hook)).during(action)?;
        bpf::pin(&link, &path).during(action)?;
    }
    Ok(())
}

/// Removes all links of a device.
pub(crate) fn detach_tcx(pins: &Pins, ifindex: u32) -> Result<()> {
    for hook in Hook::ALL {
        pins::remove(&link_path(pins, ifindex, hook))?;
    }
    Ok(())
}

/// Devices that have both links of a role; pins of devices that are gone are removed.
pub(crate) fn attached_tcx(pins: &Pins, role: Role) -> Result<BTreeSet<u32>> {
    let mut hooks = [const { BTreeSet::new() }; Hook::COUNT as usize];
    for path in pins::list(&pins.links())? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((ifindex, hook)) = name.and_then(parse_link_name) else {
            continue;
        };
        match open_link(&path).during(|| format!("read {}", path.display()))? {
            Found::Link(_, info) if fits(info, ifindex, hook) => {
                hooks[hook as usize].insert(ifindex);
            }
            Found::Link(..) => pins::remove(&path)?,
            Found::Nothing | Found::Foreign => {}
        }
    }
    let [from, to] = role.hooks().map(|hook| &hooks[hook as usize]);
    Ok(from & to)
}

/// Attaches both programs to a device as filters, or puts them in the place of an earlier agent's.
pub(crate) fn attach_clsact(programs: &Programs, ifindex: u32, role: Role) -> Result<()> {
    let netlink = Netlink::open().during(|| "open a netlink socket")?;
    for hook in role.hooks() {
        netlink
            .attach(ifindex, hook, programs.get(hook))
            .during(|| format!("attach filter `{}` to device {ifindex}", program_name(hook)))?;
    }
    Ok(())
}

/// Removes Weir's filters from a device.
pub(crate) fn detach_clsact(ifindex: u32) -> Result<()> {
    let netlink = Netlink::open().during(|| "open a netlink socket")?;
    netlink
        .detach(ifindex)
        .during(|| format!("remove Weir's filters from device {ifindex}"))
}

/// Devices that have any of a role's filters, and those that have both.
pub(crate) fn attached_clsact(role: Role) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    let filters = Netlink::open()
        .and_then(|netlink| netlink.all_filters())
        .during(|| "list the filters of all devices")?;
    let [from, to] = role.hooks().map(|hook| {
        let of_hook = filters.iter().filter(|filter| filter.hook == hook);
        of_hook
            .map(|filter| filter.ifindex)
            .collect::<BTreeSet<_>>()
    });
    Ok((&from | &to, &from & &to))
}

enum Found {
    Link(std::os::fd::OwnedFd, LinkInfo),
    Nothing,
    Foreign,
}

fn open_link(path: &std::path::Path) -> io::Result<Found> {
    let fd = match bpf::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        fd => fd?,
    };
    let info = bpf::link_info(fd.as_fd())?;
    Ok(info.map_or(Found::Foreign, |info| Found::Link(fd, info)))
}

fn fits(info: LinkInfo, ifindex: u32, hook: Hook) -> bool {
    info.ifindex == ifindex && info.point == attach_point(hook)
}

fn link_path(pins: &Pins, ifindex: u32, hook: Hook) -> PathBuf {
    pins.links()
        .join(format!("{ifindex}_{}", program_name(hook)))
}

fn parse_link_name(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, program) = name.split_once('_')?;
    let hook = Hook::ALL
        .into_iter()
        .find(|hook| program_name(*hook) == program)?;
    Some((ifindex.parse().ok()?, hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_are_read_back() {
        for (name, expected) in [
            ("7_from_pod", Some((7, Hook::FromPod))),
            ("4294967295_to_pod", Some((u32::MAX, Hook::ToPod))),
            ("7_from_net", Some((7, Hook::FromNet))),
            ("7_to_net", Some((7, Hook::ToNet))),
            ("7_from_nowhere", None),
            ("x_from_pod", None),
            ("from_pod", None),
        ] {
            assert_eq!(parse_link_name(name), expected, "{name}");
        }
    }
}
