//! XDP programs that are not Weir's.

use std::io;
use std::os::fd::OwnedFd;

use crate::foreign::{Foreign, Purpose};

/// `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const IN_DRIVER: u32 = 1 << 2;
/// `XDP_DROP` and `XDP_PASS`.
const DROP: u32 = 1;
const PASS: u32 = 2;

/// A program that does the same with every packet, in a device's driver for as long as this lives.
#[derive(Debug)]
pub struct Constant {
    _link: OwnedFd,
}

impl Constant {
    /// Lets everything pass at a device of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn passing(ifindex: u32) -> io::Result<Self> {
        Self::attach(ifindex, PASS)
    }

    /// Drops everything that comes in by such a device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dropping(ifindex: u32) -> io::Result<Self> {
        Self::attach(ifindex, DROP)
    }

    fn attach(ifindex: u32, action: u32) -> io::Result<Self> {
        let link = Foreign::load(Purpose::Xdp, action)?.link(ifindex, IN_DRIVER)?;
        Ok(Self { _link: link })
    }
}
