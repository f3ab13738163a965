//! Connected UDP sockets of the node whose backend is gone: found and ended by netlink (sock_diag(7)), as the kernel's `ss -K` does.
//!
//! Nothing else tells their processes: what they send goes nowhere without an error. Other protocols notice by themselves, and
//! unconnected sockets are given another backend with their next datagram.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use weir_common::abi::Address;
use weir_common::logic::protocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// State of a connected socket, also of UDP.
const ESTABLISHED: u32 = 1;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`; ports and addresses as on the wire.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SocketId {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Found {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    numbers: [u32; 5],
}

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// What no other socket of this kernel ever has.
    pub(crate) cookie: u64,
    /// Address of its peer, as the kernel knows it.
    pub(crate) address: Address,
    /// Port of its peer.
    pub(crate) port: u16,
}

impl From<&Found> for Connected {
    fn from(found: &Found) -> Self {
        let id = &found.id;
        let [a, b, c, d, ..] = id.destination;
        let [low, high] = id.cookie.map(u64::from);
        Self {
            cookie: low | high << 32,
            address: if i32::from(found.family) == libc::AF_INET {
                Address::from_v4_word(u32::from_ne_bytes([a, b, c, d]))
            } else {
                Address::from_bytes(id.destination)
            },
            port: u16::from_be_bytes(id.destination_port),
        }
    }
}

/// Ends the connected UDP sockets of this network namespace for which `is_stale` holds: reading fails with ECONNABORTED, sending with
/// EDESTADDRREQ.
/// Gives how many; none where the kernel was built without UDP sockets in sock_diag.
pub(crate) fn end_stale(is_stale: impl Fn(Connected) -> bool) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut ended = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).map_err(io::Error::other)?;
        for id in list(&socket, family, &is_stale)? {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            send(&socket, DESTROY, flags, request(family, id))?;
            match receive(&socket, |_| {}) {
                Ok(()) => ended += 1,
                // Its process was faster.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

fn list(
    socket: &Socket,
    family: u8,
    is_stale: impl Fn(Connected) -> bool,
) -> io::Result<Vec<SocketId>> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    send(
        socket,
        BY_FAMILY,
        flags,
        request(family, SocketId::default()),
    )?;
    let mut stale = Vec::new();
    let listed = receive(socket, |found| {
        if is_stale(Connected::from(&found)) {
            stale.push(found.id);
        }
    });
    match listed {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        result => result.map(|()| stale),
    }
}

fn request(family: u8, id: SocketId) -> Request {
    Request {
        family,
        protocol: protocol::UDP,
        extensions: 0,
        padding: 0,
        states: 1 << ESTABLISHED,
        id,
    }
}

fn send(socket: &Socket, kind: u16, flags: i32, body: Request) -> io::Result<()> {
    let header = Header {
        length: (size_of::<Header>() + size_of::<Request>()) as u32,
        kind,
        flags: u16::try_from(flags).map_err(io::Error::other)?,
        sequence: 0,
        port: 0,
    };
    let message = [header.as_bytes(), body.as_bytes()].concat();
    socket.send(&message, 0).map(drop)
}

/// Reads a whole answer: calls `visit` with every socket.
fn receive(socket: &Socket, mut visit: impl FnMut(Found)) -> io::Result<()> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Ok((header, body)) = Header::read_from_prefix(rest) {
            let length = header.length as usize;
            let Some(body) = length
                .checked_sub(size_of::<Header>())
                .and_then(|length| body.get(..length))
            else {
                return Err(io::Error::other("a netlink message is cut off"));
            };
            match i32::from(header.kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => return error_of(body),
                _ => {
                    if let Ok((found, _)) = Found::read_from_prefix(body) {
                        visit(found);
                    }
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// What an answer ends with: 0 or a negative error number.
fn error_of(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::Error::other("a netlink error is cut off")),
    }
}
