//! What is attached where, whoever did it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use super::object::{Info, info};
use super::{AttachPoint, Command, SocketHook, address, bpf, bpf_fd};

/// More programs than the kernel lets one hook have, those of cgroups above included.
const MOST: usize = 1024;
/// `BPF_F_QUERY_EFFECTIVE`: what runs, not what was attached to this very cgroup.
const EFFECTIVE: u32 = 1;

/// The whole of what `BPF_PROG_QUERY` has: the kernel writes the revision wherever it knows of one.
#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

impl QueryAttributes {
    const fn new(target: u32, attach_type: u32, query_flags: u32) -> Self {
        Self {
            target,
            attach_type,
            query_flags,
            attach_flags: 0,
            programs: 0,
            count: MOST as u32,
            reserved: 0,
            program_flags: 0,
            links: 0,
            link_flags: 0,
            revision: 0,
        }
    }
}

/// Numbers of the programs at a device's tcx, in the order in which they run, each with its link's number (0: it has none).
/// Empty where the kernel has no tcx.
pub(crate) fn tcx_programs(ifindex: u32, point: AttachPoint) -> io::Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut attributes = QueryAttributes {
        programs: address(programs.as_mut_ptr()),
        links: address(links.as_mut_ptr()),
        ..QueryAttributes::new(ifindex, point as u32, 0)
    };
    // SAFETY: PROG_QUERY's layout; both arrays are writable and have `count` elements.
    match unsafe { bpf(Command::Query, &mut attributes) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Ok(Vec::new());
        }
        result => result?,
    };
    let found = programs.into_iter().zip(links);
    Ok(found.take(attributes.count as usize).collect())
}

/// Numbers of the programs of a hook in the order in which they run for sockets of a cgroup; with `only_its`, those alone that
/// are attached to that very cgroup.
pub(crate) fn cgroup_programs(
    cgroup: BorrowedFd<'_>,
    hook: SocketHook,
    only_its: bool,
) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; MOST];
    let flags = if only_its { 0 } else { EFFECTIVE };
    let cgroup = u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    let mut attributes = QueryAttributes {
        programs: address(programs.as_mut_ptr()),
        ..QueryAttributes::new(cgroup, hook as u32, flags)
    };
    // SAFETY: PROG_QUERY's layout; the array is writable and has `count` elements.
    unsafe { bpf(Command::Query, &mut attributes)? };
    Ok(programs
        .into_iter()
        .take(attributes.count as usize)
        .collect())
}

/// What the commands that go by numbers take.
#[repr(C)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
}

/// The first link that `found` says yes to, by its number. Takes CAP_SYS_ADMIN.
pub(crate) fn find_link(found: impl Fn(BorrowedFd<'_>) -> bool) -> io::Result<Option<u32>> {
    let attributes = |id| IdAttributes {
        id,
        next: 0,
        flags: 0,
    };
    let mut last = 0;
    loop {
        let mut next = attributes(last);
        // SAFETY: LINK_GET_NEXT_ID's layout, without addresses.
        match unsafe { bpf(Command::LinkNextId, &mut next) } {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        last = next.next;
        // SAFETY: LINK_GET_FD_BY_ID's layout, without addresses.
        match unsafe { bpf_fd(Command::LinkById, &mut attributes(last)) } {
            // It went in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            link => {
                if found(link?.as_fd()) {
                    return Ok(Some(last));
                }
            }
        }
    }
}

/// `struct bpf_prog_info` up to the name. The addresses in it stay zero, which asks for nothing there.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct NamedProgram {
    kind: u32,
    id: u32,
    tag: u64,
    lengths: [u32; 2],
    code: [u64; 2],
    loaded: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

// SAFETY: plain numbers, the first fields of the kernel's struct; the lengths that belong to addresses are zero.
unsafe impl Info for NamedProgram {}

/// Name of a program by its number; `None` where it has none or the kernel does not tell (it takes CAP_SYS_ADMIN).
pub(crate) fn program_name(id: u32) -> Option<String> {
    let mut attributes = IdAttributes {
        id,
        next: 0,
        flags: 0,
    };
    // SAFETY: PROG_GET_FD_BY_ID's layout, without addresses.
    let program: OwnedFd = unsafe { bpf_fd(Command::ProgramById, &mut attributes) }.ok()?;
    let NamedProgram { name, .. } = info(program.as_fd()).ok()?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}
