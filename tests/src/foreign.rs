//! Programs that are not Weir's: each answers the same to whatever it is given.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Of `enum bpf_cmd`: `BPF_PROG_LOAD`, `BPF_OBJ_PIN` and `BPF_LINK_CREATE`.
const LOAD: libc::c_long = 5;
const PIN: libc::c_long = 6;
const CREATE_LINK: libc::c_long = 28;

/// What a program is for; its number is that of `enum bpf_attach_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Addresses that processes of a cgroup connect to.
    Connect4 = 10,
    /// Packets in drivers.
    Xdp = 37,
    /// Packets that come in by a device.
    TcxIngress = 46,
    /// Packets that go out by a device.
    TcxEgress = 47,
}

impl Purpose {
    /// Of `enum bpf_prog_type`.
    const fn program_type(self) -> u32 {
        match self {
            Self::Connect4 => 18,
            Self::Xdp => 6,
            Self::TcxIngress | Self::TcxEgress => 3,
        }
    }

    /// What must be known of it when it is loaded.
    const fn expected(self) -> u32 {
        match self {
            Self::Connect4 => self as u32,
            Self::Xdp | Self::TcxIngress | Self::TcxEgress => 0,
        }
    }
}

/// The start of what `union bpf_attr` has for loading.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// What it has for pins.
#[repr(C)]
struct PinAttributes {
    path: u64,
    program: u32,
    flags: u32,
}

/// The start of what it has for links.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// A loaded program.
#[derive(Debug)]
pub struct Foreign {
    purpose: Purpose,
    program: OwnedFd,
}

impl Foreign {
    /// Loads one named `foreign` that answers `result`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(purpose: Purpose, result: u32) -> io::Result<Self> {
        let licence = c"GPL";
        // `r0 = result`, `exit`.
        let code = [0xb7 | u64::from(result) << 32, 0x95];
        let mut name = [0; 16];
        name[..7].copy_from_slice(b"foreign");
        let attributes = LoadAttributes {
            kind: purpose.program_type(),
            instructions: code.len() as u32,
            code: code.as_ptr().addr() as u64,
            licence: licence.as_ptr().addr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel: 0,
            flags: 0,
            name,
            ifindex: 0,
            attach_type: purpose.expected(),
        };
        let program = bpf(LOAD, &attributes)?;
        // SAFETY: the kernel has just given it to us alone.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        Ok(Self { purpose, program })
    }

    /// Pins it at a path of a BPF file system.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let attributes = PinAttributes {
            path: path.as_ptr().addr() as u64,
            program: self.program.as_raw_fd().cast_unsigned(),
            flags: 0,
        };
        bpf(PIN, &attributes).map(drop)
    }

    /// Attaches it to a device (by index, in the calling thread's network namespace) or cgroup (by descriptor) for as long as the
    /// link lives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn link(&self, target: u32, flags: u32) -> io::Result<OwnedFd> {
        let attributes = LinkAttributes {
            program: self.program.as_raw_fd().cast_unsigned(),
            target,
            attach_type: self.purpose as u32,
            flags,
        };
        let link = bpf(CREATE_LINK, &attributes)?;
        // SAFETY: the kernel has just given it to us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }
}

/// A command with its attributes, which only reads what they point to.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are those of the command, and all that they point to lives through the call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
