//! The packet logic's surroundings, from `__sk_buff`.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_adj_room_mode};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns, bpf_l4_csum_replace,
    bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data,
};
use weir_common::logic::{Env, Packet, nanoseconds};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::context::Context;
use crate::maps;

/// Headers that are made linear when a packet's are not.
const PULL: u32 = 256;
/// The verifier must see that an offset into the packet is small.
const MAX_OFFSET: u32 = 0x7ff;

/// A packet at a TC hook.
pub(crate) type Skb = Context<__sk_buff>;

impl Skb {
    /// Pointer to `size` bytes at `offset`, if they are in the linear part.
    #[inline(always)]
    fn at(self, offset: u32, size: usize) -> Option<*mut u8> {
        if offset > MAX_OFFSET {
            return None;
        }
        let (pointer, end): (usize, usize);
        // In assembly, for the verifier wants things that LLVM undoes: 32-bit fields that are pointers must not be extended, an
        // offset must be bounded in the register that is added, and the sum that is compared must be the one that is read.
        // SAFETY: reads two fields of the context.
        unsafe {
            asm!(
                "{offset} &= {max}",
                "{pointer} = *(u32 *)({skb} + {data})",
                "{pointer} += {offset}",
                "{end} = *(u32 *)({skb} + {data_end})",
                skb = in(reg) self.raw(),
                offset = inout(reg) offset as usize => _,
                pointer = out(reg) pointer,
                end = out(reg) end,
                max = const MAX_OFFSET,
                data = const offset_of!(__sk_buff, data),
                data_end = const offset_of!(__sk_buff, data_end),
                options(nostack),
            );
        }
        if pointer + size > end {
            None
        } else {
            Some(pointer as *mut u8)
        }
    }

    /// Marks the packet: so a dry run tells why it answers as it does.
    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: the kernel gave us this context; the verifier allows programs of this kind to write this field.
        unsafe { (*self.raw()).mark = mark };
    }

    /// Sends the packet out of the device that it came in by.
    #[inline(always)]
    pub(crate) fn send_back(self) -> i32 {
        if maps::dry_run() {
            return aya_ebpf::bindings::TC_ACT_REDIRECT;
        }
        // SAFETY: takes no pointers.
        unsafe { bpf_redirect(self.ifindex(), 0) as i32 }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: projection to a field of the context.
        self.field(|skb| unsafe { &raw mut (*skb).len })
    }

    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, offset: u32) -> Option<T> {
        let pointer = self.at(offset, size_of::<T>())?;
        // SAFETY: `at` checked the bounds; all kernels that have BPF with direct packet access allow unaligned loads from packets
        // on the architectures that Weir supports, and the verifier refuses the program elsewhere.
        Some(unsafe { *pointer.cast::<T>() })
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable + Copy>(&self, offset: u32, value: T) -> bool {
        let Some(pointer) = self.at(offset, size_of::<T>()) else {
            return false;
        };
        // SAFETY: as in `load`.
        unsafe { *pointer.cast::<T>() = value };
        true
    }

    #[inline(always)]
    fn pull(&self) -> bool {
        let length = self.length();
        // SAFETY: the verifier forgets all packet pointers after this call, and `at` makes new ones.
        unsafe { bpf_skb_pull_data(self.raw(), if length < PULL { length } else { PULL }) == 0 }
    }

    #[inline(always)]
    fn fix_checksum(
        &self,
        offset: u32,
        difference: u32,
        pseudo: bool,
        optional: bool,
        v6: bool,
    ) -> bool {
        let mut flags = 0;
        if pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if optional {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // A size of 0 in the flags says that the last value is a difference.
        // SAFETY: no pointers but the context.
        let done = unsafe {
            bpf_l4_csum_replace(self.raw(), offset, 0, u64::from(difference), flags) == 0
        };
        if pseudo && v6 {
            // The helper takes the pseudo header's change off CHECKSUM_COMPLETE, which is right only where an IP header checksum
            // makes up for the address. IPv6 has none, so put it back; this does nothing for other packets.
            // SAFETY: no pointers but the context.
            unsafe { bpf_csum_update(self.raw(), difference) };
        }
        done
    }

    #[inline(always)]
    fn crc32c_effect(&self, change: u32, length: u32, polynomial: u32) -> u32 {
        crate::global::crc32c_effect(change, length, polynomial)
    }

    #[inline(always)]
    fn trim(&self, length: u32) -> bool {
        // SAFETY: no pointers but the context.
        unsafe { bpf_skb_change_tail(self.raw(), length, 0) == 0 }
    }

    #[inline(always)]
    fn insert_after_ethernet(&self, bytes: u32) -> bool {
        // SAFETY: no pointers but the context.
        unsafe {
            bpf_skb_adjust_room(
                self.raw(),
                bytes as i32,
                bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
                0,
            ) == 0
        }
    }
}

impl Env for Skb {
    #[inline(always)]
    fn now(&self) -> u32 {
        if maps::replay() {
            // SAFETY: projection to a field of the context.
            return self.field(|skb| unsafe { (&raw mut (*skb).cb).cast::<u32>() });
        }
        // SAFETY: takes no pointers.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn ticks_per_second(&self) -> u32 {
        maps::ticks_per_second()
    }

    #[inline(always)]
    fn time(&self) -> u64 {
        if maps::replay() {
            return nanoseconds(self.now(), self.ticks_per_second());
        }
        // SAFETY: takes no pointers.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        if maps::replay() {
            // SAFETY: projection to the second element of an array of five.
            return self.field(|skb| unsafe { (&raw mut (*skb).cb).cast::<u32>().add(1) });
        }
        // SAFETY: takes no pointers.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: projection to a field of the context.
        self.field(|skb| unsafe { &raw mut (*skb).ifindex })
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        // SAFETY: projection to a field of the context.
        self.field(|skb| unsafe { &raw mut (*skb).ingress_ifindex })
    }

    #[inline(always)]
    fn dry_run(&self) -> bool {
        maps::dry_run()
    }
}
