//! Faults in the shell around the packet logic, which the kernel runs.

use super::{Fault, loaded};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "what is dropped goes on",
        file: "ebpf/src/main.rs",
        find: "Verdict::Drop => TC_ACT_SHOT,",
        replace: "Verdict::Drop => TC_ACT_UNSPEC,",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "what leaves the node is taken for what comes in",
        file: "ebpf/src/main.rs",
        find: "logic::to_net(skb, scratch)",
        replace: "logic::from_net(skb, scratch)",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "packets are read beyond their end",
        file: "ebpf/src/skb.rs",
        find: "if pointer + size > end {",
        replace: "if pointer > end {",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "a checksum that comes out as zero says that there is none",
        file: "ebpf/src/skb.rs",
        find: "flags |= u64::from(BPF_F_MARK_MANGLED_0);",
        replace: "flags |= 0;",
        test: loaded(
            "parity",
            "a_checksum_that_comes_out_as_zero_is_written_as_ones",
        ),
    },
    Fault {
        name: "a port is taken from the connection that has it",
        file: "ebpf/src/context.rs",
        find: "FLOW.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok()",
        replace: "FLOW.insert(key, flow, u64::from(BPF_NOEXIST) & 0).is_ok()",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "bytes are not counted",
        file: "ebpf/src/context.rs",
        find: "(*counter).bytes += u64::from(bytes);",
        replace: "(*counter).bytes += u64::from(bytes) & 0;",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "fragments are not remembered",
        file: "ebpf/src/context.rs",
        find: "let _ = FRAGMENT.insert(key, ports, 0);",
        replace: "let _ = (key, ports);",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "affinity is not remembered",
        file: "ebpf/src/maps.rs",
        find: "let _ = AFFINITY.insert(key, affinity, 0);",
        replace: "let _ = (key, affinity);",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "programs read the generation that is being written",
        file: "ebpf/src/maps.rs",
        find: ".map_or(0, |selected| *selected as u32 & 1)",
        replace: ".map_or(0, |selected| !*selected as u32 & 1)",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "in the driver, a datagram without a checksum gets a wrong one",
        file: "ebpf/src/xdp.rs",
        find: "if optional && old == 0 {",
        replace: "if false {",
        test: loaded("parity", "the_simulator_and_the_loaded_programs_agree"),
    },
    Fault {
        name: "a socket is asked for its port in the wrong byte order",
        file: "ebpf/src/sock_addr.rs",
        find: "(address, u16::from_be(port as u16))",
        replace: "(address, port as u16)",
        test: loaded("sockets", "the_nodes_sockets_reach_services"),
    },
    Fault {
        name: "a refused connection of a socket goes on",
        file: "ebpf/src/sock_addr.rs",
        find: "            FAIL\n        }\n        Answer::Forbid",
        replace: "            PASS\n        }\n        Answer::Forbid",
        test: loaded("sockets", "the_nodes_sockets_reach_services"),
    },
];
