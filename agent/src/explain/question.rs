//! Questions, and how people write them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::model::{ObjectName, Protocol, UnknownProtocol, workload_kind};

/// A question: may `source` open a connection to `destination`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who opens the connection.
    pub source: Subject,
    /// Who is to take it.
    pub destination: Subject,
    /// Port of the destination (Service port if it is a Service); `None` if it has only one.
    pub port: Option<PortName>,
    /// Protocol; `None` is TCP unless the port tells otherwise.
    pub protocol: Option<Protocol>,
}

/// One end of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `NAMESPACE/POD`.
    Pod(ObjectName),
    /// `NAMESPACE/svc/NAME`, or its name in DNS: `NAME.NAMESPACE.svc`.
    Service(ObjectName),
    /// `NAMESPACE/deploy/NAME` and the like, see [`Pod::workload`](crate::model::Pod::workload).
    Workload(ObjectName),
    /// `node/NAME`.
    Node(String),
    /// An address.
    Address(IpAddr),
}

/// A port by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    /// A number.
    Number(u16),
    /// Name of a Service port or container port.
    Name(String),
}

/// Why a question cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuestionError {
    /// Neither name nor address.
    #[error(
        "cannot read {0:?}: write NAMESPACE/POD, NAMESPACE/svc/NAME, NAMESPACE/deploy/NAME (or sts, ds, job, cronjob), node/NAME, NAME.NAMESPACE.svc or an address (IPv6 in brackets: [fd00::1])"
    )]
    Subject(String),
    /// Port 0, above 65535 or with characters that no port name has.
    #[error("{0:?} is no port: write a number from 1 to 65535 or the name of a port")]
    Port(String),
    /// Not TCP, UDP or SCTP.
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
    /// A port or protocol at the source.
    #[error("{0:?} has a port or protocol: only the destination takes one")]
    SourcePort(String),
}

impl Question {
    /// Reads a question as the command line has it: `SRC` and `DST[:PORT][/PROTO]`.
    ///
    /// # Errors
    /// Says which part is wrong and how to write it.
    pub fn parse(source: &str, destination: &str) -> Result<Self, QuestionError> {
        let from = End::parse(source)?;
        if from.port.is_some() || from.protocol.is_some() {
            return Err(QuestionError::SourcePort(source.to_owned()));
        }
        let to = End::parse(destination)?;
        Ok(Self {
            source: from.subject,
            destination: to.subject,
            port: to.port,
            protocol: to.protocol,
        })
    }
}

struct End {
    subject: Subject,
    port: Option<PortName>,
    protocol: Option<Protocol>,
}

impl End {
    fn parse(text: &str) -> Result<Self, QuestionError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (subject, rest) = match parts[..] {
            [address] => (address, None),
            [end, protocol] if address_and_port(end).is_some() || service_in_dns(end).is_some() => {
                (end, Some(protocol))
            }
            [_, _] => (text, None),
            // Of a pod that is called as a kind.
            [_, kind, protocol] if kind != "svc" && protocol.parse::<Protocol>().is_ok() => {
                let cut = text.len() - protocol.len() - 1;
                (&text[..cut], Some(protocol))
            }
            [_, kind, _] if kind == "svc" || workload_kind(kind).is_some() => (text, None),
            [_, _, protocol] | [_, _, _, protocol] => {
                let cut = text.len() - protocol.len() - 1;
                (&text[..cut], Some(protocol))
            }
            _ => return Err(QuestionError::Subject(text.to_owned())),
        };
        let protocol = rest.map(str::parse).transpose()?;
        let (subject, port) = if let Some((address, port)) = address_and_port(subject) {
            (Subject::Address(address), port)
        } else {
            let (name, port) = match subject.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (subject, None),
            };
            let named = named(name).ok_or_else(|| QuestionError::Subject(text.to_owned()))?;
            (named, port)
        };
        Ok(Self {
            subject,
            port: port.map(str::parse).transpose()?,
            protocol,
        })
    }
}

/// `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]`, `[fd00::1]:80`. Without brackets every colon belongs to the address.
fn address_and_port(text: &str) -> Option<(IpAddr, Option<&str>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    let (address, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => text.split_at(text.find(':')?),
    };
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    match rest {
        "" => Some((address, None)),
        _ => Some((address, Some(rest.strip_prefix(':')?))),
    }
}

/// Names are checked only as far as it takes to tell them from a slip: lower case letters, digits, `-` and `.`.
fn named(text: &str) -> Option<Subject> {
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    let parts: Vec<&str> = text.split('/').collect();
    if !parts.iter().copied().all(valid) {
        return None;
    }
    match parts[..] {
        [_] => service_in_dns(text).map(Subject::Service),
        ["node", name] => Some(Subject::Node(name.to_owned())),
        [namespace, name] => Some(Subject::Pod(ObjectName::new(namespace, name))),
        [namespace, "svc", name] => Some(Subject::Service(ObjectName::new(namespace, name))),
        [namespace, kind, name] => {
            let kind = workload_kind(kind)?;
            let name = format!("{kind}/{name}");
            Some(Subject::Workload(ObjectName::new(namespace, name)))
        }
        _ => None,
    }
}

/// `NAME.NAMESPACE.svc`, with a port and the cluster's domain or without.
fn service_in_dns(text: &str) -> Option<ObjectName> {
    let (host, _) = text.split_once(':').unwrap_or((text, ""));
    let mut labels = host.split('.');
    let (name, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc").then(|| ObjectName::new(namespace, name))
}

impl FromStr for PortName {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Port(text.to_owned());
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let number: NonZeroU16 = text.parse().map_err(|_| wrong())?;
            return Ok(Self::Number(number.get()));
        }
        // Service port names are DNS labels, container port names IANA service names.
        let name = text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if name {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) | Self::Workload(name) => write!(f, "{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Service(name) => write!(f, "{}/svc/{}", name.namespace, name.name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}
