//! Bytes of the ring buffer to values.

use std::fmt;
use std::net::IpAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use weir_common::abi::{Event, Hook, Verdict};
use weir_common::logic::protocol;
use weir_common::reason::Reason;
use zerocopy::FromBytes;

use crate::model::Direction;

/// What became of a packet, or of a flow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It went on.
    Forwarded,
    /// It was dropped without a word.
    Dropped,
    /// It was answered with a reset or an ICMP error.
    Rejected,
    /// The flow is over.
    Ended,
}

impl Outcome {
    /// Name in metrics and the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Ended => "ended",
        }
    }

    /// Whether a packet did not go on.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Dropped | Self::Rejected)
    }

    /// What a verdict for a reason means: a packet that is sent back is an answer (a rejection) or a hairpin.
    #[must_use]
    pub const fn of(verdict: Verdict, reason: Reason) -> Self {
        match verdict {
            Verdict::Drop => Self::Dropped,
            Verdict::Return if reason.is_drop() => Self::Rejected,
            Verdict::Pass | Verdict::Return => Self::Forwarded,
        }
    }

    /// What becomes of packets with a reason, where only the reason is known.
    #[must_use]
    pub const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::NoEndpoint | Reason::NoServicePort | Reason::BackendGone => Self::Rejected,
            reason if reason.is_drop() => Self::Dropped,
            _ => Self::Forwarded,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event whose numbers are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The event.
    pub event: Event,
    /// Where it was judged, as a direction.
    pub direction: Direction,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The judged destination, if it is not the one that the packet was addressed to.
    pub backend: Option<(IpAddr, u16)>,
}

/// Why bytes are no event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another length than an event's.
    #[error("an event of {0} bytes: programs and agent are of different versions")]
    Length(usize),
    /// A number without meaning.
    #[error("{field} {value} is not known: programs and agent are of different versions")]
    Unknown {
        /// The field.
        field: &'static str,
        /// Its number.
        value: u8,
    },
}

/// Reads an event.
///
/// # Errors
/// When the bytes are not what this version's programs send.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let event = Event::read_from_bytes(bytes).map_err(|_| DecodeError::Length(bytes.len()))?;
    let unknown = |field, value| DecodeError::Unknown { field, value };
    let hook = Hook::from_u8(event.hook).ok_or_else(|| unknown("hook", event.hook))?;
    let reason = Reason::from_u8(event.reason).ok_or_else(|| unknown("reason", event.reason))?;
    let verdict = match event.verdict {
        0 => Verdict::Pass,
        1 => Verdict::Drop,
        2 => Verdict::Return,
        other => return Err(unknown("verdict", other)),
    };
    let translated = !event.judged.is_unspecified()
        && (event.judged != event.destination || event.judged_port != event.destination_port);
    Ok(Decoded {
        event,
        direction: match hook {
            Hook::FromPod | Hook::ToNet => Direction::Egress,
            Hook::ToPod | Hook::FromNet => Direction::Ingress,
        },
        outcome: Outcome::of(verdict, reason),
        reason,
        backend: translated.then(|| (event.judged.into(), event.judged_port)),
    })
}

impl Decoded {
    /// Name of the protocol, or its number.
    #[must_use]
    pub fn protocol(&self) -> String {
        protocol_or_number(self.event.protocol)
    }

    /// Name of the protocol for metrics, which must not have a value for every number that somebody sends.
    #[must_use]
    pub fn metric_protocol(&self) -> &'static str {
        protocol_name(self.event.protocol).unwrap_or("other")
    }
}

/// Name of a protocol, or its number.
pub(super) fn protocol_or_number(number: u8) -> String {
    protocol_name(number).map_or_else(|| number.to_string(), ToOwned::to_owned)
}

/// Name of a protocol that flows are counted by.
const fn protocol_name(number: u8) -> Option<&'static str> {
    match number {
        protocol::TCP => Some("TCP"),
        protocol::UDP => Some("UDP"),
        protocol::SCTP => Some("SCTP"),
        protocol::ICMP => Some("ICMP"),
        protocol::ICMPV6 => Some("ICMPv6"),
        _ => None,
    }
}
