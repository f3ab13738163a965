//! Faults on the way from objects to the content of maps, and in the order of writing it.

use super::{Fault, unit};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "the last port of a range is not in it",
        file: "agent/src/compile/judge.rs",
        find: "(wanted <= range.last).then_some",
        replace: "(wanted < range.last).then_some",
        test: unit("explain::tests::tables::explanations_and_tables_agree"),
    },
    Fault {
        name: "a prefix keeps the bits that it does not cover",
        file: "agent/src/compile/judge.rs",
        find: "(address & mask).to_be_bytes()",
        replace: "address.to_be_bytes()",
        test: unit("explain::tests::tables::explanations_and_tables_agree"),
    },
    Fault {
        name: "the shortest prefix around an address counts",
        file: "agent/src/compile/judge.rs",
        find: "        .rev()\n        .find_map",
        replace: "        .find_map",
        test: unit("explain::tests::tables::explanations_and_tables_agree"),
    },
    Fault {
        name: "ranges with a gap between them are joined",
        file: "agent/src/compile/ranges.rs",
        find: "previous.last + 1 == first",
        replace: "previous.last < first",
        test: unit("compile::ranges::tests::every_point_has_the_rule_of_the_smallest_rank_over_it"),
    },
    Fault {
        name: "the last rule over a port decides",
        file: "agent/src/compile/ranges.rs",
        find: "decide(&mut active.iter().map(|(rank, _)| *rank))",
        replace: "decide(&mut active.iter().rev().map(|(rank, _)| *rank))",
        test: unit("compile::ranges::tests::every_point_has_the_rule_of_the_smallest_rank_over_it"),
    },
    Fault {
        name: "a range ends before its last port",
        file: "agent/src/compile/ranges.rs",
        find: "edges.push((u64::from(last) + 1, false, rank, position));",
        replace: "edges.push((u64::from(last), false, rank, position));",
        test: unit("compile::ranges::tests::smallest_rank_wins_where_intervals_overlap"),
    },
    Fault {
        name: "endpoints that are going are chosen like ready ones",
        file: "agent/src/compile/services/choice.rs",
        find: "let ready = pick(&|candidate| candidate.ready && near(candidate));",
        replace: "let ready = pick(&|candidate| candidate.serving && near(candidate));",
        test: unit(
            "compile::services::tests::ready_endpoints_are_chosen_and_terminating_ones_only_for_want_of_them",
        ),
    },
    Fault {
        name: "endpoints that are not ready are chosen for want of others",
        file: "agent/src/compile/services/choice.rs",
        find: "self.serving && !self.running",
        replace: "self.serving",
        test: unit(
            "compile::services::choice::tests::endpoints_are_chosen_as_kube_proxy_chooses_them",
        ),
    },
    Fault {
        name: "a traffic policy Local falls back to the cluster",
        file: "agent/src/compile/services/choice.rs",
        find: "ready_first(candidates, |candidate| candidate.local, |_| true)",
        replace: "ready_first(candidates, |_| true, |candidate| candidate.local || candidates.values().all(|it| !it.local))",
        test: unit(
            "compile::services::tests::local_policy_keeps_to_the_node_and_drops_only_when_others_have_endpoints",
        ),
    },
    Fault {
        name: "hints count as soon as one endpoint has them",
        file: "agent/src/compile/services/choice.rs",
        find: "let all = hints.clone().all(|names| !names.is_empty());",
        replace: "let all = hints.clone().any(|names| !names.is_empty());",
        test: unit(
            "compile::services::choice::tests::endpoints_are_chosen_as_kube_proxy_chooses_them",
        ),
    },
    Fault {
        name: "ports of a slice are found without their protocol",
        file: "agent/src/compile/services/choice.rs",
        find: "candidate.name == port.name && candidate.protocol == port.protocol",
        replace: "candidate.name == port.name",
        test: unit(
            "compile::services::tests::slices_pair_by_port_name_and_protocol_and_keep_their_own_numbers",
        ),
    },
    Fault {
        name: "an endpoint may be a loopback address",
        file: "agent/src/compile/services/choice.rs",
        find: "address.is_unspecified() || address.is_loopback() || link_local",
        replace: "address.is_unspecified() || link_local",
        test: unit("compile::services::tests::forbidden_endpoint_addresses_are_skipped"),
    },
    Fault {
        name: "of two claims of a Service to one address the weaker counts",
        file: "agent/src/compile/services/frontends.rs",
        find: "if held.is_none_or(|(holder, _)| claim < *holder) {",
        replace: "if held.is_none_or(|(holder, _)| claim > *holder) {",
        test: unit("compile::services::tests::the_strongest_claim_to_an_address_counts"),
    },
    Fault {
        name: "pods are kept from a load balancer by its external traffic policy",
        file: "agent/src/compile/services/frontends.rs",
        find: "(TrafficPolicy::Cluster, service.external_traffic_policy)",
        replace: "(service.external_traffic_policy, service.external_traffic_policy)",
        test: unit("compile::services::tests::traffic_policies_decide_by_address_and_side"),
    },
    Fault {
        name: "a Service without any endpoint is silent where its traffic policy is Local",
        file: "agent/src/compile/services/frontends.rs",
        find: "TrafficPolicy::Local if !self.cluster.is_empty() => flag,",
        replace: "TrafficPolicy::Local if true => flag,",
        test: unit(
            "compile::services::tests::local_policy_keeps_to_the_node_and_drops_only_when_others_have_endpoints",
        ),
    },
    Fault {
        name: "source ranges narrow node ports",
        file: "agent/src/compile/services/frontends.rs",
        find: "Claim::LoadBalancer => self.admission,\n            Claim::ClusterIp | Claim::ExternalIp | Claim::NodePort => 0,",
        replace: "Claim::LoadBalancer | Claim::NodePort => self.admission,\n            Claim::ClusterIp | Claim::ExternalIp => 0,",
        test: unit("compile::services::tests::load_balancers_ask_where_a_client_comes_from"),
    },
    Fault {
        name: "a health check counts endpoints that are going",
        file: "agent/src/compile/services/health.rs",
        find: "endpoint.ready && endpoint.node",
        replace: "endpoint.serving && endpoint.node",
        test: unit(
            "compile::services::tests::health_checks_count_ready_endpoints_of_the_node_once",
        ),
    },
    Fault {
        name: "a backend is in the last of its sets only",
        file: "agent/src/compile/services/part.rs",
        find: "state.sets |= flag;",
        replace: "state.sets = flag;",
        test: unit("compile::services::tests::a_backend_is_in_every_set_that_leads_to_it"),
    },
    Fault {
        name: "endpoints of one family are led to from the other",
        file: "agent/src/compile/services/part.rs",
        find: "let endpoints = endpoints.of_family(v4);",
        replace: "let endpoints = endpoints.of_family(true);",
        test: unit("compile::services::tests::families_stay_apart"),
    },
    Fault {
        name: "of two Services with one backend the one that is going counts",
        file: "agent/src/compile/services/compiler.rs",
        find: "state: one.state.max(other.state),",
        replace: "state: one.state.min(other.state),",
        test: unit(
            "compile::services::compiler::tests::of_two_backends_with_one_fingerprint_the_active_one_counts",
        ),
    },
    Fault {
        name: "a changed zone of the node leaves Services as they were",
        file: "agent/src/compile/services/compiler.rs",
        find: "if self.place != place {",
        replace: "if self.place.node != place.node {",
        test: unit(
            "compile::services::compiler::tests::what_was_compiled_before_makes_no_difference",
        ),
    },
    Fault {
        name: "a slice that moves to another Service stays with the first",
        file: "agent/src/compile/services/compiler.rs",
        find: "                    slices.remove(name);\n",
        replace: "",
        test: unit(
            "compile::services::compiler::tests::what_was_compiled_before_makes_no_difference",
        ),
    },
    Fault {
        name: "source ranges of one family close the other",
        file: "agent/src/compile/services/ranges.rs",
        find: "ranges.filter(|range| range.is_ipv4() == v4).collect()",
        replace: "ranges.filter(|range| range.is_ipv4() == v4 || true).collect()",
        test: unit("compile::services::tests::load_balancers_ask_where_a_client_comes_from"),
    },
    Fault {
        name: "an address that another proxy serves is closed",
        file: "agent/src/compile/services/cidrs.rs",
        find: "cidrs.any(|cidr| cidr.contains(address)) && !foreign(snapshot).contains(&address)",
        replace: "cidrs.any(|cidr| cidr.contains(address))",
        test: unit(
            "compile::services::cidrs::tests::an_address_is_judged_as_the_ranges_are_written",
        ),
    },
    Fault {
        name: "a run is taken again while programs may read it",
        file: "agent/src/plan/space.rs",
        find: "self.needs_wait = true;",
        replace: "self.needs_wait = false;",
        test: unit("plan::tests::planning::runs_are_used_again_only_after_a_grace_period"),
    },
    Fault {
        name: "a run is taken again in the plan that gave it back",
        file: "agent/src/plan/space.rs",
        find: "self.space.given_back.push((base, content.len() as u32));",
        replace: "self.space.insert_free(base, content.len() as u32);",
        test: unit(
            "plan::space::tests::a_run_given_back_rests_until_the_next_plan_and_then_asks_for_a_wait",
        ),
    },
    Fault {
        name: "a run that two use is given back by one",
        file: "agent/src/plan/space.rs",
        find: "if users > 1 {",
        replace: "if users > 2 {",
        test: unit(
            "plan::space::tests::a_run_given_back_rests_until_the_next_plan_and_then_asks_for_a_wait",
        ),
    },
    Fault {
        name: "the id of a backend is taken again while programs may read it",
        file: "agent/src/plan/backends.rs",
        find: "self.needs_wait = true;",
        replace: "self.needs_wait = false;",
        test: unit(
            "plan::backends::tests::ids_are_taken_from_the_gone_only_when_there_are_no_others",
        ),
    },
    Fault {
        name: "a removed backend keeps its state",
        file: "agent/src/plan/backends.rs",
        find: "if self.states[id as usize] != state {",
        replace: "if state.state != BACKEND_GONE && self.states[id as usize] != state {",
        test: unit(
            "plan::tests::watch::every_moment_of_every_plan_is_old_or_new_and_the_end_does_not_know_the_way",
        ),
    },
    Fault {
        name: "a wildcard comes before the ports that it is not about",
        file: "agent/src/plan/services.rs",
        find: "placed.sort_by_key(|(key, ..)| is_wildcard(key));",
        replace: "placed.sort_by_key(|(key, ..)| !is_wildcard(key));",
        test: unit(
            "plan::tests::services::a_wildcard_comes_after_the_ports_of_its_address_and_goes_before_them",
        ),
    },
    Fault {
        name: "a port goes before the wildcard of its address",
        file: "agent/src/plan/services.rs",
        find: "gone.sort_by_key(|(key, _)| !is_wildcard(key));",
        replace: "gone.sort_by_key(|(key, _)| is_wildcard(key));",
        test: unit(
            "plan::tests::services::a_wildcard_comes_after_the_ports_of_its_address_and_goes_before_them",
        ),
    },
    Fault {
        name: "source ranges go while programs still ask for them",
        file: "agent/src/plan/services.rs",
        find: "            steps.push(Step::Wait);\n",
        replace: "",
        test: unit("plan::tests::services::ranges_are_there_as_long_as_a_program_may_ask_for_them"),
    },
    Fault {
        name: "a table grows by what it has",
        file: "agent/src/plan/sizes.rs",
        find: "(need * 2).next_power_of_two()",
        replace: "(need / 2).next_power_of_two()",
        test: unit("plan::tests::planning::growth_builds_a_larger_generation_and_keeps_ids"),
    },
    Fault {
        name: "a table may be larger than the kernel takes",
        file: "agent/src/plan/sizes.rs",
        find: "if need > limit as usize {",
        replace: "if false {",
        test: unit(
            "plan::tests::planning::what_is_too_large_is_refused_by_name_and_changes_nothing",
        ),
    },
    Fault {
        name: "the smallest Services go first",
        file: "agent/src/plan/excess.rs",
        find: "by_size.sort_by_key(|one| Reverse(one.entries));",
        replace: "by_size.sort_by_key(|one| one.entries);",
        test: unit("plan::excess::tests::the_largest_go_until_the_rest_fits"),
    },
];
