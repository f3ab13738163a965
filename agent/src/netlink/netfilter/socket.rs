//! A socket to netfilter (nfnetlink), and the form of its messages.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::attributes::Attributes;

/// Messages that begin and end what is carried out as a whole or not at all (linux/netfilter/nfnetlink.h).
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Attribute of `BATCH_BEGIN`: the generation that the batch is for.
const BATCH_GENERATION: u16 = 1;
/// Flag of an answer that is not of one moment.
const INTERRUPTED: u16 = 0x10;

/// `struct nlmsghdr` and `struct nfgenmsg`, which all messages of netfilter begin with.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    version: u8,
    resource: [u8; 2],
}

/// Length of `struct nlmsghdr` alone.
const NLMSGHDR: usize = 16;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Subsystem and message.
    pub(super) kind: u16,
    /// Besides `NLM_F_REQUEST`.
    pub(super) flags: i32,
    /// Address family.
    pub(super) family: u8,
    /// What it says.
    pub(super) attributes: Attributes,
}

/// A message of an answer.
pub(super) struct Message<'a> {
    /// Address family.
    pub(super) family: u8,
    /// What it says.
    pub(super) attributes: &'a [u8],
}

/// What became of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    /// All of one moment.
    Whole,
    /// There were changes meanwhile.
    Interrupted,
}

/// A socket of the process's network namespace.
pub(super) struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The same; `None` where the kernel has no netfilter.
    pub(super) fn open_if_any() -> io::Result<Option<Self>> {
        match Self::open() {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Asks for one thing or all of a kind, and calls `visit` with every message of the answer.
    pub(super) fn ask(
        &self,
        request: &Request,
        mut visit: impl FnMut(Message<'_>),
    ) -> io::Result<Dump> {
        let mut bytes = Vec::new();
        put(&mut bytes, request, 0, 0)?;
        self.socket.send(&bytes, 0)?;
        let dump = request.flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let mut whole = Dump::Whole;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((header, body, after)) = split(rest)? {
                rest = after;
                if header.flags & INTERRUPTED != 0 && dump {
                    whole = Dump::Interrupted;
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => return error_of(body).map(|()| whole),
                    libc::NLMSG_ERROR => return error_of(body).map(|()| whole),
                    _ => {
                        let family = body.first().copied().unwrap_or_default();
                        let attributes = body.get(4..).unwrap_or_default();
                        visit(Message { family, attributes });
                        if !dump {
                            return Ok(whole);
                        }
                    }
                }
            }
        }
    }

    /// Has requests carried out as a whole, or none of them: `Err` with the one that was refused, by its place.
    /// ERESTART: the subsystem is not at this generation any more.
    pub(super) fn batch(
        &self,
        subsystem: u8,
        generation: u32,
        requests: &[Request],
    ) -> Result<(), (usize, io::Error)> {
        let whole = |error| (0, error);
        let (bytes, last) = frame(subsystem, generation, requests).map_err(whole)?;
        // A batch is one message to the kernel, however large.
        rustix::net::sockopt::set_socket_send_buffer_size_force(
            &self.socket,
            2 * bytes.len() + 4096,
        )
        .map_err(io::Error::from)
        .map_err(whole)?;
        self.socket.send(&bytes, 0).map_err(whole)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(whole)?;
            let mut rest = datagram.as_slice();
            while let Some((header, body, after)) = split(rest).map_err(whole)? {
                rest = after;
                if i32::from(header.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                let place = (header.sequence as usize).saturating_sub(1);
                error_of(body).map_err(|error| (place, error))?;
                if header.sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

/// A batch as it is sent, and the number of the request that is confirmed: the last. Requests are numbered from 1.
fn frame(subsystem: u8, generation: u32, requests: &[Request]) -> io::Result<(Vec<u8>, u32)> {
    let mark = |kind, attributes| Request {
        kind,
        flags: 0,
        family: 0,
        attributes,
    };
    let subsystem = u16::from(subsystem);
    let mut bytes = Vec::new();
    let begin = mark(
        BATCH_BEGIN,
        Attributes::new().number(BATCH_GENERATION, generation),
    );
    put(&mut bytes, &begin, 0, subsystem)?;
    let mut sequence = 0;
    for request in requests {
        sequence += 1;
        let mut request = request.clone();
        if sequence as usize == requests.len() {
            request.flags |= libc::NLM_F_ACK;
        }
        put(&mut bytes, &request, sequence, 0)?;
    }
    let end = mark(BATCH_END, Attributes::new());
    put(&mut bytes, &end, sequence + 1, subsystem)?;
    Ok((bytes, sequence))
}

fn put(bytes: &mut Vec<u8>, request: &Request, sequence: u32, resource: u16) -> io::Result<()> {
    let attributes = request.attributes.as_bytes();
    let header = Header {
        length: u32::try_from(size_of::<Header>() + attributes.len()).map_err(io::Error::other)?,
        kind: request.kind,
        flags: u16::try_from(libc::NLM_F_REQUEST | request.flags).map_err(io::Error::other)?,
        sequence,
        port: 0,
        family: request.family,
        version: 0,
        resource: resource.to_be_bytes(),
    };
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(attributes);
    Ok(())
}

/// The first message of a datagram: header, body, and what follows.
type Split<'a> = (Plain, &'a [u8], &'a [u8]);

fn split(datagram: &[u8]) -> io::Result<Option<Split<'_>>> {
    let Ok((header, _)) = Plain::read_from_prefix(datagram) else {
        return Ok(None);
    };
    let length = header.length as usize;
    let body = datagram
        .get(NLMSGHDR..length)
        .ok_or_else(|| io::Error::other("a netlink message is cut off"))?;
    let rest = datagram.get(length.next_multiple_of(4)..);
    Ok(Some((header, body, rest.unwrap_or_default())))
}

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Plain {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// What a message about the end says: 0 or a negative error number.
fn error_of(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        None | Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}
