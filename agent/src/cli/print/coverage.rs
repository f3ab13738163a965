//! `weir policy coverage`.

use std::fmt::Write;

use super::table::{cell, table};
use crate::cli::coverage::Covered;
use crate::review::CoveredRule;

/// What rules did, who is free, and how far that can be trusted.
#[must_use]
pub fn coverage(covered: &Covered) -> String {
    let header = ["TIER", "POLICY", "RULE", "HITS", "CONNECTIONS", "NOTE"];
    let rules = covered.coverage.rules.iter().map(|rule| {
        let direction = rule.direction.as_str();
        vec![
            rule.tier.as_str().to_owned(),
            rule.policy.to_string(),
            match rule.index {
                Some(index) => format!("{direction}[{index}]"),
                None => format!("{direction}, no rule"),
            },
            rule.counted.hits.to_string(),
            cell(rule.index.map(|_| rule.counted.connections)),
            note(rule, covered.event_sample),
        ]
    });
    let mut text = table("", &header, rules);
    let unisolated = &covered.coverage.unisolated;
    if !unisolated.is_empty() {
        let header = ["NAMESPACE", "WORKLOAD", "PODS", "INGRESS", "EGRESS"];
        let rows = unisolated.iter().map(|it| {
            vec![
                it.namespace.clone(),
                it.workload.clone(),
                it.pods.to_string(),
                isolation(it.ingress),
                isolation(it.egress),
            ]
        });
        text += "\nPods that no NetworkPolicy isolates\n";
        text += &table("  ", &header, rows);
    }
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\nCounted on {} node{} since {:.0}. ",
        covered.nodes,
        if covered.nodes == 1 { "" } else { "s" },
        covered.since
    );
    text += &match covered.event_sample {
        0 => "Neither ends nor beginnings of allowed connections are reported (--flow-ends=0, --event-sample=0): of rules that allow only the connections of now are known.\n".to_owned(),
        1 => "Every connection is counted, where ends are reported (--flow-ends) once it has ended.\n".to_owned(),
        sample => format!(
            "One of {sample} allowed connections is reported (--event-sample): hits of rules that allow are estimates, and a rule that few use may have none.\n"
        ),
    };
    if covered.uncounted > 0 {
        let _ = writeln!(
            text,
            "{} hits are of rules for which there was no room.",
            covered.uncounted
        );
    }
    text
}

fn isolation(is_free: bool) -> String {
    if is_free { "open" } else { "isolated" }.to_owned()
}

fn note(rule: &CoveredRule, event_sample: u32) -> String {
    let direction = rule.direction.as_str();
    if let Some(other) = rule.shadowed_by {
        format!("decides nothing: {direction}[{other}] matches all that it does")
    } else if rule.matches_nobody {
        "matches nobody now".to_owned()
    } else if rule.is_unused() && event_sample == 0 {
        "no connection now".to_owned()
    } else if rule.is_unused() {
        "never hit".to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::RuleOrigin;
    use crate::flows::{Denials, RuleHit, RuleHits};
    use crate::model::{Direction, ObjectName, Tier};
    use crate::review::{Counted, Coverage, Unisolated};

    fn rule(index: usize) -> RuleOrigin {
        RuleOrigin {
            tier: Tier::NetworkPolicy,
            policy: ObjectName::new("shop", "back"),
            direction: Direction::Ingress,
            index,
        }
    }

    fn covered(event_sample: u32) -> Covered {
        let rule = |index, counted, shadowed_by, matches_nobody| CoveredRule {
            tier: Tier::NetworkPolicy,
            policy: ObjectName::new("shop", "back"),
            direction: Direction::Ingress,
            index,
            counted,
            shadowed_by,
            matches_nobody,
        };
        let used = Counted {
            hits: 1200,
            connections: 7,
        };
        let unused = Counted::default();
        Covered {
            coverage: Coverage {
                rules: vec![
                    rule(Some(0), used, None, false),
                    rule(Some(1), unused, Some(0), false),
                    rule(Some(2), unused, None, true),
                    rule(Some(3), unused, None, false),
                    rule(None, used, None, false),
                ],
                unisolated: vec![Unisolated {
                    namespace: "shop".to_owned(),
                    workload: "deploy/front".to_owned(),
                    ingress: true,
                    egress: false,
                    pods: 3,
                }],
            },
            nodes: 2,
            since: "2026-01-02T03:04:05.25Z".parse().unwrap(),
            event_sample,
            uncounted: u64::from(event_sample),
        }
    }

    #[test]
    fn what_rules_did() {
        let texts = [100, 1, 0].map(|sample| coverage(&covered(sample)));
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn nodes_are_summed() {
        let node = |hits, packets| RuleHits {
            rules: vec![RuleHit {
                rule: rule(1),
                hits,
                connections: 2,
            }],
            denials: vec![Denials {
                policy: ObjectName::new("shop", "back"),
                direction: Direction::Egress,
                packets,
            }],
            ..RuleHits::default()
        };
        let counts = crate::cli::coverage::summed(&[node(3, 10), node(4, 20)]);
        let counted = Counted {
            hits: 7,
            connections: 4,
        };
        assert_eq!(counts.rules, [(rule(1), counted)].into());
        assert_eq!(counts.denials.into_values().collect::<Vec<_>>(), [30]);
    }
}
