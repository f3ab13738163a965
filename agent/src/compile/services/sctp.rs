//! Services whose packets cannot be made those of their endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::compile::ServiceTables;
use crate::model::{ObjectName, Protocol};

/// Frontends of SCTP that lead to another port number, by Service. SCTP's checksum covers the ports and is a CRC of the whole packet
/// (RFC 9260 section 6.8), which the programs do not see: the packets are dropped.
#[must_use]
pub fn untranslatable(tables: &ServiceTables) -> BTreeMap<ObjectName, Vec<String>> {
    let mut found: BTreeMap<ObjectName, Vec<String>> = BTreeMap::new();
    for (key, entry) in &tables.frontends {
        let mut backends = entry.internal.iter().chain(&*entry.external);
        if key.protocol == Protocol::Sctp.number() && backends.any(|it| it.port != key.port) {
            let frontend = SocketAddr::new(IpAddr::from(key.address), key.port);
            let frontends = found.entry(entry.origin.clone()).or_default();
            frontends.push(frontend.to_string());
        }
    }
    found
}
