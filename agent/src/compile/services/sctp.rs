//! Services whose packets cannot be made those of their endpoints.

use std::net::{IpAddr, SocketAddr};

use weir_common::abi::FrontendKey;

use crate::compile::FrontendEntry;
use crate::model::Protocol;

/// Whether a frontend of SCTP leads to another port number. SCTP's checksum covers the ports and is a CRC of the whole packet
/// (RFC 9260 section 6.8), which the programs do not see: the packets are dropped.
pub(super) fn is_untranslatable(key: &FrontendKey, entry: &FrontendEntry) -> bool {
    let mut backends = entry.internal.iter().chain(&*entry.external);
    key.protocol == Protocol::Sctp.number() && backends.any(|it| it.port != key.port)
}

/// Those frontends whose packets are dropped for it.
pub(super) fn untranslatable<'a>(
    frontends: impl Iterator<Item = (&'a FrontendKey, &'a FrontendEntry)>,
) -> Vec<String> {
    frontends
        .filter(|(key, entry)| is_untranslatable(key, entry))
        .map(|(key, _)| SocketAddr::new(IpAddr::from(key.address), key.port).to_string())
        .collect()
}
