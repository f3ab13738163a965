//! Classic TC filters, for kernels without tcx: one filter per hook with Weir's own priority, handle and name under `clsact`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use weir_common::abi::Hook;

use super::bpf::AttachPoint;
use super::object::program_name;

/// Before everybody who leaves the choice to the kernel (49152 and down) and next to those who want to be first.
const PRIORITY: u32 = 1;
/// "WEIR": tells Weir's filter from others of the same priority.
const HANDLE: u32 = u32::from_be_bytes(*b"WEIR");
/// Names of the filters are this and the program's name.
const NAME: &str = "weir_";
const KIND: &str = "clsact";

const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_INGRESS: u32 = 0xffff_fff2;
const TC_H_EGRESS: u32 = 0xffff_fff3;
const CLSACT_HANDLE: u32 = 0xffff_0000;

/// A filter of Weir's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Device.
    pub(crate) ifindex: u32,
    /// Whose program it runs.
    pub(crate) hook: Hook,
    /// Number of that program.
    pub(crate) program: u32,
}

/// A filter of anybody's that is an eBPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramFilter {
    /// Its place among all filters of a hook: the lowest is first.
    pub(crate) priority: u32,
    /// Its name among those of that priority.
    pub(crate) handle: u32,
    /// What it is called.
    pub(crate) name: Option<String>,
    /// Number of the program.
    pub(crate) program: u32,
    /// Whether it is Weir's.
    pub(crate) own: bool,
}

/// A routing netlink socket of the process's network namespace.
pub(crate) struct Netlink {
    socket: Socket,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Attaches a program to a device, or puts it in the place of Weir's earlier one: every packet meets one of the two.
    pub(crate) fn attach(
        &self,
        ifindex: u32,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.add_clsact(ifindex)?;
        let program = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
        let message = filter(
            ifindex,
            hook,
            vec![
                TcAttribute::Kind("bpf".to_owned()),
                TcAttribute::Options(vec![
                    TcOption::Bpf(TcFilterBpfOption::ProgFd(program)),
                    TcOption::Bpf(TcFilterBpfOption::ProgName(filter_name(hook))),
                    TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
                ]),
            ],
        );
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        // Without NLM_F_EXCL a filter with this handle is replaced.
        self.request(message, NLM_F_ACK | NLM_F_CREATE).map(drop)
    }

