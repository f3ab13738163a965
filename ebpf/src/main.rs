#![no_std]
#![no_main]
// Packet pointers must be pinned to registers that the verifier has seen compared, see `skb`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
//! Weir's kernel programs: entry points over the packet logic of `weir-common`.

mod context;
mod global;
mod log;
mod maps;
mod skb;
mod sock_addr;
mod xdp;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::{cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};
use weir_common::abi::{Hook, Verdict};
use weir_common::logic::{self, Outcome};

use crate::skb::Skb;
use crate::sock_addr::SockAddr;
use crate::xdp::Xdp;

/// Ingress of the host end of a pod's veth.
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    match maps::scratch(Hook::FromPod) {
        Some(scratch) => {
            let outcome = logic::from_pod(skb, scratch);
            log::decision(&ctx, Hook::FromPod, outcome, scratch);
            act(skb, outcome)
        }
        None => TC_ACT_SHOT,
    }
}

/// Egress of the host end of a pod's veth.
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    match maps::scratch(Hook::ToPod) {
        Some(scratch) => {
            let outcome = logic::to_pod(skb, scratch);
            log::decision(&ctx, Hook::ToPod, outcome, scratch);
            act(skb, outcome)
        }
        None => TC_ACT_SHOT,
    }
}

/// Ingress of an uplink or tunnel device.
#[classifier]
fn from_net(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    match maps::scratch(Hook::FromNet) {
        Some(scratch) => {
            let outcome = logic::from_net(skb, scratch);
            log::decision(&ctx, Hook::FromNet, outcome, scratch);
            act(skb, outcome)
        }
        None => TC_ACT_SHOT,
    }
}

/// Egress of an uplink or tunnel device.
#[classifier]
fn to_net(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    match maps::scratch(Hook::ToNet) {
        Some(scratch) => {
            let outcome = logic::to_net(skb, scratch);
            log::decision(&ctx, Hook::ToNet, outcome, scratch);
            act(skb, outcome)
        }
        None => TC_ACT_SHOT,
    }
}

/// The driver of an uplink, before everything else. What it does not send on meets `from_net`.
#[xdp]
fn xdp_net(ctx: XdpContext) -> u32 {
    // In `from_net`'s place, which does not run meanwhile.
    let Some(scratch) = maps::scratch(Hook::FromNet) else {
        return XDP_PASS;
    };
    match logic::xdp_net(Xdp::new(ctx.ctx), scratch).verdict() {
        Verdict::Pass => XDP_PASS,
        Verdict::Return => XDP_TX,
        Verdict::Drop => XDP_DROP,
    }
}

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let mut socket = SockAddr::<false>::new(ctx);
    sock_addr::answer(logic::connect(&mut socket))
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let mut socket = SockAddr::<true>::new(ctx);
    if !socket.is_v6() {
        return sock_addr::PASS;
    }
    sock_addr::answer(logic::connect(&mut socket))
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let mut socket = SockAddr::<false>::new(ctx);
    sock_addr::answer(logic::send(&mut socket))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let mut socket = SockAddr::<true>::new(ctx);
    sock_addr::answer(logic::send(&mut socket))
}

// The kernel takes no other answer than this one from those that follow.

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    logic::restore(&mut SockAddr::<false>::new(ctx));
    sock_addr::PASS
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    logic::restore(&mut SockAddr::<true>::new(ctx));
    sock_addr::PASS
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    logic::restore(&mut SockAddr::<false>::new(ctx));
    sock_addr::PASS
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    logic::restore(&mut SockAddr::<true>::new(ctx));
    sock_addr::PASS
}

/// For a test run: writes jiffies and CLOCK_MONOTONIC nanoseconds into the first sixteen bytes of the packet, from which the
/// agent learns the length of a tick.
#[classifier]
fn clock(ctx: TcContext) -> i32 {
    // SAFETY: these helpers take no pointers.
    let now = unsafe { [bpf_jiffies64(), bpf_ktime_get_ns()] };
    match ctx.store(0, &now, 0) {
        Ok(()) => TC_ACT_UNSPEC,
        Err(_) => TC_ACT_SHOT,
    }
}

/// Does nothing: the floor of every measurement.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[inline(always)]
fn act(skb: Skb, outcome: Outcome) -> i32 {
    if maps::dry_run() {
        skb.set_mark(outcome.reason().into());
    }
    match outcome.verdict() {
        // Other programs on the hook have their say.
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Return => skb.send_back(),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
