//! Programs for the sockets of a cgroup.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

use super::object::{Info, TypeOf, info, type_of};
use super::{Command, bpf, bpf_fd};

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

/// What a process does with an address (`enum bpf_attach_type`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketHook {
    /// `BPF_CGROUP_INET4_CONNECT`.
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`.
    Connect6 = 11,
    /// `BPF_CGROUP_UDP4_SENDMSG`.
    Sendmsg4 = 14,
    /// `BPF_CGROUP_UDP6_SENDMSG`.
    Sendmsg6 = 15,
    /// `BPF_CGROUP_UDP4_RECVMSG`.
    Recvmsg4 = 19,
    /// `BPF_CGROUP_UDP6_RECVMSG`.
    Recvmsg6 = 20,
    /// `BPF_CGROUP_INET4_GETPEERNAME`.
    Getpeername4 = 29,
    /// `BPF_CGROUP_INET6_GETPEERNAME`.
    Getpeername6 = 30,
}

#[repr(C)]
struct LinkCreateAttributes {
    program_fd: i32,
    cgroup_fd: i32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup, after those that are there. The link lives as long as a descriptor or pin of it.
pub(crate) fn create_cgroup_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: SocketHook,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreateAttributes {
        program_fd: program.as_raw_fd(),
        cgroup_fd: cgroup.as_raw_fd(),
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: LINK_CREATE's layout for cgroups, without addresses.
    unsafe { bpf_fd(Command::LinkCreate, &mut attributes) }
}

/// Detaches a link at once: one that loses its last descriptor or pin is detached some time later.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: LINK_DETACH's layout, one descriptor.
    unsafe { bpf(Command::LinkDetach, &mut link.as_raw_fd()) }.map(drop)
}

/// `struct bpf_link_info` for cgroups.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    cgroup: u64,
    attach_type: u32,
    padding: u32,
}

// SAFETY: plain numbers, the first fields of the kernel's struct; it has no address among them.
unsafe impl Info for RawLinkInfo {}

/// A link of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupLink {
    /// Number of its program.
    pub(crate) program: u32,
    /// Number of its cgroup, which is its directory's inode; 0 when the cgroup is gone.
    pub(crate) cgroup: u64,
    /// As in [`SocketHook`].
    pub(crate) hook: u32,
}

/// What a link hangs on; `None` when it is no cgroup's link.
pub(crate) fn cgroup_link(fd: BorrowedFd<'_>) -> io::Result<Option<CgroupLink>> {
    if type_of(fd)? != TypeOf::Link {
        return Ok(None);
    }
    let raw: RawLinkInfo = info(fd)?;
    Ok((raw.kind == LINK_TYPE_CGROUP).then_some(CgroupLink {
        program: raw.program,
        cgroup: raw.cgroup,
        hook: raw.attach_type,
    }))
}

/// Cookie of the process's network namespace; `None` where the kernel does not tell (before Linux 5.14).
pub(crate) fn netns_cookie() -> io::Result<Option<u64>> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(Some(cookie));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        error => Err(error),
    }
}
