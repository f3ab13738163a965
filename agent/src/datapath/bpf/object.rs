//! Programs, links and pins.

use std::ffi::CString;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Command, address, bpf, bpf_fd};

/// `BPF_LINK_TYPE_XDP`.
const LINK_TYPE_XDP: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
const LINK_TYPE_TCX: u32 = 11;
/// `BPF_F_BEFORE`: without another program named, before all others.
const BEFORE: u32 = 1 << 3;

/// Where on a device a tcx link hangs (`enum bpf_attach_type`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttachPoint {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// Kind of object behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TypeOf {
    Map,
    Program,
    Link,
    Other,
}

/// Asks the kernel what a descriptor is: the name of its anonymous inode.
pub(crate) fn type_of(fd: BorrowedFd<'_>) -> io::Result<TypeOf> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(match target.as_os_str().as_bytes() {
        b"anon_inode:bpf-map" => TypeOf::Map,
        b"anon_inode:bpf-prog" => TypeOf::Program,
        b"anon_inode:bpf_link" | b"anon_inode:bpf-link" => TypeOf::Link,
        _ => TypeOf::Other,
    })
}

/// Structs that the kernel may fill for `BPF_OBJ_GET_INFO_BY_FD`.
///
/// # Safety
/// Any bytes must be a valid value, and the fields those of the kernel's struct for the kind of object, from its start on.
pub(crate) unsafe trait Info: Copy + Default {}

#[repr(C)]
struct InfoAttributes {
    fd: i32,
    length: u32,
    info: u64,
}

/// Information about a map, program or link. The caller knows that `fd` is of the kind that `T` is for.
pub(crate) fn info<T: Info>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = InfoAttributes {
        fd: fd.as_raw_fd(),
        length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    // SAFETY: the kernel writes at most `length` bytes; `Info` vouches that any bytes will do.
    unsafe { bpf(Command::Info, &mut attributes)? };
    Ok(info)
}

/// `struct bpf_prog_info`, as far as used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgramInfo {
    /// `enum bpf_prog_type`.
    pub(crate) kind: u32,
    /// Number of the program in this kernel.
    pub(crate) id: u32,
    /// Hash of the instructions.
    pub(crate) tag: [u8; 8],
}

// SAFETY: plain numbers, the first fields of the kernel's struct; it has no address among them.
unsafe impl Info for ProgramInfo {}

/// Information about a program.
pub(crate) fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    info(fd)
}

/// `struct bpf_link_info` for tcx, and for XDP, which has no attach type. Other kinds have other fields after the program, none of them an address to be read here
/// before it was written: the struct starts as zeroes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    ifindex: u32,
    attach_type: u32,
}

// SAFETY: plain numbers, the first fields of the kernel's struct.
unsafe impl Info for RawLinkInfo {}

/// A tcx link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Number of its program.
    pub(crate) program: u32,
    /// Its device; 0 when the device is gone.
    pub(crate) ifindex: u32,
    /// Ingress or egress.
    pub(crate) point: AttachPoint,
}

/// What a link hangs on; `None` when it is no tcx link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    if type_of(fd)? != TypeOf::Link {
        return Ok(None);
    }
    let raw: RawLinkInfo = info(fd)?;
    let point = [AttachPoint::Ingress, AttachPoint::Egress]
        .into_iter()
        .find(|point| *point as u32 == raw.attach_type);
    Ok(point
        .filter(|_| raw.kind == LINK_TYPE_TCX)
        .map(|point| LinkInfo {
            program: raw.program,
            ifindex: raw.ifindex,
            point,
        }))
}

/// Number of the program of a link of any kind; `None` when it is no link.
pub(crate) fn link_program(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    if type_of(fd)? != TypeOf::Link {
        return Ok(None);
    }
    info(fd).map(|raw: RawLinkInfo| Some(raw.program))
}

/// A link to the XDP hook of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpLink {
    /// Number of its program.
    pub(crate) program: u32,
    /// Its device; 0 when the device is gone.
    pub(crate) ifindex: u32,
}

