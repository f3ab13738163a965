//! Per-packet decisions that programs write through aya-log, in agents built with `cargo xtask build --bpf-log`.

use std::fmt;
use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::{Error, Result};

/// Map that only objects with logging have.
const MAP: &str = "AYA_LOGS";

/// The log of loaded programs. Dropping it ends the reading, not the writing.
pub struct PacketLog(EbpfLogger<&'static dyn log::Log>);

impl PacketLog {
    /// The log of an object's programs; `None` for a release object, which writes none.
    pub(super) fn of(object: &mut Ebpf) -> Result<Option<Self>> {
        if object.map(MAP).is_none() {
            return Ok(None);
        }
        let logger = EbpfLogger::init(object)
            .map_err(|error| Error::BadObject(format!("packet log: {error}")))?;
        Ok(Some(Self(logger)))
    }

    /// Hands every record to the agent's own log, for ever.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub async fn forward(self) -> io::Result<()> {
        // SAFETY: the logger keeps its file descriptor, always the same one, until it is dropped with the `AsyncFd`.
        let mut log = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

impl fmt::Debug for PacketLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacketLog")
    }
}
