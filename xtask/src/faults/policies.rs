//! Faults in what becomes of policies: compiling them, and bringing the kernel's maps to them.

use super::{Fault, Test, simulated, unit};

/// Compiling from nothing is its oracle.
const COMPILER: Test =
    unit("compile::policies::compiler::tests::what_was_compiled_before_makes_no_difference");
/// Every moment of a plan is looked at.
const PLANNER: Test = unit(
    "plan::tests::watch::every_moment_of_every_plan_is_old_or_new_and_the_end_does_not_know_the_way",
);
/// What the API's text says, read word by word.
const TEXT: Test = unit("compile::policies::tests::tables_answer_as_the_text_reads");

/// Random clusters; those have many policies of one tier.
const ORACLE: Test = simulated(
    "policy",
    "tables_packets_and_explanations_agree_with_the_oracle",
);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "terms that nobody asks any more go on holding",
        file: "agent/src/compile/policies/groups.rs",
        find: "!other_labels && !terms.gone().contains(number)",
        replace: "!other_labels || terms.gone().contains(number)",
        test: COMPILER,
    },
    Fault {
        name: "labels of a namespace are looked at once",
        file: "agent/src/compile/policies/groups.rs",
        find: "let other_labels = changed.contains(namespace);",
        replace: "let other_labels = false && changed.contains(namespace);",
        test: COMPILER,
    },
    Fault {
        name: "port names are looked at once",
        file: "agent/src/compile/policies/groups.rs",
        find: "let names_differ = terms.names_differ();",
        replace: "let names_differ = false && terms.names_differ();",
        test: unit(
            "compile::policies::compiler::tests::a_port_name_tells_pods_apart_as_long_as_a_rule_uses_it",
        ),
    },
    Fault {
        name: "a changed policy selects pods of every namespace",
        file: "agent/src/compile/policies/subjects.rs",
        find: "let selects = name.namespace == pod.name.namespace\n            && policy",
        replace: "let selects = policy",
        test: COMPILER,
    },
    Fault {
        name: "other rules of a policy leave its pods as they were",
        file: "agent/src/compile/policies/subjects.rs",
        find: " || says_other() {",
        replace: " || false && says_other() {",
        test: COMPILER,
    },
    Fault {
        name: "rows hear of no class that comes later",
        file: "agent/src/compile/policies/rows.rs",
        find: "row.tell(&mut entry, news.come.iter().copied(), terms, classes);",
        replace: "",
        test: COMPILER,
    },
    Fault {
        name: "verdicts outlive their class",
        file: "agent/src/compile/policies/rows.rs",
        find: "entry.verdicts.remove(class);",
        replace: "",
        test: COMPILER,
    },
    Fault {
        name: "a Pass leaves it to the next rule of its tier",
        file: "agent/src/compile/policies/rows.rs",
        find: "ranks.find(|rank| *rank >= self.admin)?",
        replace: "ranks.next()?",
        test: unit(
            "compile::policies::tests::tiers::the_first_rule_of_a_tier_counts_and_a_pass_is_the_end_of_it",
        ),
    },
    Fault {
        name: "the Baseline has a word where NetworkPolicies isolate",
        file: "agent/src/compile/policies/rows.rs",
        find: "        if tiers.isolating.is_empty() {\n            rules.extend(all(&tiers.baseline));",
        replace: "        rules.extend(all(&tiers.baseline));\n        if tiers.isolating.is_empty() {",
        test: TEXT,
    },
    Fault {
        name: "port names of ingress are those of the peer",
        file: "agent/src/compile/policies/rows.rs",
        find: "Direction::Ingress => rule.for_subject(pod),",
        replace: "Direction::Ingress => Some(rule.clone()),",
        test: TEXT,
    },
    Fault {
        name: "tiers are asked in the order of names",
        file: "agent/src/model/cluster_policy.rs",
        find: "(self.tier, self.priority, &self.name)",
        replace: "(self.tier, 0, &self.name)",
        test: ORACLE,
    },
    Fault {
        name: "what a block excepts is in it",
        file: "agent/src/compile/policies/prefixes.rs",
        find: "                terms.remove(block);",
        replace: "                terms.insert(*block);",
        test: unit("compile::policies::prefixes::tests::nested_blocks_and_exceptions"),
    },
    Fault {
        name: "addresses keep their class when blocks change",
        file: "agent/src/compile/policies/peers.rs",
        find: "dirty.extend(self.owners.range(range()).map(|(address, _)| *address));",
        replace: "",
        test: unit(
            "compile::policies::compiler::tests::a_block_that_comes_later_holds_the_pods_that_are_known",
        ),
    },
    Fault {
        name: "a sandbox whose pod nobody knows leaves its address to a former pod",
        file: "agent/src/model/owners.rs",
        find: "None => None,",
        replace: "None => owner,",
        test: COMPILER,
    },
    Fault {
        name: "of two pods with one address the older owns it",
        file: "agent/src/model/owners.rs",
        find: ".max_by(|one, other| one.precedence()",
        replace: ".min_by(|one, other| one.precedence()",
        test: unit(
            "explain::tests::policy::a_reused_address_belongs_to_the_live_pod_that_is_newest",
        ),
    },
    Fault {
        name: "the version of policies is not flipped",
        file: "agent/src/plan/policies.rs",
        find: "*version = version.wrapping_add(1);",
        replace: "*version = version.wrapping_add(2);",
        test: PLANNER,
    },
    Fault {
        name: "elements change in the version in force",
        file: "agent/src/plan/policies.rs",
        find: "if active == 0 { [now, new] } else { [new, now] }",
        replace: "if active == 1 { [now, new] } else { [new, now] }",
        test: PLANNER,
    },
    Fault {
        name: "what the last change left uneven stays so",
        file: "agent/src/plan/policies.rs",
        find: "differences.all().chain(former).collect();",
        replace: "differences.all().chain(former.into_iter().take(0)).collect();",
        test: PLANNER,
    },
    Fault {
        name: "what programs may still read is deleted",
        file: "agent/src/plan/policies.rs",
        find: "            steps.push(Step::Wait);\n            if narrows() {",
        replace: "            if narrows() {",
        test: PLANNER,
    },
    Fault {
        name: "a prefix that a version lacks is the world's there",
        file: "agent/src/plan/policies.rs",
        find: "class.or_else(|| around(&tables.prefixes, &key))",
        replace: "class",
        test: unit(
            "plan::tests::policies::a_block_in_a_block_answers_like_it_until_the_change_is_in_force",
        ),
    },
    Fault {
        name: "isolation takes nothing away from live flows",
        file: "agent/src/plan/narrows.rs",
        find: "before == RowId::OPEN",
        replace: "false",
        test: unit("plan::tests::narrowing::additions_take_nothing_away_and_removals_do"),
    },
    Fault {
        name: "a pod that comes while policies do not fit is open",
        file: "agent/src/plan/held_back.rs",
        find: "None => close(&mut tables.rows, wanted, desired),",
        replace: "None => RowId::OPEN,",
        test: unit("plan::tests::held_back::pods_that_come_while_policies_do_not_fit_are_isolated"),
    },
];
