//! The socket logic's surroundings, from `bpf_sock_addr` and the maps.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns,
    bpf_set_retval,
};
use aya_ebpf::programs::SockAddrContext;
use weir_common::abi::{
    Address, Affinity, AffinityKey, BackendState, Frontend, FrontendKey, Pair, Pairs, Slot,
    SourceKey,
};
use weir_common::logic::{Answer, Services, Socket};

use crate::maps::{self, CONNECTED, SOCKET};

/// The system call goes on.
pub(crate) const PASS: i32 = 1;
/// It fails: with EPERM, or with what [`bpf_set_retval`] said.
const FAIL: i32 = 0;

const AF_INET6: u32 = 10;
const ECONNREFUSED: i32 = 111;
/// State of a connected socket, also of UDP.
const TCP_ESTABLISHED: u32 = 1;

/// A socket in a system call with an address of one family. The kernel holds the socket's lock (`getpeername` before 5.18: it
/// reads without), so that nobody else is at what the socket remembers.
pub(crate) struct SockAddr<const V6: bool> {
    context: SockAddrContext,
    generation: u32,
}

impl<const V6: bool> SockAddr<V6> {
    #[inline(always)]
    pub(crate) fn new(ctx: SockAddrContext) -> Self {
        Self {
            context: ctx,
            generation: maps::selected(),
        }
    }

    /// Whether the address is one: an IPv6 socket may be given one of another family, which the kernel looks at later.
    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        // SAFETY: projection to a field of the context.
        self.load(|call| unsafe { &raw mut (*call).user_family }) == AF_INET6
    }

    // Volatile, for the kernel gives and takes these fields as words only, and LLVM must not merge or narrow them.

    #[inline(always)]
    fn load(&self, field: impl FnOnce(*mut bpf_sock_addr) -> *mut u32) -> u32 {
        // SAFETY: the kernel gave us this context; the verifier checks every field access.
        unsafe { field(self.context.sock_addr).read_volatile() }
    }

    #[inline(always)]
    fn store(&self, field: impl FnOnce(*mut bpf_sock_addr) -> *mut u32, value: u32) {
        // SAFETY: as in `load`.
        unsafe { field(self.context.sock_addr).write_volatile(value) }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u32 {
        // SAFETY: projection to an element of an array of four.
        self.load(|call| unsafe { (&raw mut (*call).user_ip6).cast::<u32>().add(index) })
    }

    #[inline(always)]
    fn set_word(&self, index: usize, value: u32) {
        // SAFETY: projection to an element of an array of four.
        self.store(
            |call| unsafe { (&raw mut (*call).user_ip6).cast::<u32>().add(index) },
            value,
        );
    }
}

/// What the kernel wants to hear.
#[inline(always)]
pub(crate) fn answer(answer: Answer) -> i32 {
    match answer {
        Answer::Pass => PASS,
        Answer::Refuse => {
            if maps::chooses_error() {
                // SAFETY: takes no pointers.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            FAIL
        }
        Answer::Forbid => FAIL,
    }
}

impl<const V6: bool> Services for SockAddr<V6> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        maps::frontend(self.generation, key)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        maps::slot(self.generation, index)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<BackendState> {
        maps::backend(id)
    }

    #[inline(always)]
    fn admits(&self, key: &SourceKey) -> bool {
        maps::admits(self.generation, key)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        maps::affinity(key)
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        maps::remember(key, affinity);
    }
}

impl<const V6: bool> Socket for SockAddr<V6> {
    #[inline(always)]
    fn address(&self) -> (Address, u16) {
        let address = if V6 {
            Address {
                words: [self.word(0), self.word(1), self.word(2), self.word(3)],
            }
        } else {
            // SAFETY: projection to a field of the context.
            Address::from_v4_word(self.load(|call| unsafe { &raw mut (*call).user_ip4 }))
        };
        // SAFETY: projection to a field of the context.
        let port = self.load(|call| unsafe { &raw mut (*call).user_port });
        (address, u16::from_be(port as u16))
    }

    #[inline(always)]
    fn set_address(&mut self, address: &Address, port: u16) {
        let [first, second, third, fourth] = address.words;
        if V6 {
            self.set_word(0, first);
            self.set_word(1, second);
            self.set_word(2, third);
            self.set_word(3, fourth);
        } else {
            // SAFETY: projection to a field of the context.
            self.store(|call| unsafe { &raw mut (*call).user_ip4 }, fourth);
        }
        self.store(
            // SAFETY: projection to a field of the context.
            |call| unsafe { &raw mut (*call).user_port },
            u32::from(port.to_be()),
        );
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        // Cut to a byte, 262 (IPPROTO_MPTCP) is TCP, which it is on the wire.
        // SAFETY: projection to a field of the context.
        self.load(|call| unsafe { &raw mut (*call).protocol }) as u8
    }

    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: the kernel gave us this context, and the socket in it; the verifier checks both accesses.
        let state = unsafe {
            let socket = (&raw const (*self.context.sock_addr).__bindgen_anon_1.sk).read_volatile();
            (&raw const (*socket).state).read_volatile()
        };
        state == TCP_ESTABLISHED
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the context is the kernel's.
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    #[inline(always)]
    fn node_netns(&self) -> u64 {
        maps::node_netns()
    }

    #[inline(always)]
    fn serves_pods(&self) -> bool {
        maps::serves_pods()
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes no pointers.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn time(&self) -> u64 {
        // SAFETY: takes no pointers.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn pairs(&mut self) -> Option<&mut Pairs> {
        // SAFETY: the storage lives as long as the socket; its lock is held.
        unsafe { SOCKET.get_ptr_mut(&self.context).as_mut() }
    }

    #[inline(always)]
    fn make_pairs(&mut self) -> Option<&mut Pairs> {
        // SAFETY: as above; storage without a value given starts as zeroes.
        unsafe { SOCKET.get_or_insert_ptr_mut(&self.context, None).as_mut() }
    }

    #[inline(always)]
    fn note_connected(&self, pair: &Pair) {
        // SAFETY: the context is the kernel's.
        let cookie = unsafe { bpf_get_socket_cookie(self.context.as_ptr()) };
        // Without a note the socket stays when its backend goes.
        let _ = CONNECTED.insert(cookie, pair, 0);
    }
}
