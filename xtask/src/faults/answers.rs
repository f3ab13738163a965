//! Faults of what people are told: reviews, evidence of nodes, metrics of flows.

use super::{Fault, unit};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a packet that passes is what the objects say",
        file: "agent/src/admin/evidence/answer.rs",
        find: "tried.passed == self.intended",
        replace: "tried.passed",
        test: unit("admin::evidence::tests::programs::what_a_policy_denies_is_not_to_pass"),
    },
    Fault {
        name: "a packet that a policy stops tells of the Service",
        file: "agent/src/admin/evidence/answer.rs",
        find: "tried.is_denied() || self.intended.is_empty()",
        replace: "self.intended.is_empty()",
        test: unit(
            "admin::evidence::tests::programs::programs_that_do_not_do_what_the_objects_say_are_told_of",
        ),
    },
    Fault {
        name: "a packet is tried from the port of a connection",
        file: "agent/src/admin/evidence/packet.rs",
        find: "find(|port| !used.contains(port))",
        replace: "find(|port| used.is_empty() || used.contains(port))",
        test: unit(
            "admin::evidence::tests::programs::programs_are_tried_with_first_packets_of_these_connections",
        ),
    },
    Fault {
        name: "a Service that maps do not have is as it should be",
        file: "agent/src/admin/evidence/answer.rs",
        find: "None => self.intended.is_empty(),",
        replace: "None => true,",
        test: unit("admin::evidence::tests::a_frontend_that_is_not_as_the_objects_say_is_told_of"),
    },
    Fault {
        name: "what did not pass before is cut",
        file: "agent/src/review/guards/in_use.rs",
        find: "is.passes() || !was.passes()",
        replace: "is.passes()",
        test: unit("review::tests::in_use::what_did_not_pass_before_is_not_cut"),
    },
    Fault {
        name: "both nodes of a connection count",
        file: "agent/src/review/guards/in_use.rs",
        find: "*count = connections.max(*count)",
        replace: "*count += connections",
        test: unit(
            "review::tests::in_use::what_is_used_and_would_be_cut_is_found_once_for_each_pair_of_workloads",
        ),
    },
    Fault {
        name: "a pod has what another one did that had its address",
        file: "agent/src/review/guards/in_use.rs",
        find: "(Some(pod), Some(name)) if pod.name != *name => None,",
        replace: "",
        test: unit("review::tests::in_use::what_is_gone_is_not_taken_for_what_has_its_address"),
    },
    Fault {
        name: "what opens is said to close",
        file: "agent/src/review/pairs.rs",
        find: "let opens = is.passes();",
        replace: "let opens = was.passes();",
        test: unit(
            "review::tests::changes::a_policy_for_ingress_closes_all_but_what_its_rules_say",
        ),
    },
    Fault {
        name: "who has no series is not counted",
        file: "agent/src/metrics/talkers.rs",
        find: "*self.others.entry(talk.verdict).or_default() += 1;",
        replace: "",
        test: unit("metrics::talkers::tests::who_comes_late_is_counted_with_the_others"),
    },
    Fault {
        name: "those who wait for a series are without bound",
        file: "agent/src/metrics/talkers.rs",
        find: "self.candidates.len() < self.most * CANDIDATES",
        replace: "true",
        test: unit("metrics::talkers::tests::memory_is_bounded_whoever_talks"),
    },
];