/// What an XDP link hangs on; `None` when it is another kind of link, or none.
pub(crate) fn xdp_link(fd: BorrowedFd<'_>) -> io::Result<Option<XdpLink>> {
    if type_of(fd)? != TypeOf::Link {
        return Ok(None);
    }
    let raw: RawLinkInfo = info(fd)?;
    Ok((raw.kind == LINK_TYPE_XDP).then_some(XdpLink {
        program: raw.program,
        ifindex: raw.ifindex,
    }))
}

#[repr(C)]
struct LinkCreateAttributes {
    program_fd: i32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    reserved: u32,
    expected_revision: u64,
}

/// Attaches a program before all others of a device. The link lives as long as a descriptor or pin of it.
pub(crate) fn create_tcx_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    point: AttachPoint,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreateAttributes {
        program_fd: program.as_raw_fd(),
        ifindex,
        attach_type: point as u32,
        flags: BEFORE,
        relative_fd: 0,
        reserved: 0,
        expected_revision: 0,
    };
    // SAFETY: LINK_CREATE's layout for tcx, without addresses.
    unsafe { bpf_fd(Command::LinkCreate, &mut attributes) }
}

/// Attaches a program in a device's driver. The link lives as long as a descriptor or pin of it.
pub(crate) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    /// `BPF_XDP`.
    const XDP: u32 = 37;
    /// `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
    const IN_DRIVER: u32 = 1 << 2;
    let mut attributes = LinkCreateAttributes {
        program_fd: program.as_raw_fd(),
        ifindex,
        attach_type: XDP,
        flags: IN_DRIVER,
        relative_fd: 0,
        reserved: 0,
        expected_revision: 0,
    };
    // SAFETY: LINK_CREATE's layout for XDP, without addresses.
    unsafe { bpf_fd(Command::LinkCreate, &mut attributes) }
}

#[repr(C)]
struct LinkUpdateAttributes {
    link_fd: i32,
    program_fd: i32,
    flags: u32,
    old_program_fd: u32,
}

/// Puts another program into a link; every packet meets the old or the new one.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdateAttributes {
        link_fd: link.as_raw_fd(),
        program_fd: program.as_raw_fd(),
        flags: 0,
        old_program_fd: 0,
    };
    // SAFETY: LINK_UPDATE's layout, without addresses.
    unsafe { bpf(Command::LinkUpdate, &mut attributes) }.map(drop)
}

#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: i32,
    flags: u32,
}

/// Pins a map, program or link at a path of a bpffs.
pub(crate) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinAttributes {
        path: address(path.as_ptr()),
        fd: fd.as_fd().as_raw_fd(),
        flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives through the call.
    unsafe { bpf(Command::Pin, &mut attributes) }.map(drop)
}

/// Opens what is pinned at a path.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinAttributes {
        path: address(path.as_ptr()),
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives through the call.
    unsafe { bpf_fd(Command::Get, &mut attributes) }
}

#[repr(C)]
struct TestRunAttributes {
    program_fd: i32,
    result: u32,
    input_size: u32,
    output_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_input_size: u32,
    context_output_size: u32,
    context_input: u64,
    context_output: u64,
}

/// `struct __sk_buff`, as far as a test run may set or tell it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SkBuff {
    len: u32,
    pkt_type: u32,
    mark: u32,
    queue_mapping: u32,
    protocol: u32,
    vlan_present: u32,
    vlan_tci: u32,
    vlan_proto: u32,
    priority: u32,
    ingress_ifindex: u32,
    ifindex: u32,
    tc_index: u32,
    cb: [u32; 5],
    /// `hash` up to the end of the fields that exist in kernel 5.10.
    rest: [u32; 29],
}

/// More than any kernel's `struct __sk_buff`, of which none less than all may be asked for.
const LEFT: usize = 512;

