//! Devices that leave nothing to hardware.

use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::Node;
use crate::netns::Place;

/// `ETHTOOL_STXCSUM` of `linux/ethtool.h`: whether the device computes checksums. Without them it cuts no segments either.
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

impl Node {
    /// Has the node's uplink send finished frames: checksums complete, segments cut.
    ///
    /// From veth to veth both are left undone all the way, and receivers trust what nobody has computed.
    pub fn finish_frames(&self) -> Result<()> {
        finish_frames(self.as_ref(), "eth0")
    }
}

/// Has a device send finished frames, see [`Node::finish_frames`].
pub fn finish_frames(place: &Place, device: &str) -> Result<()> {
    place
        .run(|| without_tx_checksum(device))
        .with_context(|| format!("turn off checksum offload of {device} in {}", place.name()))
}

/// Acts on a device of the calling thread's namespace.
fn without_tx_checksum(device: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = EthtoolValue {
        cmd: SET_TX_CHECKSUM,
        data: 0,
    };
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.as_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    // SAFETY: the request names a device and points to the structure of its command; both live until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