    /// Removes Weir's filters from a device, and its `clsact` when nothing else is there.
    pub(crate) fn detach(&self, ifindex: u32) -> io::Result<()> {
        for found in self.filters(ifindex)? {
            let filter = filter(ifindex, found.hook, Vec::new());
            let message = RouteNetlinkMessage::DelTrafficFilter(filter);
            ignore(
                self.request(message, NLM_F_ACK),
                &[libc::ENOENT, libc::ENODEV],
            )?;
        }
        for parent in [TC_H_INGRESS, TC_H_EGRESS] {
            if !self.dump_filters(ifindex, parent)?.is_empty() {
                return Ok(());
            }
        }
        let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex));
        ignore(
            self.request(message, NLM_F_ACK),
            &[libc::ENOENT, libc::EINVAL, libc::ENODEV],
        )
    }

    /// Weir's filters on a device; none where the device is gone.
    pub(crate) fn filters(&self, ifindex: u32) -> io::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        for parent in [TC_H_INGRESS, TC_H_EGRESS] {
            for message in self.dump_filters(ifindex, parent)? {
                let own = Hook::ALL
                    .into_iter()
                    .filter(|hook| parent_of(*hook) == parent);
                filters.extend(own.filter_map(|hook| {
                    own_program(&message, hook).map(|program| Filter {
                        ifindex,
                        hook,
                        program,
                    })
                }));
            }
        }
        Ok(filters)
    }

    /// All filters that are eBPF programs, in the order in which they run.
    pub(crate) fn programs(
        &self,
        ifindex: u32,
        point: AttachPoint,
    ) -> io::Result<Vec<ProgramFilter>> {
        let parent = match point {
            AttachPoint::Ingress => TC_H_INGRESS,
            AttachPoint::Egress => TC_H_EGRESS,
        };
        let filters = self.dump_filters(ifindex, parent)?;
        Ok(filters.iter().filter_map(program_filter).collect())
    }

    /// Weir's filters on all devices.
    pub(crate) fn all_filters(&self) -> io::Result<Vec<Filter>> {
        let dump = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(0));
        let devices: BTreeSet<u32> =
            self.request(dump, NLM_F_DUMP)?
                .into_iter()
                .filter_map(|message| match message {
                    RouteNetlinkMessage::NewQueueDiscipline(qdisc) => Some(qdisc),
                    _ => None,
                })
                .filter(|qdisc| {
                    qdisc.attributes.iter().any(
                        |attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == KIND),
                    )
                })
                .filter_map(|qdisc| u32::try_from(qdisc.header.index).ok())
                .collect();
        let mut filters = Vec::new();
        for ifindex in devices {
            filters.extend(self.filters(ifindex)?);
        }
        Ok(filters)
    }

    fn add_clsact(&self, ifindex: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(ifindex));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        ignore(self.request(message, flags), &[libc::EEXIST])
    }

    fn dump_filters(&self, ifindex: u32, parent: u32) -> io::Result<Vec<TcMessage>> {
        let mut message = TcMessage::with_index(index(ifindex));
        message.header.parent = TcHandle::from(parent);
        let dump = RouteNetlinkMessage::GetTrafficFilter(message);
        let answers = match self.request(dump, NLM_F_DUMP) {
            // No such device, or no clsact on it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {
                return Ok(Vec::new());
            }
            answers => answers?,
        };
        let filters = answers.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        });
        Ok(filters.collect())
    }

    /// Sends a request and reads the whole answer.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some(length) = message_length(rest) {
                // A message that the library cannot read is about another's qdisc or filter.
                let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                match parsed.map(|message| message.payload) {
                    Ok(NetlinkPayload::Done(_)) => return Ok(answers),
                    Ok(NetlinkPayload::Error(error)) => {
                        return error.code.map_or(Ok(answers), |code| {
                            Err(io::Error::from_raw_os_error(code.get().abs()))
                        });
                    }
                    Ok(NetlinkPayload::InnerMessage(message)) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// Length of the first message of a datagram, from its header; `None` at the end or where it makes no sense.
fn message_length(datagram: &[u8]) -> Option<usize> {
    const HEADER: usize = 16;
    let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
    (length >= HEADER && length <= datagram.len()).then_some(length)
}

fn ignore<T>(result: io::Result<T>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|code| codes.contains(&code)) =>
        {
            Ok(())
        }
        result => result.map(drop),
    }
}

fn index(ifindex: u32) -> i32 {
    ifindex.cast_signed()
}

fn filter_name(hook: Hook) -> String {
    format!("{NAME}{}", program_name(hook))
}

fn qdisc(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(ifindex));
    message.header.parent = TcHandle::from(TC_H_CLSACT);
    message.header.handle = TcHandle::from(CLSACT_HANDLE);
    message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    message
}

/// Where under `clsact` a hook's filter is.
const fn parent_of(hook: Hook) -> u32 {
    match hook {
        Hook::FromPod | Hook::FromNet => TC_H_INGRESS,
        Hook::ToPod | Hook::ToNet => TC_H_EGRESS,
    }
}

fn filter(ifindex: u32, hook: Hook, attributes: Vec<TcAttribute>) -> TcMessage {
    let mut message = TcMessage::with_index(index(ifindex));
    message.header.parent = TcHandle::from(parent_of(hook));
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = filter_info();
    message.attributes = attributes;
    message
}

/// Priority in the upper half, protocol (network byte order) in the lower one.
fn filter_info() -> u32 {
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default();
    PRIORITY << 16 | u32::from(all.to_be())
}

/// Number of the program if this is Weir's filter of that hook: by priority, handle and name.
fn own_program(message: &TcMessage, hook: Hook) -> Option<u32> {
    let found = program_filter(message)?;
    (found.own && found.name == Some(filter_name(hook))).then_some(found.program)
}

/// The filter if it is an eBPF program.
fn program_filter(message: &TcMessage) -> Option<ProgramFilter> {
    let options = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    let program = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })?;
    let name = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    let (priority, handle) = (message.header.info >> 16, message.header.handle.into());
    let is_own = |name: &String| Hook::ALL.into_iter().any(|hook| *name == filter_name(hook));
    Some(ProgramFilter {
        own: (priority, handle) == (PRIORITY, HANDLE) && name.as_ref().is_some_and(is_own),
        priority,
        handle,
        name,
        program,
    })
}
