//! The packet logic's surroundings, from `xdp_md`.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup, bpf_fib_lookup__bindgen_ty_1 as Length,
    bpf_fib_lookup__bindgen_ty_2 as Class, bpf_fib_lookup__bindgen_ty_3 as Source,
    bpf_fib_lookup__bindgen_ty_4 as Destination, bpf_fib_lookup__bindgen_ty_5 as Table, xdp_md,
};
use aya_ebpf::helpers::{
    bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns, bpf_xdp_adjust_head,
    bpf_xdp_adjust_tail,
};
use weir_common::logic::{Env, Packet, Route, Routes, nanoseconds, replace};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::context::Context;
use crate::maps;

/// The verifier must see that an offset into the packet is small.
const MAX_OFFSET: u32 = 0x7ff;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// Destination, source, type.
type Ethernet = [u16; 7];

/// A packet at an XDP hook, all of it in one buffer.
pub(crate) type Xdp = Context<xdp_md>;

impl Xdp {
    /// Pointer to `size` bytes at `offset`. In assembly for the reasons given in `skb`.
    #[inline(always)]
    fn at(self, offset: u32, size: usize) -> Option<*mut u8> {
        if offset > MAX_OFFSET {
            return None;
        }
        let (pointer, end): (usize, usize);
        // SAFETY: reads two fields of the context.
        unsafe {
            asm!(
                "{offset} &= {max}",
                "{pointer} = *(u32 *)({xdp} + {data})",
                "{pointer} += {offset}",
                "{end} = *(u32 *)({xdp} + {data_end})",
                xdp = in(reg) self.raw(),
                offset = inout(reg) offset as usize => _,
                pointer = out(reg) pointer,
                end = out(reg) end,
                max = const MAX_OFFSET,
                data = const offset_of!(xdp_md, data),
                data_end = const offset_of!(xdp_md, data_end),
                options(nostack),
            );
        }
        if pointer + size > end {
            None
        } else {
            Some(pointer as *mut u8)
        }
    }

    /// A word of the metadata before the packet, which holds what a replayed packet comes with; 0 where there is none.
    #[inline(always)]
    fn replayed(self, index: usize) -> u32 {
        let (start, end): (usize, usize);
        // SAFETY: reads two fields of the context.
        unsafe {
            asm!(
                "{start} = *(u32 *)({xdp} + {data_meta})",
                "{end} = *(u32 *)({xdp} + {data})",
                xdp = in(reg) self.raw(),
                start = out(reg) start,
                end = out(reg) end,
                data_meta = const offset_of!(xdp_md, data_meta),
                data = const offset_of!(xdp_md, data),
                options(nostack),
            );
        }
        if start + (index + 1) * size_of::<u32>() > end {
            return 0;
        }
        // SAFETY: within the metadata.
        unsafe { *(start as *const u32).add(index) }
    }
}

impl Packet for Xdp {
    #[inline(always)]
    fn length(&self) -> u32 {
        let length: usize;
        // SAFETY: reads two fields of the context.
        unsafe {
            asm!(
                "{length} = *(u32 *)({xdp} + {data_end})",
                "{data} = *(u32 *)({xdp} + {at})",
                "{length} -= {data}",
                xdp = in(reg) self.raw(),
                length = out(reg) length,
                data = out(reg) _,
                at = const offset_of!(xdp_md, data),
                data_end = const offset_of!(xdp_md, data_end),
                options(nostack),
            );
        }
        length as u32
    }

    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, offset: u32) -> Option<T> {
        let pointer = self.at(offset, size_of::<T>())?;
        // SAFETY: `at` checked the bounds; unaligned loads as in `skb`.
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
        false
    }

    /// The sum is that of the whole packet, with nothing left for a device to complete.
    #[inline(always)]
    fn fix_checksum(
        &self,
        offset: u32,
        difference: u32,
        _pseudo: bool,
        optional: bool,
        _v6: bool,
    ) -> bool {
        let Some(old) = self.load::<u16>(offset) else {
            return false;
        };
        if optional && old == 0 {
            return true;
        }
        let new = match replace(old, difference) {
            // RFC 768: zero would say that there is none.
            0 if optional => 0xffff,
            sum => sum,
        };
        self.store(offset, new)
    }

    #[inline(always)]
    fn crc32c_effect(&self, change: u32, length: u32, polynomial: u32) -> u32 {
        crate::global::crc32c_effect(change, length, polynomial)
    }

    #[inline(always)]
    fn trim(&self, length: u32) -> bool {
        let change = length.wrapping_sub(self.length()) as i32;
        // SAFETY: no pointers but the context; the verifier forgets all packet pointers.
        unsafe { bpf_xdp_adjust_tail(self.raw(), change) == 0 }
    }

    #[inline(always)]
    fn insert_after_ethernet(&self, bytes: u32) -> bool {
        // SAFETY: no pointers but the context; the verifier forgets all packet pointers.
        if unsafe { bpf_xdp_adjust_head(self.raw(), -(bytes as i32)) } != 0 {
            return false;
        }
        let Some(ethernet) = self.load::<Ethernet>(bytes) else {
            return false;
        };
        self.store(0, ethernet)
    }
}

impl Env for Xdp {
    #[inline(always)]
    fn now(&self) -> u32 {
        if maps::replay() {
            return self.replayed(0);
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
            return self.replayed(1);
        }
        // SAFETY: takes no pointers.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: projection to a field of the context.
        self.field(|xdp| unsafe { &raw mut (*xdp).ingress_ifindex })
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn dry_run(&self) -> bool {
        maps::dry_run()
    }
}

impl Routes for Xdp {
    #[inline(always)]
    fn route(&self, route: &mut Route) -> bool {
        look_up(self.raw(), self.ifindex(), route)
    }
}

#[inline(never)]
fn look_up(xdp: *mut xdp_md, ifindex: u32, route: &mut Route) -> bool {
    let mut lookup = FibLookup {
        family: FAMILIES[usize::from(route.v6 == 1)],
        l4_protocol: route.protocol,
        sport: route.source_port.to_be(),
        dport: route.destination_port.to_be(),
        __bindgen_anon_1: Length {
            tot_len: route.length as u16,
        },
        ifindex,
        __bindgen_anon_2: Class {
            flowinfo: route.class,
        },
        __bindgen_anon_3: Source {
            ipv6_src: route.source.words,
        },
        __bindgen_anon_4: Destination {
            ipv6_dst: route.destination.words,
        },
        __bindgen_anon_5: Table { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    if route.v6 == 0 {
        lookup.__bindgen_anon_2.tos = route.class as u8;
        lookup.__bindgen_anon_3.ipv4_src = route.source.words[3];
        lookup.__bindgen_anon_4.ipv4_dst = route.destination.words[3];
    }
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the structure lives through the call, and has the size given.
    let answer = unsafe { bpf_fib_lookup(xdp.cast(), &raw mut lookup, size, 0) };
    route.ifindex = lookup.ifindex;
    route.from = words(lookup.smac);
    route.to = words(lookup.dmac);
    answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
}

/// An Ethernet address as it is loaded from packets.
#[inline(always)]
fn words(bytes: [u8; 6]) -> [u16; 3] {
    let [a, b, c, d, e, f] = bytes;
    [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes)
}
