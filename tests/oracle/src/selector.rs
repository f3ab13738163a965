//! Label selectors, requirement by requirement.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether `selector` selects an object with these labels.
///
/// All entries of `matchLabels` and all `matchExpressions` must hold, so the empty selector selects
/// everything. Values are compared as strings and never validated: old objects may hold values
/// that are no valid label value, and no label equals those. An unknown operator holds for
/// no object.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let value = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => !value.is_some_and(|value| values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(key: &str, operator: &str, values: &[&str], labels: &[(&str, &str)]) -> bool {
        let requirement = LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|&value| value.to_owned()).collect()),
        };
        let selector = LabelSelector {
            match_expressions: Some(vec![requirement]),
            match_labels: None,
        };
        selects(&selector, &map(labels))
    }

    fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn each_operator_reads_as_set_logic() {
        let web = &[("app", "web")][..];
        let none = &[][..];
        for (operator, values, labels, expected) in [
            ("In", &["web", "db"][..], web, true),
            ("In", &["db"], web, false),
            ("In", &["web"], none, false),
            ("In", &[], web, false),
            ("NotIn", &["web"], web, false),
            ("NotIn", &["db"], web, true),
            ("NotIn", &["web"], none, true),
            ("NotIn", &[], web, true),
            ("Exists", &[], web, true),
            ("Exists", &[], none, false),
            ("DoesNotExist", &[], web, false),
            ("DoesNotExist", &[], none, true),
        ] {
            assert_eq!(
                selected("app", operator, values, labels),
                expected,
                "{operator} {values:?} on {labels:?}"
            );
        }
    }

    #[test]
    fn an_unknown_operator_selects_nothing() {
        assert!(!selected("app", "Gt", &["0"], &[("app", "1")]));
        assert!(!selected("app", "in", &["web"], &[("app", "web")]));
    }

    #[test]
    fn a_value_that_is_no_valid_label_value_equals_no_label() {
        assert!(!selected("app", "In", &["not a label!"], &[("app", "web")]));
        assert!(selected(
            "app",
            "NotIn",
            &["not a label!"],
            &[("app", "web")]
        ));
    }

    #[test]
    fn every_part_of_a_selector_must_hold() {
        let selector = LabelSelector {
            match_labels: Some(map(&[("app", "web"), ("tier", "front")])),
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "old".to_owned(),
                operator: "DoesNotExist".to_owned(),
                values: None,
            }]),
        };
        assert!(selects(
            &selector,
            &map(&[("app", "web"), ("tier", "front"), ("more", "x")])
        ));
        assert!(!selects(&selector, &map(&[("app", "web")])));
        assert!(!selects(
            &selector,
            &map(&[("app", "web"), ("tier", "back")])
        ));
        assert!(!selects(
            &selector,
            &map(&[("app", "web"), ("tier", "front"), ("old", "")])
        ));
    }

    #[test]
    fn the_empty_selector_selects_everything() {
        assert!(selects(&LabelSelector::default(), &map(&[])));
        assert!(selects(&LabelSelector::default(), &map(&[("app", "web")])));
    }
}
