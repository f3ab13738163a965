//! Names of objects and ports, as people write them.

use std::num::NonZeroU16;

use crate::flows::policy_name;
use crate::model::{ObjectName, Protocol, UnknownProtocol};
use crate::review::PortRange;

/// A name with or without a namespace.
pub(super) fn named(text: &str) -> Result<ObjectName, String> {
    let name = policy_name(text);
    if name.name.is_empty() || name.name.contains('/') || text.starts_with('/') {
        return Err("write NAMESPACE/NAME".to_owned());
    }
    Ok(name)
}

/// A port, of TCP if it names no protocol.
pub(super) fn port(text: &str) -> Result<PortRange, String> {
    let (port, protocol) = match text.split_once('/') {
        Some((port, protocol)) => (
            port,
            protocol
                .parse()
                .map_err(|error: UnknownProtocol| error.to_string())?,
        ),
        None => (text, Protocol::default()),
    };
    let port: NonZeroU16 = port.parse().map_err(|_| "write PORT or PORT/PROTO")?;
    Ok(PortRange {
        protocol,
        first: port.get(),
        last: port.get(),
    })
}

/// A name in a namespace.
pub(super) fn namespaced(text: &str) -> Result<ObjectName, String> {
    let name = named(text)?;
    if name.namespace.is_empty() {
        return Err("it has a namespace: write NAMESPACE/NAME".to_owned());
    }
    Ok(name)
}
