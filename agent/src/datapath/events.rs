//! The ring buffer of events, as something to await.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Reader of the events ([`weir_common::abi::Event`]) that the kernel programs send; one at a time.
#[derive(Debug)]
pub struct EventReader {
    ring: AsyncFd<Ring>,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RingBuf")
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl EventReader {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its descriptor, names the same one as long as it lives, and `AsyncFd` owns the buffer.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) }?;
        Ok(Self { ring })
    }

    /// Waits for events and gives at most `most` of them to `take`, as bytes.
    ///
    /// # Errors
    /// When waiting fails.
    pub async fn read(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        for _ in 0..most {
            let ring = guard.get_inner_mut();
            let Some(event) = ring.0.next() else {
                guard.clear_ready();
                break;
            };
            take(&event);
        }
        Ok(())
    }
}
