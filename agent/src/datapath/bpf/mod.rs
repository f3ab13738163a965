//! The parts of bpf(2) that aya has no safe form of: maps as bytes, batches, links by interface index, information of a pin.
//!
//! Attribute structs are declared here as the kernel's `union bpf_attr` lays them out (include/uapi/linux/bpf.h), each no longer
//! than the fields used: the kernel takes a missing tail as zeroes.

mod cgroup;
mod map;
mod object;
mod query;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

pub use object::TestRun;

pub(crate) use cgroup::{
    CgroupLink, SocketHook, cgroup_link, create_cgroup_link, detach_link, netns_cookie,
};
pub(crate) use map::{Entries, Map, Shape, is_unsupported, map_type};
pub(crate) use object::{
    AttachPoint, LinkInfo, TestRunOutput, XdpLink, create_tcx_link, create_xdp_link, link_info,
    link_program, open_pin, pin, program_info, test_run, update_link, xdp_link, xdp_test_run,
};
pub(crate) use query::{cgroup_programs, find_link, program_name, tcx_programs};

/// Commands of bpf(2) that this module uses (`enum bpf_cmd`).
#[repr(i32)]
#[derive(Clone, Copy, Debug)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    Pin = 6,
    Get = 7,
    TestRun = 10,
    ProgramById = 13,
    Info = 15,
    Query = 16,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkById = 30,
    LinkNextId = 31,
    LinkDetach = 34,
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be the kernel's layout for `command`, every address in it must point to memory of the length that the
/// command and the object behind its descriptor imply, writable where the kernel writes.
unsafe fn bpf<T>(command: Command, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the caller vouches for what the attributes refer to; the struct itself lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`bpf`], for a command that returns a new descriptor.
///
/// # Safety
/// As for [`bpf`]; `command` must return a descriptor.
unsafe fn bpf_fd<T>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes)? };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A user address as the kernel's attributes hold it.
fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as u64
}