/// A packet for [`test_run`].
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'a> {
    /// Ethernet frame.
    pub packet: &'a [u8],
    /// Device that the program seems to run on; must exist unless 0 or 1.
    pub ifindex: u32,
    /// Device that the packet seems to have come in by; 0 for the node's own.
    pub ingress_ifindex: u32,
    /// Clock in ticks, for programs loaded to replay.
    pub clock: u32,
    /// Random number, for programs loaded to replay.
    pub random: u32,
    /// Times that the program runs over the packet, which keeps what each run made of it; at least 1.
    pub repeat: u32,
}

impl<'a> TestRun<'a> {
    /// One run over a packet at a device.
    #[must_use]
    pub const fn new(packet: &'a [u8], ifindex: u32, ingress_ifindex: u32) -> Self {
        Self {
            packet,
            ifindex,
            ingress_ifindex,
            clock: 0,
            random: 0,
            repeat: 1,
        }
    }
}

/// What [`test_run`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestRunOutput {
    /// What the program returned.
    pub(crate) result: i32,
    /// The packet afterwards.
    pub(crate) packet: Vec<u8>,
    /// Nanoseconds that the program ran.
    pub(crate) nanoseconds: u32,
    /// Mark that the program left on the packet; 0 at XDP, where packets have none.
    pub(crate) mark: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs a classifier once over a packet (`BPF_PROG_TEST_RUN`).
pub(crate) fn test_run(program: BorrowedFd<'_>, run: TestRun<'_>) -> io::Result<TestRunOutput> {
    let context = SkBuff {
        ifindex: run.ifindex,
        ingress_ifindex: run.ingress_ifindex,
        cb: [run.clock, run.random, 0, 0, 0],
        ..SkBuff::default()
    };
    let mut left = [0; LEFT];
    let mut output = run_once(program, run.packet, run.repeat, &context, &mut left)?;
    let mark = left[offset_of!(SkBuff, mark)..].first_chunk();
    output.mark = mark.copied().map_or(0, u32::from_ne_bytes);
    Ok(output)
}

/// The same for a program at XDP. Clock and random number come before the packet, for want of a better place.
pub(crate) fn xdp_test_run(program: BorrowedFd<'_>, run: TestRun<'_>) -> io::Result<TestRunOutput> {
    let mut input = [run.clock, run.random].map(u32::to_ne_bytes).concat();
    let metadata = input.len();
    input.extend(run.packet);
    let context = XdpMd {
        data: length(metadata)?,
        data_end: length(input.len())?,
        ingress_ifindex: run.ifindex,
        ..XdpMd::default()
    };
    let mut output = run_once(program, &input, run.repeat, &context, &mut [])?;
    output.packet.drain(..metadata.min(output.packet.len()));
    Ok(output)
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

/// `context` is the structure of the kind of program, `left` room for what the program makes of it: for all of the kernel's, or none.
fn run_once<C>(
    program: BorrowedFd<'_>,
    input: &[u8],
    repeat: u32,
    context: &C,
    left: &mut [u8],
) -> io::Result<TestRunOutput> {
    /// More than a program may add to a packet.
    const GROWTH: usize = 256;
    let mut output = vec![0; input.len() + GROWTH];
    let mut attributes = TestRunAttributes {
        program_fd: program.as_raw_fd(),
        result: 0,
        input_size: length(input.len())?,
        output_size: length(output.len())?,
        input: address(input.as_ptr()),
        output: address(output.as_mut_ptr()),
        repeat,
        duration: 0,
        context_input_size: length(size_of::<C>())?,
        context_output_size: length(left.len())?,
        context_input: address(std::ptr::from_ref(context)),
        context_output: match left {
            [] => 0,
            left => address(left.as_mut_ptr()),
        },
    };
    // SAFETY: every buffer has the size given with it; the output is writable.
    unsafe { bpf(Command::TestRun, &mut attributes)? };
    output.truncate(attributes.output_size as usize);
    Ok(TestRunOutput {
        result: attributes.result.cast_signed(),
        packet: output,
        nanoseconds: attributes.duration,
        mark: 0,
    })
}
