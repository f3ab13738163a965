//! XDP programs that are not Weir's.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// `BPF_PROG_LOAD` and `BPF_LINK_CREATE` of `enum bpf_cmd`.
const LOAD: libc::c_long = 5;
const CREATE_LINK: libc::c_long = 28;
/// `BPF_PROG_TYPE_XDP`.
const PROGRAM_TYPE: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_TYPE: u32 = 37;
/// `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const IN_DRIVER: u32 = 1 << 2;
/// `XDP_DROP` and `XDP_PASS`.
const DROP: u64 = 1;
const PASS: u64 = 2;

/// The start of what `union bpf_attr` has for loading.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
}

/// The start of what it has for links.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// A program that does the same with every packet, in a device's driver for as long as this lives.
#[derive(Debug)]
pub struct Constant {
    _link: OwnedFd,
}

impl Constant {
    /// Lets everything pass at a device of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn passing(ifindex: u32) -> io::Result<Self> {
        Self::attach(ifindex, PASS)
    }

    /// Drops everything that comes in by such a device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dropping(ifindex: u32) -> io::Result<Self> {
        Self::attach(ifindex, DROP)
    }

    fn attach(ifindex: u32, action: u64) -> io::Result<Self> {
        let licence = c"GPL";
        // `r0 = action`, `exit`.
        let code = [0xb7 | action << 32, 0x95];
        let program = bpf(
            LOAD,
            &LoadAttributes {
                kind: PROGRAM_TYPE,
                instructions: code.len() as u32,
                code: code.as_ptr().addr() as u64,
                licence: licence.as_ptr().addr() as u64,
            },
        )?;
        let link = bpf(
            CREATE_LINK,
            &LinkAttributes {
                program: program.as_raw_fd().cast_unsigned(),
                ifindex,
                attach_type: ATTACH_TYPE,
                flags: IN_DRIVER,
            },
        )?;
        Ok(Self { _link: link })
    }
}

/// A command that gives a descriptor, with its attributes.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, and all that they point to lives through the call, which only reads it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
