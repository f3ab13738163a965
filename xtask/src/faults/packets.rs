//! Faults in reading packets, in changing them and in answering them.

use super::{Fault, simulated};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "of an IPv6 address only the last word counts for a checksum",
        file: "common/src/logic/checksum.rs",
        find: "if old.is_v4() {",
        replace: "if true {",
        test: simulated(
            "logic",
            "forms::options_and_extension_headers_change_nothing",
        ),
    },
    Fault {
        name: "a changed port counts in the wrong byte order for the checksum",
        file: "common/src/logic/rewrite.rs",
        find: "difference16(old_port.to_be(), port.to_be()),\n            false,",
        replace: "difference16(old_port, port),\n            false,",
        test: simulated("logic", "a_service_connection_is_translated_there_and_back"),
    },
    Fault {
        name: "the IPv4 header's own checksum is forgotten",
        file: "common/src/logic/rewrite.rs",
        find: "\n        && packet.store(checksum_at, replace(checksum, difference(old, new)))",
        replace: " && checksum != 1",
        test: simulated("logic", "a_service_connection_is_translated_there_and_back"),
    },
    Fault {
        name: "a datagram without a checksum gets a wrong one",
        file: "common/src/logic/rewrite.rs",
        find: "let optional = headers.protocol == protocol::UDP;",
        replace: "let optional = false;",
        test: simulated("logic", "forms::datagrams_without_checksum_stay_so"),
    },
    Fault {
        name: "later fragments have their payload for ports",
        file: "common/src/logic/rewrite.rs",
        find: "let with_transport = headers.fragment != LATER_FRAGMENT;",
        replace: "let with_transport = true;",
        test: simulated(
            "logic",
            "frames::of_later_fragments_only_addresses_are_translated",
        ),
    },
    Fault {
        name: "a second fragment may overwrite the flags of the first",
        file: "common/src/logic/parse.rs",
        find: "if fragment & 0x1fff == 1 && ip.protocol == protocol::TCP {",
        replace: "if fragment & 0x1fff == 0x1fff && ip.protocol == protocol::TCP {",
        test: simulated(
            "logic",
            "bypass::a_second_fragment_does_not_overwrite_the_flags_of_the_first",
        ),
    },
    Fault {
        name: "bytes behind the end of a packet are read for its headers",
        file: "common/src/logic/parse.rs",
        find: "if end < at + length {",
        replace: "if end < at {",
        test: simulated(
            "logic",
            "bypass::bytes_behind_the_end_of_a_packet_are_none_of_its_headers",
        ),
    },
    Fault {
        name: "a VLAN tag within a VLAN tag hides a packet",
        file: "common/src/logic/parse.rs",
        find: "kind if ETHERTYPE_VLAN.contains(&kind) => unreadable(headers, Reason::BadHeader),",
        replace: "kind if ETHERTYPE_VLAN.contains(&kind) => Reason::NotIp as u32,",
        test: simulated("logic", "bypass::a_tag_within_a_tag_hides_no_packet"),
    },
    Fault {
        name: "neighbour discovery that was forwarded passes",
        file: "common/src/logic/parse.rs",
        find: "133..=137 => headers.hop_limit == 255,",
        replace: "133..=137 => true,",
        test: simulated(
            "logic",
            "bypass::neighbour_discovery_is_what_has_not_been_forwarded",
        ),
    },
    Fault {
        name: "neighbour discovery is judged like any packet",
        file: "common/src/logic/parse.rs",
        find: "133..=137 => headers.hop_limit == 255,",
        replace: "133..=137 => false,",
        test: simulated("logic", "policies::what_links_need_is_beneath_policy"),
    },
    Fault {
        name: "ARP is dropped",
        file: "common/src/logic/parse.rs",
        find: "_ => Reason::NotIp as u32,\n    }",
        replace: "_ => Reason::BadHeader as u32,\n    }",
        test: simulated("logic", "policies::what_links_need_is_beneath_policy"),
    },
    Fault {
        name: "a ping is the answer to a ping the other way",
        file: "common/src/logic/parse.rs",
        find: "(id, id.wrapping_add(1))",
        replace: "(id, id)",
        test: simulated("logic", "pings::a_ping_is_no_answer_to_a_ping"),
    },
    Fault {
        name: "the length of an authentication header counts like that of others",
        file: "common/src/logic/parse.rs",
        find: "protocol::AUTHENTICATION => (u32::from(extension.length) + 2) * 4,",
        replace: "protocol::AUTHENTICATION => (u32::from(extension.length) + 1) * 8,",
        test: simulated(
            "logic",
            "frames::so_many_extension_headers_are_followed_and_no_more",
        ),
    },
    Fault {
        name: "options of an IPv4 header are taken for ports",
        file: "common/src/logic/parse.rs",
        find: "headers.transport = offset + header_length;",
        replace: "headers.transport = offset + 20;",
        test: simulated(
            "logic",
            "forms::options_and_extension_headers_change_nothing",
        ),
    },
    Fault {
        name: "the next header of a fragment tells IPv6 datagrams apart",
        file: "common/src/logic/fragment.rs",
        find: "protocol: if headers.v6 == 1 { 0 } else { headers.protocol },",
        replace: "protocol: headers.protocol,",
        test: simulated(
            "logic",
            "bypass::fragments_of_ipv6_are_of_one_datagram_whatever_header_comes_next",
        ),
    },
    Fault {
        name: "one pod's first fragment speaks for another's rest",
        file: "common/src/logic/fragment.rs",
        find: "id: headers.fragment_id,\n        ifindex,",
        replace: "id: headers.fragment_id,\n        ifindex: ifindex & 0,",
        test: simulated(
            "logic",
            "bypass::one_pods_fragments_say_nothing_of_anothers",
        ),
    },
    Fault {
        name: "the ports of a datagram are remembered for ever",
        file: "common/src/logic/fragment.rs",
        find: "if ctx.now().wrapping_sub(ports.seen) > TIMEOUT_SECONDS * ctx.ticks_per_second() {",
        replace: "if false {",
        test: simulated(
            "logic",
            "fragments_follow_their_first_and_are_lost_without_it",
        ),
    },
    Fault {
        name: "an ICMP error may go to anybody",
        file: "common/src/logic/icmp.rs",
        find: "if s.headers.destination != inner.source {",
        replace: "if false {",
        test: simulated(
            "logic",
            "bypass::errors_go_where_the_flow_goes_and_nowhere_else",
        ),
    },
    Fault {
        name: "an ICMP error about an allowed flow is judged like any packet",
        file: "common/src/logic/icmp.rs",
        find: "    holds(ctx, &flow.end(pod)) && is_live",
        replace: "    false && is_live",
        test: simulated(
            "logic",
            "an_error_about_a_translated_flow_is_translated_with_it",
        ),
    },
    Fault {
        name: "an ICMP error tells of the backend where the client knows the Service",
        file: "common/src/logic/icmp.rs",
        find: "let ours = outer_address == old_address;",
        replace: "let ours = false;",
        test: simulated(
            "logic",
            "an_error_about_a_translated_flow_is_translated_with_it",
        ),
    },
    Fault {
        name: "the checksum of an ICMP error forgets the quoted port",
        file: "common/src/logic/icmp.rs",
        find: "changed = add(changed, difference16(old_port.to_be(), port.to_be()));\n    }\n    if s.source_port",
        replace: "changed = add(changed, 0);\n    }\n    if s.source_port",
        test: simulated(
            "logic",
            "an_error_about_a_translated_flow_is_translated_with_it",
        ),
    },
    Fault {
        name: "a reset is answered with a reset",
        file: "common/src/logic/reject.rs",
        find: "protocol::TCP if h.tcp_flags & tcp::RST != 0 => false,",
        replace: "protocol::TCP if false => false,",
        test: simulated("logic", "a_service_without_endpoints_refuses_at_once"),
    },
    Fault {
        name: "a reset acknowledges all but the SYN",
        file: "common/src/logic/reject.rs",
        find: "            .wrapping_add(opens_or_ends);",
        replace: ";",
        test: simulated("logic", "a_service_without_endpoints_refuses_at_once"),
    },
    Fault {
        name: "a flood of forged datagrams is answered with a flood",
        file: "common/src/logic/reject.rs",
        find: "if errors.made >= ERRORS_PER_SECOND {",
        replace: "if false {",
        test: simulated(
            "logic",
            "forms::so_many_errors_are_made_in_a_second_and_no_more",
        ),
    },
];
