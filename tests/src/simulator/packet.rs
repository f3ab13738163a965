//! Packets as byte vectors.

use weir_common::logic::{Packet, replace};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::context::Context;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

impl Packet for Context<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.0.packet.borrow().len()).unwrap_or(u32::MAX)
    }

    fn load<T: FromBytes + Copy>(&self, offset: u32) -> Option<T> {
        let packet = self.0.packet.borrow();
        let at_hand = packet.len().min(self.0.at_hand.get());
        let bytes = packet[..at_hand].get(offset as usize..)?;
        T::read_from_prefix(bytes).ok().map(|(value, _)| value)
    }

    fn store<T: IntoBytes + Immutable + Copy>(&self, offset: u32, value: T) -> bool {
        let mut packet = self.0.packet.borrow_mut();
        let range = offset as usize..offset as usize + size_of::<T>();
        match packet.get_mut(range) {
            Some(bytes) => {
                bytes.copy_from_slice(value.as_bytes());
                true
            }
            None => false,
        }
    }

    fn pull(&self) -> bool {
        self.0.at_hand.replace(usize::MAX) < self.0.packet.borrow().len()
    }

    fn fix_checksum(
        &self,
        offset: u32,
        difference: u32,
        _pseudo: bool,
        optional: bool,
        v6: bool,
    ) -> bool {
        // The kernel takes the caller's word for it.
        assert_eq!(v6, self.load(12) == Some([0x86, 0xdd_u8]), "the family");
        let Some(checksum) = self.load::<u16>(offset) else {
            return false;
        };
        if optional && checksum == 0 {
            return true;
        }
        let corrected = match replace(checksum, difference) {
            // RFC 768: a computed zero is sent as all ones.
            0 if optional => 0xffff,
            corrected => corrected,
        };
        self.store(offset, corrected)
    }

    fn trim(&self, length: u32) -> bool {
        self.0.packet.borrow_mut().truncate(length as usize);
        true
    }

    fn insert_after_ethernet(&self, bytes: u32) -> bool {
        let mut packet = self.0.packet.borrow_mut();
        if packet.len() < ETHERNET {
            return false;
        }
        packet.splice(ETHERNET..ETHERNET, std::iter::repeat_n(0, bytes as usize));
        true
    }
}
