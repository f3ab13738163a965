//! Each packet's decision through aya-log, in objects built with the feature `log`; release objects hold none of it.

use aya_ebpf::programs::TcContext;
use weir_common::abi::Hook;
use weir_common::logic::{Outcome, Scratch};

#[cfg(feature = "log")]
#[inline(never)]
pub(crate) fn decision(ctx: &TcContext, hook: Hook, outcome: Outcome, scratch: &Scratch) {
    let headers = &scratch.headers;
    aya_log_ebpf::info!(
        ctx,
        "hook {} verdict {} reason {} protocol {} {:i} {} -> {:i} {} rule {}",
        hook as u8,
        outcome.verdict() as u8,
        outcome.reason(),
        headers.protocol,
        headers.source.bytes(),
        headers.source_port,
        headers.destination.bytes(),
        headers.destination_port,
        scratch.rule,
    );
}

#[cfg(not(feature = "log"))]
#[inline(always)]
pub(crate) fn decision(_ctx: &TcContext, _hook: Hook, _outcome: Outcome, _scratch: &Scratch) {}
