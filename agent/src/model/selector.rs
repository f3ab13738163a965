//! Label selectors, evaluated as plain set logic.

mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use text::SelectorError;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector: all requirements must hold. Without requirements it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    /// matchLabels and matchExpressions alike, sorted.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What its value must be.
    pub operator: Operator,
}

/// `metav1.LabelSelectorOperator`. `NotIn` and `DoesNotExist` also match objects without the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there with one of these values.
    In(BTreeSet<String>),
    /// The label is missing or has another value.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    /// Whether this requirement holds for an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_plain_set_logic() {
        let values = || BTreeSet::from(["x".to_owned(), "no label's value!".to_owned()]);
        let objects: [Labels; 3] = [
            [("key".to_owned(), "x".to_owned())].into(),
            [("key".to_owned(), "y".to_owned())].into(),
            [("other".to_owned(), "x".to_owned())].into(),
        ];
        for (operator, expected) in [
            (Operator::In(values()), [true, false, false]),
            (Operator::NotIn(values()), [false, true, true]),
            (Operator::Exists, [true, true, false]),
            (Operator::DoesNotExist, [false, false, true]),
        ] {
            let key = "key".to_owned();
            let requirement = Requirement { key, operator };
            let mut selector = Selector {
                requirements: vec![requirement],
            };
            let matching = objects.each_ref().map(|labels| selector.matches(labels));
            assert_eq!(matching, expected, "{selector:?}");
            // All of several must hold.
            selector.requirements.push(Requirement {
                key: "other".to_owned(),
                operator: Operator::Exists,
            });
            let matching = objects.each_ref().map(|labels| selector.matches(labels));
            assert_eq!(matching, [false, false, expected[2]], "{selector:?}");
        }
        assert!(
            objects
                .iter()
                .all(|labels| Selector::default().matches(labels))
        );
    }
}
