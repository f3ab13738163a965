//! What is measured.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use weir_common::abi::{FlowKey, Hook};
use weir_common::logic::protocol;
use weir_common::reason::Reason;
use weir_tests::packets::{Content, Packet, tcp};

use super::world::{BACKEND, POD, PORT, SERVICE, World, address};

/// How a case is run; see the top of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Repeat,
    Single,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeat => "repeat",
            Self::Single => "single",
        })
    }
}

/// One line of the table.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) hook: Hook,
    /// Most nanoseconds that it should take, floor included.
    pub(super) target: Option<u32>,
    /// Why every packet passes or not.
    pub(super) reason: Reason,
    /// Once before each round.
    pub(super) prepare: fn(&World) -> Result<()>,
    /// Packet of a run, by number.
    pub(super) packet: fn(&World, u32) -> Vec<u8>,
    /// Undoes what the run with this number has left.
    pub(super) clean: fn(&World, u32) -> Result<()>,
}

pub(super) fn cases() -> Vec<Case> {
    use Method::{Repeat, Single};
    let case = |name, method, target, reason, packet| Case {
        name,
        method,
        hook: Hook::FromPod,
        target,
        reason,
        prepare: |_| Ok(()),
        packet,
        clean: |_, _| Ok(()),
    };
    vec![
        case(
            "established, IPv4",
            Repeat,
            Some(120),
            Reason::Established,
            |_, _| established(false, 0),
        ),
        Case {
            prepare: |world| world.send(&opening(true, 0)),
            ..case(
                "established, IPv6",
                Repeat,
                Some(150),
                Reason::Established,
                |_, _| established(true, 0),
            )
        },
        case(
            "denied, with its event",
            Repeat,
            Some(800),
            Reason::PolicyDenied,
            |_, _| {
                packet(
                    address(POD[0]),
                    40_000,
                    address("172.30.0.7"),
                    PORT,
                    tcp::SYN,
                )
            },
        ),
        case(
            "established, IPv4",
            Single,
            None,
            Reason::Established,
            |_, _| established(false, 0),
        ),
        case(
            "established, IPv4, a random flow",
            Single,
            None,
            Reason::Established,
            |world, number| established(false, scattered(number) % world.flows()),
        ),
        Case {
            clean: |world, number| forget(world, &opening_ends(number)),
            ..case(
                "first packet, allowed",
                Single,
                Some(800),
                Reason::PolicyAllowed,
                |_, number| {
                    let (source, source_port, destination) = opening_ends(number);
                    packet(source, source_port, destination, PORT, tcp::SYN)
                },
            )
        },
        Case {
            clean: |world, number| {
                let port = client_port(number);
                let ends = |there: &str, to| (address(POD[0]), port, address(there), to);
                forget_flow(world, ends(SERVICE[0], 80))?;
                forget_flow(world, ends(BACKEND[0], PORT))
            },
            ..case(
                "first packet to a Service",
                Single,
                Some(800),
                Reason::PolicyAllowed,
                |_, number| to_service(client_port(number), tcp::SYN),
            )
        },
        Case {
            prepare: |world| world.send(&to_service(9, tcp::SYN)),
            ..case(
                "next packet to a Service",
                Single,
                Some(200),
                Reason::Established,
                |_, _| to_service(9, tcp::ACK),
            )
        },
        // What a node pays for packets that are none of Weir's business.
        Case {
            hook: Hook::FromNet,
            ..case(
                "comes in, for no Service",
                Repeat,
                None,
                Reason::NotService,
                |_, _| strange(),
            )
        },
        Case {
            hook: Hook::ToNet,
            ..case(
                "goes out, for no Service",
                Repeat,
                None,
                Reason::NotService,
                |_, _| strange(),
            )
        },
        Case {
            hook: Hook::FromNet,
            ..case(
                "comes in, of a pod's connection",
                Repeat,
                None,
                Reason::NotService,
                |_, _| established(false, 0),
            )
        },
    ]
}

/// Numbers far apart for numbers that follow each other.
fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) >> 8
}

/// Client ports that no flow of the table has.
fn client_port(number: u32) -> u16 {
    (number % 1_000) as u16 + 10
}

type Ends = (IpAddr, u16, IpAddr);

/// Ends of the flow with a number: 50,000 client ports to each of the backends 10.0.2.1 and up.
fn ends(v6: bool, number: u32) -> Ends {
    let port = 10_000 + (number % 50_000) as u16;
    let index = usize::from(v6);
    let backend = match address(BACKEND[index]) {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + number / 50_000).into(),
        v6 => v6,
    };
    (address(POD[index]), port, backend)
}

/// Ends of a flow that is not in the table.
fn opening_ends(number: u32) -> Ends {
    let port = 10_000 + (number % 50_000) as u16;
    (address(POD[0]), port, address("10.0.2.200"))
}

/// The packet that opens a flow of the table.
pub(super) fn opening(v6: bool, number: u32) -> Vec<u8> {
    let (source, port, destination) = ends(v6, number);
    packet(source, port, destination, PORT, tcp::SYN)
}

/// A later packet of it.
pub(super) fn established(v6: bool, number: u32) -> Vec<u8> {
    let (source, port, destination) = ends(v6, number);
    packet(source, port, destination, PORT, tcp::ACK)
}

/// Between two that nobody here knows.
fn strange() -> Vec<u8> {
    let [there, here] = ["192.0.2.7", "192.0.2.8"].map(address);
    packet(there, 40_000, here, 22, tcp::ACK)
}

fn to_service(port: u16, flags: u8) -> Vec<u8> {
    packet(address(POD[0]), port, address(SERVICE[0]), 80, flags)
}

fn packet(source: IpAddr, from: u16, destination: IpAddr, to: u16, flags: u8) -> Vec<u8> {
    let content = Content::Tcp {
        source: from,
        destination: to,
        flags,
        payload: 64,
    };
    Packet::new(source, destination, content).bytes()
}

fn forget(world: &World, (source, port, destination): &Ends) -> Result<()> {
    forget_flow(world, (*source, *port, *destination, PORT))
}

fn forget_flow(
    world: &World,
    (source, from, destination, to): (IpAddr, u16, IpAddr, u16),
) -> Result<()> {
    let (source, destination) = (source.into(), destination.into());
    let key = FlowKey::new(&source, from, &destination, to, protocol::TCP).0;
    anyhow::ensure!(world.datapath.delete_flow(&key)?, "a flow was not there");
    Ok(())
}
